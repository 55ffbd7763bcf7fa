"""The queries the crash matrix kills: counts and sums over files, by window and by session, into every exactly-once sink."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.model import OutputMode

SCHEMA: dict[str, Any] = {"at": pl.Datetime("us"), "key": pl.String, "n": pl.Int64}
SINKS = ("delta-append", "delta-update", "delta-complete", "files", "delta-session")
OPERATORS = {"delta-session": "session-key"}  # where the state has several tables, the name of the one with the groups
COUNTS = [pl.len().alias("rows"), pl.col("n").sum().alias("sum"), pl.col("n").max().alias("top")]
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


def frame(root: Path, sink: str) -> mb.StreamFrame:
    """Return counts and sums per key, and 10 s window or session of rows at most 1.5 s apart."""
    events = mb.scan_files(root / "landing" / "*.parquet", schema=SCHEMA, max_files_per_trigger=2).with_watermark("at", "45s")
    window = mb.session_window("at", "1500ms") if sink == "delta-session" else mb.window("at", "10s")
    return events.group_by(window, "key").agg(COUNTS)


def mode(sink: str) -> OutputMode:
    """Return the output mode of a job."""
    return OutputMode(sink.removeprefix("delta-")) if sink in ("delta-update", "delta-complete") else OutputMode.APPEND


def query(root: Path, sink: str) -> mb.Query:
    """Return the query into one kind of sink."""
    rows, checkpoint = frame(root, sink), root / "checkpoint"
    if sink == "files":
        return rows.sink_files(root / "out", format="parquet", checkpoint=checkpoint)
    return rows.sink_delta(root / "out", checkpoint=checkpoint, mode=str(mode(sink)))


def table(root: Path, sink: str) -> pl.DataFrame:
    """Return what a plain reader of the sink sees."""
    if sink == "files":
        return pl.read_parquet(root / "out" / "*.parquet")
    return pl.read_delta(str(root / "out"))


def expected(root: Path, sink: str) -> pl.DataFrame:
    """Return what the sink must hold in the end, by one plain Polars query: in append mode the groups the watermark has closed."""
    every = every_group(root, sink)
    if sink != "files":
        every = every.cast({"rows": pl.Int64})  # Delta has no unsigned integers
    return every.filter(pl.col("window_end") <= watermark(root)) if mode(sink) is OutputMode.APPEND else every


def every_group(root: Path, sink: str) -> pl.DataFrame:
    """Return the groups of all rows, by one plain Polars query."""
    events = pl.read_parquet(root / "landing" / "*.parquet")
    if sink == "delta-session":
        apart = pl.col("at").diff() > timedelta(milliseconds=1500)
        sessions = events.sort("key", "at").with_columns(number=apart.fill_null(True).cum_sum().over("key"))
        bounds = pl.col("at").min().alias("window_start"), (pl.col("at").max() + timedelta(milliseconds=1500)).alias("window_end")
        return sessions.group_by("key", "number").agg(*bounds, *COUNTS).select("window_start", "window_end", "key", "rows", "sum", "top")
    start = pl.col("at").dt.truncate("10s")
    return events.group_by(start.alias("window_start"), (start + timedelta(seconds=10)).alias("window_end"), "key").agg(COUNTS)


def watermark(root: Path) -> datetime:
    """Return the watermark after all files: the largest event time less the delay."""
    latest = pl.read_parquet(root / "landing" / "*.parquet")["at"].max()
    assert isinstance(latest, datetime)
    return latest - timedelta(seconds=45)
