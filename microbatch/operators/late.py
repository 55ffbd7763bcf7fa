"""Which rows the watermark has passed (Spark: WatermarkSupport.watermarkExpression)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import polars as pl

from microbatch.operators.base import Batch, LateRows
from microbatch.plan.window import to_micros


def late(time_column: str, schema: pl.Schema, mark_us: int) -> pl.Expr:
    """Return whether a row's time is at or before the mark; a null time is never late.

    For a window the time is its end, so a row behind the watermark whose window is still open is kept.
    """
    dtype = schema[time_column]
    assert isinstance(dtype, pl.Datetime)
    return (to_micros(pl.col(time_column), dtype) <= mark_us).fill_null(value=False)


class LateFilter:
    """Holds an operator's late rows back, counts them, and keeps them if the query does; ``time_column`` None: no row is ever late.

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
        """Return the rows that are not late; the others, or their count, ride along in the pass that reads them."""
        self.rows = 0
        mark = batch.marks.late_us
        if mark is None or self._time_column is None:
            return rows
        is_late = late(self._time_column, self._schema, mark)
        refused = rows.filter(is_late)
        if batch.late is None:
            batch.observe(refused.select(pl.len()), self._count)
        else:
            batch.observe(refused, partial(self._keep, batch.late, batch.operator_id, mark))
        return rows.filter(~is_late)

    def _keep(self, kept: list[LateRows], operator_id: str, mark_us: int, rows: pl.DataFrame) -> None:
        self.rows = rows.height
        if self.rows and self._time_column is not None:
            kept.append(LateRows(operator_id=operator_id, time_column=self._time_column, mark_us=mark_us, rows=rows))

    def _count(self, figures: pl.DataFrame) -> None:
        self.rows = int(figures.item())


def late_table(kept: Sequence[LateRows], batch_id: int, schema: pl.Schema) -> pl.DataFrame:
    """Return the late rows of a batch as rows of one table with this schema (``plan.late.late_schema``), in the order of the operators."""
    return pl.concat([schema.to_frame(), *(_as_table(late_rows, batch_id, schema) for late_rows in kept)])


def _as_table(late_rows: LateRows, batch_id: int, schema: pl.Schema) -> pl.DataFrame:
    rows, column = late_rows.rows, late_rows.time_column
    dtype = rows.schema[column]
    row = schema["row"]
    assert isinstance(dtype, pl.Datetime)
    assert isinstance(row, pl.Struct)
    fields = [pl.col(f.name) if f.name in rows.columns else pl.lit(None).alias(f.name) for f in row.fields]
    return rows.select(
        operator=pl.lit(late_rows.operator_id),
        batch_id=pl.lit(batch_id, pl.Int64),
        reason=pl.lit(f"{column} <= mark"),
        event_time=to_micros(pl.col(column), dtype).cast(pl.Datetime("us")),
        mark=pl.lit(late_rows.mark_us, pl.Int64).cast(pl.Datetime("us")),
        row=pl.struct(fields),
    ).cast(schema)
