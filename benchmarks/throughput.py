"""Rows a second: the engine against the hand-written loop, in turn, in the same process.

``python -m benchmarks.throughput [--rows 20000000] [--rounds 3] [--only ads|append|update]``
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl

import microbatch as mb
from benchmarks import data, loops
from benchmarks.report import Table, versions
from microbatch.clock import stopwatch_us

Job = Callable[[Path], None]


def views(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the views with their campaign."""
    seen = rows.filter(pl.col("kind") == "view").select("ad_id", "event_time")
    return seen.join(data.campaigns().lazy(), on="ad_id")


def ads_loop(folder: Path, per_batch: int, engine: loops.Engine) -> Job:
    """Return the loop: views per campaign and window into Delta."""
    count, total = [pl.len().alias("views")], [pl.col("views").sum()]
    return lambda out: loops.append_loop(folder, per_batch, views, ["campaign"], count, total, out / "table", engine)


def ads_engine(folder: Path, per_batch: int) -> Job:
    """Return the same as a stream, checkpoint on."""

    def run(out: Path) -> None:
        events = mb.scan_files(folder / "*.parquet", schema=data.AD_SCHEMA, max_files_per_trigger=per_batch)
        seen = events.filter(pl.col("kind") == "view").select("ad_id", "event_time").join(data.campaigns(), on="ad_id")
        counts = seen.with_watermark("event_time", "10s").group_by(mb.window("event_time", "10s"), "campaign").agg(pl.len().alias("views"))
        counts.sink_delta(out / "table", checkpoint=out / "checkpoint").run()

    return run


AMOUNTS = [pl.len().alias("n"), pl.col("amount").sum()]
MERGED = [pl.col("n").sum(), pl.col("amount").sum()]


def users_append_loop(folder: Path, per_batch: int, engine: loops.Engine) -> Job:
    """Return the loop: count and sum per user and window into Delta, closed windows only."""
    return lambda out: loops.append_loop(folder, per_batch, lambda rows: rows, ["user_id"], AMOUNTS, MERGED, out / "table", engine)


def users_update_loop(folder: Path, per_batch: int, engine: loops.Engine) -> Job:
    """Return the loop: changed groups of each batch into a Parquet file."""

    def run(out: Path) -> None:
        (out / "files").mkdir()
        written: list[int] = []

        def write(changed: pl.DataFrame) -> None:
            changed.write_parquet(out / "files" / f"{len(written):06}.parquet")
            written.append(changed.height)

        loops.update_loop(folder, per_batch, ["user_id"], AMOUNTS, MERGED, write, engine)

    return run


def _per_user(folder: Path, per_batch: int) -> mb.StreamFrame:
    events = mb.scan_files(folder / "*.parquet", schema=data.USER_SCHEMA, max_files_per_trigger=per_batch)
    return events.with_watermark("event_time", "10s").group_by(mb.window("event_time", "10s"), "user_id").agg(AMOUNTS)


def users_append_engine(folder: Path, per_batch: int) -> Job:
    """Return the same as a stream, checkpoint on."""
    return lambda out: _discard(_per_user(folder, per_batch).sink_delta(out / "table", checkpoint=out / "checkpoint").run())


def users_update_engine(folder: Path, per_batch: int) -> Job:
    """Return the same as a stream in update mode into files, checkpoint on."""
    options = {"checkpoint": "checkpoint", "mode": "update", "changelog": True}
    return lambda out: _discard(
        _per_user(folder, per_batch).sink_files(out / "files", **{**options, "checkpoint": out / "checkpoint"}).run()
    )


def _discard(result: object) -> None:
    assert result is not None


def timed(job: Job) -> float:
    """Return the seconds of one run in an empty folder."""
    out = Path(tempfile.mkdtemp(prefix="microbatch-bench-"))
    started = stopwatch_us()
    job(out)
    seconds = (stopwatch_us() - started) / 1e6
    shutil.rmtree(out)
    return seconds


def main() -> None:
    """Print one line per job: medians of both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    ads, users = data.ad_events(args.rows), data.user_events(args.rows)
    jobs: list[tuple[str, float, Callable[[loops.Engine], Job], Job]] = []
    for per_batch, goal in ((5, 0.8), (1, 0.7)):
        jobs.append((f"ads, append, {per_batch} files", goal, partial(ads_loop, ads, per_batch), ads_engine(ads, per_batch)))
    for per_batch in (5, 1):
        append, update = partial(users_append_loop, users, per_batch), partial(users_update_loop, users, per_batch)
        jobs.append((f"users, append, {per_batch} files", 0.6, append, users_append_engine(users, per_batch)))
        jobs.append((f"users, update, {per_batch} files", 0.4, update, users_update_engine(users, per_batch)))
    table = Table("job", "loop s", "engine s", "M rows/s", "ratio", "goal")
    for name, goal, loop, engine in jobs:
        if args.only not in name:
            continue
        timed(engine), timed(loop("streaming"))  # the page cache and the threads are warm for both
        pairs = [(min(timed(loop("streaming")), timed(loop("in-memory"))), timed(engine)) for _ in range(args.rounds)]
        loop_s, engine_s = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        table.add(name, f"{loop_s:.2f}", f"{engine_s:.2f}", f"{args.rows / engine_s / 1e6:.1f}", f"{ratio:.2f}", f"{goal}")
    print(versions(), table, sep="\n")


if __name__ == "__main__":
    main()
