"""Which rows the watermark has passed (Spark: WatermarkSupport.watermarkExpression)."""

from __future__ import annotations

import polars as pl

from microbatch.plan.window import to_micros


def late(time_column: str, schema: pl.Schema, mark_us: int) -> pl.Expr:
    """Return whether a row's time is at or before the mark; a null time is never late.

    For a window the time is its end, so a row behind the watermark whose window is still open is kept.
    """
    dtype = schema[time_column]
    assert isinstance(dtype, pl.Datetime)
    return (to_micros(pl.col(time_column), dtype) <= mark_us).fill_null(value=False)
