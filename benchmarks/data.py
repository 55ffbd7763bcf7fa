"""Input of the benchmarks: made once from a seed, kept under ``benchmarks/data`` (not in the repository)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

FOLDER = Path(__file__).parent / "data"
AD_SCHEMA = {"ad_id": pl.Int64, "kind": pl.String, "event_time": pl.Datetime("us"), "user_id": pl.Int64, "page": pl.Int64}
USER_SCHEMA = {"user_id": pl.Int64, "event_time": pl.Datetime("us"), "amount": pl.Int64}


def ad_events(rows: int = 20_000_000, files: int = 20) -> Path:
    """Return a folder of Parquet files of ad events: 1,000 ads, a third of the events are views, a minute of time a million rows."""
    folder = FOLDER / f"ads-{rows}-{files}"
    return _once(folder, files, lambda rng, k: _ads(rng, k, rows // files))


def user_events(rows: int = 20_000_000, files: int = 20, users: int = 1_000_000) -> Path:
    """Return a folder of Parquet files of amounts per user, users drawn uniformly, a minute of time a million rows."""
    folder = FOLDER / f"users-{rows}-{files}-{users}"
    return _once(folder, files, lambda rng, k: _users(rng, k, rows // files, users))


def campaigns() -> pl.DataFrame:
    """Return the campaign of each ad: ten ads a campaign."""
    return pl.DataFrame({"ad_id": np.arange(1_000), "campaign": np.arange(1_000) // 10})


def _once(folder: Path, files: int, make) -> Path:  # type: ignore[no-untyped-def]
    if len(list(folder.glob("*.parquet"))) < files:
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(files):
            make(np.random.default_rng(k), k).write_parquet(folder / f"{k:04}.parquet")
    return folder


def _times(rng: np.random.Generator, k: int, n: int) -> pl.Series:
    begin, length = 1_700_000_000_000_000 + k * n * 60, n * 60
    # Ordered up to two seconds: what a collector of many machines writes.
    micros = begin + np.sort(rng.integers(0, length, n)) - rng.integers(0, 2_000_000, n)
    return pl.Series("event_time", micros).cast(pl.Datetime("us"))


def _ads(rng: np.random.Generator, k: int, n: int) -> pl.DataFrame:
    kinds = np.array(["view", "click", "purchase"])
    return pl.DataFrame(
        {
            "ad_id": rng.integers(0, 1_000, n),
            "kind": kinds[rng.integers(0, 3, n)],
            "event_time": _times(rng, k, n),
            "user_id": rng.integers(0, 1_000_000, n),
            "page": rng.integers(0, 100_000, n),
        }
    )


def _users(rng: np.random.Generator, k: int, n: int, users: int) -> pl.DataFrame:
    return pl.DataFrame({"user_id": rng.integers(0, users, n), "event_time": _times(rng, k, n), "amount": rng.integers(1, 10_000, n)})
