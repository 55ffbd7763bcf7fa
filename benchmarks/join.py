"""A join of two streams, an hour apart at most: whole run against one Polars join over all rows, and the cost of a batch as state grows.

``python -m benchmarks.join [--rows 5000000] [--batches 20] [--keys 500000] [--hours 5] [--plot join.png]``

The state is full once ``hours`` of the data hold more than the bound: from then on a batch should cost the same.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

import microbatch as mb
from benchmarks.plot import Curve, draw
from benchmarks.report import Table, versions
from microbatch.clock import stopwatch_us

BEGIN = datetime(2024, 1, 1)  # noqa: DTZ001
APART = timedelta(hours=1)


def side(rows: int, keys: int, hours: float, time: str, seed: int) -> pl.DataFrame:
    """Return rows spread evenly over the hours, in order of time."""
    draw_from = np.random.default_rng(seed)
    micros = np.linspace(0, hours * 3.6e9, rows, dtype=np.int64)
    return pl.DataFrame({"key": draw_from.integers(0, keys, rows), time: micros, f"{time}_value": draw_from.random(rows)}).with_columns(
        (pl.lit(BEGIN) + pl.duration(microseconds=time)).alias(time)
    )


def at_once(left: pl.DataFrame, right: pl.DataFrame) -> tuple[int, float]:
    """Return the pairs and seconds of one Polars join and filter over all rows."""
    started = stopwatch_us()
    pairs = left.lazy().join(right.lazy(), on="key").filter((pl.col("seen") - pl.col("clicked")).abs() <= APART)
    return pairs.collect(engine="streaming").height, (stopwatch_us() - started) / 1e6


def in_batches(left: pl.DataFrame, right: pl.DataFrame, batches: int, folder: Path) -> tuple[int, list[float], list[int]]:
    """Return the pairs, and of each batch with data its seconds and the rows in the state behind it."""
    lefts, rights = mb.MemoryStream(left.schema), mb.MemoryStream(right.schema)
    found: list[int] = []
    frame = lefts.frame().with_watermark("seen", "1m").join(rights.frame().with_watermark("clicked", "1m"), on="key", within=APART)
    query = frame.sink_foreach_batch(lambda rows, _: found.append(rows.height), checkpoint=str(folder), no_data_batches=False)
    seconds: list[float] = []
    kept: list[int] = []
    handle = query.start()
    size = -(-left.height // batches)
    for k in range(batches):
        mb.MemoryStream.add_together({lefts: left[k * size : (k + 1) * size], rights: right[k * size : (k + 1) * size]})
        started = stopwatch_us()
        handle.process_all_available()
        seconds.append((stopwatch_us() - started) / 1e6)
        progress = handle.last_progress
        assert progress is not None
        kept.append(int(progress["stateOperators"][0]["numRowsTotal"]))
    handle.stop()
    return sum(found), seconds, kept


def main() -> None:
    """Print the whole runs, and a line per batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--keys", type=int, default=500_000)
    parser.add_argument("--hours", type=float, default=5)
    parser.add_argument("--plot", type=Path, default=None)
    args = parser.parse_args()
    left = side(args.rows, args.keys, args.hours, "seen", 1)
    right = side(args.rows, args.keys, args.hours, "clicked", 2)
    pairs, whole_s = at_once(left, right)
    with tempfile.TemporaryDirectory() as folder:
        found, seconds, kept = in_batches(left, right, args.batches, Path(folder) / "checkpoint")
    assert found == pairs, (found, pairs)
    table = Table("batch", "seconds", "rows in state")
    for k, (took, rows) in enumerate(zip(seconds, kept, strict=True)):
        table.add(str(k), f"{took:.3f}", str(rows))
    print(versions(), table, f"{pairs} pairs; at once {whole_s:.2f} s, in batches {sum(seconds):.2f} s", sep="\n")
    if args.plot is not None:
        title = f"join of two streams, {args.rows} rows a side, {APART} apart"
        draw(args.plot, [Curve("seconds", range(args.batches), seconds)], title=title, x="batch", y="seconds")


if __name__ == "__main__":
    main()
