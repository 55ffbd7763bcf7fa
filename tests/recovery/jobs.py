"""The queries the crash matrix kills: counts and sums over files, by window, by session and by hand, into every exactly-once sink."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.faults import FAULT_POINTS
from microbatch.model import OutputMode
from tests.recovery import join_job

SCHEMA: dict[str, Any] = {"at": pl.Datetime("us"), "key": pl.String, "n": pl.Int64}
IN_OBJECTS = "delta-s3"  # its checkpoint lies in an object store
SINKS = (
    "delta-append",
    "delta-update",
    "delta-complete",
    "files",
    "delta-session",
    "delta-late",
    "delta-map_state",
    "delta-unique",
    "delta-join",
    "delta-ttl",
)
# Where the state has several tables, the name of the one with the groups.
OPERATORS = {"delta-session": "session-key", "delta-map_state": "windows", "delta-unique": "windows", "delta-ttl": "windows"}
COUNTS = [pl.len().alias("rows"), pl.col("n").sum().alias("sum"), pl.col("n").max().alias("top")]
KEPT = {"rows": pl.Int64, "sum": pl.Int64, "top": pl.Int64}
N_FILES = 9
FILES_A_BATCH = 2
TTL = timedelta(seconds=60)
LIMIT = 480  # of some 540 rows
DELAY = timedelta(seconds=45)
WINDOW_END = pl.col("at").dt.truncate("10s") + timedelta(seconds=10)


def make_landing(folder: Path, seed: int, sink: str) -> None:
    """Write files whose rows run forward in time, a little out of order; none is late, but for a tenth of those of ``delta-late``."""
    rng = random.Random(seed)
    folder.mkdir()
    for k in range(N_FILES):
        begin = datetime(2024, 1, 1) + timedelta(seconds=30 * k)
        rows = [
            {"at": begin + timedelta(seconds=rng.randrange(40)), "key": rng.choice("abcde"), "n": rng.randrange(-50, 50)} for _ in range(60)
        ]
        if sink == "delta-late":
            rows[:6] = [row | {"at": begin - timedelta(seconds=60 + 10 * k)} for k, row in enumerate(rows[:6])]
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(folder / f"{k:03}.parquet")


def frame(root: Path, sink: str) -> mb.StreamFrame:
    """Return counts and sums per key, and 10 s window or session of rows at most 1.5 s apart; of a few different rows for one job."""
    events = mb.scan_files(root / "landing" / "*.parquet", schema=SCHEMA, max_files_per_trigger=FILES_A_BATCH).with_watermark("at", DELAY)
    if sink == "delta-map_state":
        windows = events.group_by(mb.window("at", "10s"), "key")
        return windows.map_state(counted, state_schema=KEPT, output_schema=KEPT, timers="event_time", name="windows")
    if sink == "delta-join":
        return join_job.joined(events)
    if sink == "delta-unique":
        fresh = mb.concat([events, events]).unique(within_watermark=True).limit(LIMIT)
        return fresh.group_by(mb.window("at", "10s"), "key").agg(COUNTS, name="windows")
    if sink == "delta-ttl":
        start = pl.col("at").dt.truncate("10s")
        plain = events.group_by(start.alias("window_start"), (start + timedelta(seconds=10)).alias("window_end"), "key")
        return plain.agg(COUNTS, ttl=TTL, name="windows")
    window = mb.session_window("at", "1500ms") if sink == "delta-session" else mb.window("at", "10s")
    return events.group_by(window, "key").agg(COUNTS)


def counted(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
    """Do what ``COUNTS`` do, by hand: a window's timer stands at the last moment before its end."""
    if not rows:
        counts = tuple(state[name].get() for name in KEPT)
        state.remove()
        return counts
    state.register_timer(key[1] - timedelta(microseconds=1))
    state["rows"].update(state["rows"].get(0) + len(rows))
    state["sum"].update(state["sum"].get(0) + sum(row.n for row in rows))
    state["top"].update(max(state["top"].get(rows[0].n), *(row.n for row in rows)))
    return None


