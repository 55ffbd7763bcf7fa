"""Windows over event time: tumbling and sliding, as plain Polars expressions (Spark: TimeWindowing)."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from microbatch.durations import Duration, duration_us, positive_us
from microbatch.errors import PlanError

START, END = "window_start", "window_end"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """Intervals [start, end) of ``size_us``, one every ``slide_us``, aligned to ``offset_us`` after 1970, UTC; made by ``window``."""

    time: pl.Expr
    size_us: int
    slide_us: int
    offset_us: int

    @property
    def per_row(self) -> int:
        """How many windows a row can be in."""
        return -(-self.size_us // self.slide_us)


def window(column: str | pl.Expr, size: Duration, slide: Duration | None = None, offset: Duration = "0s") -> Window:
    """Return windows for ``group_by``, ``select`` or ``with_columns``: columns ``window_start`` and ``window_end``.

    A window is [start, end): a row at ``end`` belongs to the next one. The columns have the unit and zone of the time column.
    Rows without a time are in no window and drop out. Windows have a fixed length in absolute time, also across a change of
    daylight saving.

    Parameters
    ----------
    column
        Name of a Datetime column, or an expression such as ``mb.window_time()``.
    size
        Length of a window, more than 0.
    slide
        Distance between two starts; None means ``size`` (tumbling). At most ``size``. A row is then in size/slide windows.
    offset
        Shift of all starts against 1970-01-01 00:00 UTC.

    Raises
    ------
    PlanError
        A length is no duration, or ``slide`` is longer than ``size``.
    """
    size_us = positive_us(size, what="window size")
    slide_us = size_us if slide is None else positive_us(slide, what="window slide")
    if slide_us > size_us:
        msg = f"window slide={slide!r} is longer than size={size!r}: rows between two windows would vanish; make slide at most size"
        raise PlanError(msg)
    time = pl.col(column) if isinstance(column, str) else column
    return Window(time=time, size_us=size_us, slide_us=slide_us, offset_us=duration_us(offset, what="window offset") % slide_us)


def window_time(end: str = END) -> pl.Expr:
    """Return the time of a window's row: one microsecond before its end; keeps the watermark (Spark: window_time)."""
    return pl.col(end) - pl.duration(microseconds=1)


def assign_window(rows: pl.LazyFrame, window: Window, names: tuple[str, str], dtype: pl.Datetime) -> pl.LazyFrame:
    """Return ``rows`` once for each window they are in, with the window's start and end in two more columns."""
    micros = to_micros(window.time, dtype)
    last_start = micros - (micros - window.offset_us) % window.slide_us
    start, end = names
    if window.per_row == 1:
        # Filtered behind the start: a filter that moved into the scan would make it another scan than the one that observes event time.
        placed = rows.with_columns(last_start.alias(start)).filter(pl.col(start).is_not_null())
    else:
        first_start = last_start - (window.per_row - 1) * window.slide_us
        placed = (
            rows.filter(window.time.is_not_null())
            .with_columns(pl.int_ranges(first_start, last_start + 1, window.slide_us).alias(start), micros.alias("__at"))
            .explode(start)
            .filter(pl.col(start) + window.size_us > pl.col("__at"))
            .drop("__at")
        )
    return placed.with_columns(
        from_micros(pl.col(start), dtype).alias(start), from_micros(pl.col(start) + window.size_us, dtype).alias(end)
    )


def to_micros(time: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    """Return microseconds since 1970, UTC, Int64, rounded down."""
    physical = time.to_physical()
    return {"us": physical, "ms": physical * 1_000, "ns": physical // 1_000}[dtype.time_unit]


def from_micros(micros: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    """Return times of ``dtype`` from microseconds since 1970, UTC."""
    physical = {"us": micros, "ms": micros // 1_000, "ns": micros * 1_000}[dtype.time_unit]
    return physical.cast(dtype)


def check_window(window: Window, schema: pl.Schema) -> pl.Datetime:
    """Return the dtype of the window's time; PlanError unless it is a Datetime of a unit that can hold the bounds."""
    dtype = pl.LazyFrame(schema=schema).select(window.time.alias("time")).collect_schema()["time"]
    if not isinstance(dtype, pl.Datetime):
        msg = f"window over {window.time} needs a Datetime column, this one is {dtype}; cast it: .cast(pl.Datetime('us'))"
        raise PlanError(msg)
    if dtype.time_unit == "ms" and (window.size_us % 1_000 or window.slide_us % 1_000 or window.offset_us % 1_000):
        msg = f"window over {window.time}: a bound between two milliseconds does not fit {dtype}; cast the column to pl.Datetime('us')"
        raise PlanError(msg)
    return dtype
