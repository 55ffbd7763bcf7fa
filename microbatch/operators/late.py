"""Drops and counts rows the watermark has passed (Spark: WatermarkSupport.watermarkExpression)."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from microbatch.operators.base import Batch
from microbatch.plan.window import to_micros


def drop_late(rows: pl.LazyFrame, time_column: str, batch: Batch, count: Callable[[int], None]) -> pl.LazyFrame:
    """Return the rows whose time is after the late mark; the rest is counted. A null time is never late.

    For a window the time is its end, so a row behind the watermark whose window is still open is kept.
    """
    mark = batch.marks.late_us
    if mark is None:
        return rows
    dtype = rows.collect_schema()[time_column]
    assert isinstance(dtype, pl.Datetime)
    is_late = (to_micros(pl.col(time_column), dtype) <= mark).fill_null(value=False)
    batch.observe(rows.filter(is_late).select(pl.len()), lambda figures: count(int(figures.item())))
    return rows.filter(~is_late)
