"""The hand-written loops the engine is measured against: plain Polars, open windows in a frame, no checkpoint, nothing after a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import polars as pl
from deltalake import DeltaTable, write_deltalake

Engine = Literal["in-memory", "streaming"]
Reduce = Callable[[pl.LazyFrame], pl.LazyFrame]
DELAY, SIZE = timedelta(seconds=10), "10s"
KEYS = ["window_start", "window_end"]


def windowed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return rows with the bounds of their 10 s window."""
    start = pl.col("event_time").dt.truncate(SIZE)
    return rows.with_columns(window_start=start, window_end=start + timedelta(seconds=10))


def batches(folder: Path, files_per_batch: int) -> Iterator[list[Path]]:
    """Yield the files in order, so many at a time."""
    files = sorted(folder.glob("*.parquet"))
    for k in range(0, len(files), files_per_batch):
        yield files[k : k + files_per_batch]


def append_loop(
    folder: Path,
    files_per_batch: int,
    rows_of: Reduce,
    keys: list[str],
    aggs: list[pl.Expr],
    merge: list[pl.Expr],
    table: Path,
    engine: Engine,
) -> None:
    """Reduce each batch, keep the open windows, append the closed ones to a held Delta table."""
    delta: DeltaTable | None = None
    still_open: pl.DataFrame | None = None
    watermark = None
    for files in batches(folder, files_per_batch):
        rows = windowed(rows_of(pl.scan_parquet(files)))
        reduced, latest = pl.collect_all([rows.group_by(*KEYS, *keys).agg(aggs), rows.select(pl.col("event_time").max())], engine=engine)
        merged = reduced if still_open is None else pl.concat([still_open, reduced]).group_by(*KEYS, *keys).agg(merge)
        newest = latest.item() - DELAY
        watermark = newest if watermark is None else max(watermark, newest)
        closed, still_open = merged.filter(pl.col("window_end") <= watermark), merged.filter(pl.col("window_end") > watermark)
        if delta is None:
            write_deltalake(str(table), closed, mode="append")
            delta = DeltaTable(str(table))
        else:
            write_deltalake(delta, closed, mode="append")


def update_loop(
    folder: Path,
    files_per_batch: int,
    keys: list[str],
    aggs: list[pl.Expr],
    merge: list[pl.Expr],
    sink: Callable[[pl.DataFrame], None],
    engine: Engine,
) -> None:
    """Reduce each batch, bring it together with the open windows, hand the changed groups on."""
    state: pl.DataFrame | None = None
    watermark = None
    for files in batches(folder, files_per_batch):
        rows = windowed(pl.scan_parquet(files))
        reduced, latest = pl.collect_all([rows.group_by(*KEYS, *keys).agg(aggs), rows.select(pl.col("event_time").max())], engine=engine)
        if state is None:
            state = changed = reduced
        else:
            state = pl.concat([state, reduced]).group_by(*KEYS, *keys).agg(merge)
            changed = state.join(reduced.select(*KEYS, *keys), on=[*KEYS, *keys], how="semi")
        sink(changed)
        newest = latest.item() - DELAY
        watermark = newest if watermark is None else max(watermark, newest)
        state = state.filter(pl.col("window_end") > watermark)
