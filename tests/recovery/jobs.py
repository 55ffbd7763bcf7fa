"""The queries the crash matrix kills: windowed counts and sums over files, into every exactly-once sink."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

import microbatch as mb

SCHEMA: dict[str, Any] = {"at": pl.Datetime("us"), "key": pl.String, "n": pl.Int64}
SINKS = ("delta-append", "delta-update", "delta-complete", "files")
N_FILES = 9


def make_landing(folder: Path, seed: int) -> None:
    """Write files whose rows run forward in time, a little out of order; no row is late by more than the watermark allows."""
    rng = random.Random(seed)
    folder.mkdir()
    for k in range(N_FILES):
        begin = datetime(2024, 1, 1) + timedelta(seconds=30 * k)
        rows = [
            {"at": begin + timedelta(seconds=rng.randrange(40)), "key": rng.choice("abcde"), "n": rng.randrange(-50, 50)} for _ in range(60)
        ]
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(folder / f"{k:03}.parquet")


def frame(root: Path) -> mb.StreamFrame:
    """Return counts and sums per key and 10 s window."""
    events = mb.scan_files(root / "landing" / "*.parquet", schema=SCHEMA, max_files_per_trigger=2)
    grouped = events.with_watermark("at", "45s").group_by(mb.window("at", "10s"), "key")
    return grouped.agg(pl.len().alias("rows"), pl.col("n").sum().alias("sum"), pl.col("n").max().alias("top"))


def query(root: Path, sink: str) -> mb.Query:
    """Return the query into one kind of sink."""
    rows, checkpoint = frame(root), root / "checkpoint"
    if sink == "files":
        return rows.sink_files(root / "out", format="parquet", checkpoint=checkpoint)
    return rows.sink_delta(root / "out", checkpoint=checkpoint, mode=sink.removeprefix("delta-"))


def table(root: Path, sink: str) -> pl.DataFrame:
    """Return what a plain reader of the sink sees."""
    if sink == "files":
        return pl.read_parquet(root / "out" / "*.parquet")
    return pl.read_delta(str(root / "out"))


def expected(root: Path, sink: str) -> pl.DataFrame:
    """Return what the sink must hold in the end, by one plain Polars query: in append mode the windows the watermark has closed."""
    events = pl.read_parquet(root / "landing" / "*.parquet")
    start = pl.col("at").dt.truncate("10s")
    every = events.group_by(start.alias("window_start"), (start + timedelta(seconds=10)).alias("window_end"), "key").agg(
        pl.len().alias("rows"), pl.col("n").sum().alias("sum"), pl.col("n").max().alias("top")
    )
    if sink != "files":
        every = every.cast({"rows": pl.Int64})  # Delta has no unsigned integers
    if sink in ("delta-update", "delta-complete"):
        return every
    return every.filter(pl.col("window_end") <= watermark(root))


def watermark(root: Path) -> datetime:
    """Return the watermark after all files: the largest event time less the delay."""
    latest = pl.read_parquet(root / "landing" / "*.parquet")["at"].max()
    assert isinstance(latest, datetime)
    return latest - timedelta(seconds=45)
