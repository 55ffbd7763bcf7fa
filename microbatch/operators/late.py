"""Which rows the watermark has passed (Spark: WatermarkSupport.watermarkExpression)."""

from __future__ import annotations

import polars as pl

from microbatch.operators.base import Batch
from microbatch.plan.window import to_micros


def late(time_column: str, schema: pl.Schema, mark_us: int) -> pl.Expr:
    """Return whether a row's time is at or before the mark; a null time is never late.

    For a window the time is its end, so a row behind the watermark whose window is still open is kept.
    """
    dtype = schema[time_column]
    assert isinstance(dtype, pl.Datetime)
    return (to_micros(pl.col(time_column), dtype) <= mark_us).fill_null(value=False)


class LateFilter:
    """Holds an operator's late rows back and counts them; ``time_column`` None: no row is ever late.

    Attributes
    ----------
    rows
        Late rows of the last batch; known once the batch was collected.
    """

    def __init__(self, time_column: str | None, schema: pl.Schema) -> None:
        self._time_column = time_column
        self._schema = schema
        self.rows = 0

    def on_time(self, rows: pl.LazyFrame, batch: Batch) -> pl.LazyFrame:
        """Return the rows that are not late; the count of the others rides along in the pass that reads them."""
        self.rows = 0
        mark = batch.marks.late_us
        if mark is None or self._time_column is None:
            return rows
        is_late = late(self._time_column, self._schema, mark)
        batch.observe(rows.filter(is_late).select(pl.len()), self._count)
        return rows.filter(~is_late)

    def _count(self, figures: pl.DataFrame) -> None:
        self.rows = int(figures.item())
