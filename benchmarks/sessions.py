"""Sessions a second: the engine against one Polars query over all rows at once, in turn, in the same process.

``python -m benchmarks.sessions [--rows 20000000] [--users 1000000] [--rounds 3] [--gap 10s] [--only 1]``
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import polars as pl

import microbatch as mb
from benchmarks import data
from benchmarks.report import Table, versions
from benchmarks.throughput import Job, timed
from microbatch.durations import duration_us

COUNTS = [pl.len().alias("n"), pl.col("amount").sum()]


def at_once(folder: Path, gap: str) -> Job:
    """Return one Polars query: all rows in memory, sorted by user and time, a new session where the gap is exceeded, into Delta."""
    length = pl.duration(microseconds=duration_us(gap))

    def run(out: Path) -> None:
        rows = pl.scan_parquet(folder / "*.parquet").sort("user_id", "event_time")
        time, user = pl.col("event_time"), pl.col("user_id")
        opens = (user != user.shift(1)) | (time - time.shift(1) > length)
        numbered = rows.with_columns(opens.fill_null(value=True).cum_sum().alias("session"))
        bounds = [time.min().alias("window_start"), (time.max() + length).alias("window_end")]
        sessions = numbered.group_by("session").agg(*bounds, user.first(), *COUNTS).drop("session")
        sessions.collect(engine="streaming").write_delta(out / "table")

    return run


def in_batches(folder: Path, gap: str, per_batch: int) -> Job:
    """Return the same as a stream, checkpoint on."""

    def run(out: Path) -> None:
        events = mb.scan_files(folder / "*.parquet", schema=data.USER_SCHEMA, max_files_per_trigger=per_batch)
        sessions = events.with_watermark("event_time", "10s").group_by(mb.session_window("event_time", gap), "user_id").agg(COUNTS)
        sessions.sink_delta(out / "table", checkpoint=out / "checkpoint").run()

    return run


def main() -> None:
    """Print one line per number of files in a batch: medians of both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gap", default="10s")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    folder = data.user_events(args.rows, users=args.users)
    table = Table("job", "at once s", "engine s", "M rows/s", "ratio")
    for per_batch in (5, 1):
        if args.only not in str(per_batch):
            continue
        whole, batches = at_once(folder, args.gap), in_batches(folder, args.gap, per_batch)
        timed(batches), timed(whole)  # the page cache and the threads are warm for both
        pairs = [(timed(whole), timed(batches)) for _ in range(args.rounds)]
        whole_s, engine_s = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        table.add(f"sessions, {per_batch} files", f"{whole_s:.2f}", f"{engine_s:.2f}", f"{args.rows / engine_s / 1e6:.2f}", f"{ratio:.2f}")
    print(versions(), table, sep="\n")


if __name__ == "__main__":
    main()