def mode(sink: str) -> OutputMode:
    """Return the output mode of a job."""
    if sink == "delta-ttl":
        return OutputMode.UPDATE
    return OutputMode(sink.removeprefix("delta-")) if sink in ("delta-update", "delta-complete") else OutputMode.APPEND


def points_of(sink: str) -> list[str]:
    """Return the fault points a job passes."""
    return [point for point in FAULT_POINTS if point != "late_rows_written" or sink == "delta-late"]


def checkpoint_of(root: Path, sink: str) -> str:
    """Return where a job keeps its checkpoint."""
    return f"s3://checkpoints/{root.name}/query" if sink == IN_OBJECTS else str(root / "checkpoint")


def query(root: Path, sink: str) -> mb.Query:
    """Return the query into one kind of sink."""
    rows, checkpoint = frame(root, sink), checkpoint_of(root, sink)
    if sink == "files":
        return rows.sink_files(root / "out", format="parquet", checkpoint=checkpoint)
    if sink == "delta-late":
        return rows.sink_delta(root / "out", checkpoint=checkpoint, late_rows=root / "late")
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
    events = arrived(root).filter(~pl.col("is_late"))
    if sink == "delta-unique":
        events = events.unique(list(SCHEMA), keep="first", maintain_order=True).head(LIMIT)
    if sink == "delta-session":
        apart = pl.col("at").diff() > timedelta(milliseconds=1500)
        sessions = events.sort("key", "at").with_columns(number=apart.fill_null(True).cum_sum().over("key"))
        bounds = pl.col("at").min().alias("window_start"), (pl.col("at").max() + timedelta(milliseconds=1500)).alias("window_end")
        return sessions.group_by("key", "number").agg(*bounds, *COUNTS).select("window_start", "window_end", "key", "rows", "sum", "top")
    start = pl.col("at").dt.truncate("10s")
    return events.group_by(start.alias("window_start"), (start + timedelta(seconds=10)).alias("window_end"), "key").agg(COUNTS)


def left_groups(root: Path, sink: str) -> pl.DataFrame:
    """Return the groups that must be in the state in the end."""
    every = every_group(root, sink)
    if sink == "delta-ttl":
        latest = arrived(root).group_by(pl.col("at").dt.truncate("10s").alias("window_start"), "key").agg(pl.col("at").max())
        return every.join(latest.filter(pl.col("at") + TTL > watermark(root)), on=["window_start", "key"], how="semi")
    return every if sink == "delta-complete" else every.filter(pl.col("window_end") > watermark(root))


def arrived(root: Path) -> pl.DataFrame:
    """Return all rows with the batch they came in, the mark that judges them, and whether they are late."""
    files = sorted((root / "landing").glob("*.parquet"))
    rows = pl.concat(pl.read_parquet(file).with_columns(batch_id=pl.lit(k // FILES_A_BATCH, pl.Int64)) for k, file in enumerate(files))
    # What a batch saw moves the watermark of the next, whose late mark is that of the batch before it.
    latest = rows.group_by("batch_id").agg(pl.col("at").max()).sort("batch_id")
    marks = latest.select(pl.col("batch_id") + 2, mark=pl.col("at").cum_max() - DELAY)
    return rows.join(marks, on="batch_id", how="left").with_columns(is_late=(pl.col("mark") >= WINDOW_END).fill_null(value=False))


def late_rows(root: Path) -> pl.DataFrame:
    """Return what a reader of the table of late rows sees, without who refused them."""
    rows = pl.read_delta(str(root / "late")).select("batch_id", "mark", "event_time", pl.col("row").struct.unnest())
    return rows.select("batch_id", "mark", "event_time", "at", "key", "n")


def expected_late_rows(root: Path) -> pl.DataFrame:
    """Return what it must hold."""
    late = arrived(root).filter("is_late").with_columns(event_time=WINDOW_END)
    return late.select("batch_id", "mark", "event_time", "at", "key", "n")


def watermark(root: Path) -> datetime:
    """Return the watermark after all files: the largest event time less the delay."""
    latest = pl.read_parquet(root / "landing" / "*.parquet")["at"].max()
    assert isinstance(latest, datetime)
    return latest - DELAY
