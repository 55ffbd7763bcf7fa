"""Session windows: rows of a key that come close to each other in time (Spark: SessionWindowing)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from microbatch.durations import Duration, positive_us
from microbatch.errors import PlanError
from microbatch.plan.rowwise import check_row_wise
from microbatch.plan.window import from_micros, to_micros

_ROW, _OPENS, _NUMBER = "__row", "__opens", "__number"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SessionWindow:
    """Sessions over ``time``, open for ``gap`` (a Duration) after a row; made by ``session_window``. ``gap_us`` None: it differs by row."""

    time: pl.Expr
    gap: pl.Expr
    gap_us: int | None


def session_window(column: str | pl.Expr, gap: Duration | pl.Expr) -> SessionWindow:
    """Return sessions for ``group_by``, beside at least one other key: columns ``window_start`` and ``window_end``.

    A row opens [time, time + gap); rows of a key whose intervals overlap or touch are one session, from the first one's time to the last
    end. The columns have the unit and zone of the time column. Rows without a time or gap, or with a gap of zero or less, are in no session
    and drop out. In append mode a session is put out when the watermark has reached its end; a row is late if its own interval has ended by
    then, even where it would touch an open session.

    Parameters
    ----------
    column
        Name of a Datetime column, or an expression such as ``mb.window_time()``.
    gap
        A length such as ``"5m"``, or a row-wise expression that gives a Duration for each row, such as ``pl.col("timeout")``. It counts in
        whole units of the time column.

    Raises
    ------
    PlanError
        The gap is no duration, is zero or less, or looks at other rows.
    """
    time = pl.col(column) if isinstance(column, str) else column
    if isinstance(gap, pl.Expr):
        check_row_wise([gap], verb="session_window")
        return SessionWindow(time=time, gap=gap, gap_us=None)
    gap_us = positive_us(gap, what="session gap")
    return SessionWindow(time=time, gap=pl.duration(microseconds=gap_us), gap_us=gap_us)


def check_session(session: SessionWindow, schema: pl.Schema) -> pl.Datetime:
    """Return the dtype of the session's time; PlanError unless it is a Datetime, and the gap a Duration it can hold."""
    found = pl.LazyFrame(schema=schema).select(time=session.time, gap=session.gap).collect_schema()
    time, gap = found["time"], found["gap"]
    if not isinstance(time, pl.Datetime):
        msg = f"session_window over {session.time} needs a Datetime column, this one is {time}; cast it: .cast(pl.Datetime('us'))"
        raise PlanError(msg)
    if not isinstance(gap, pl.Duration):
        msg = f"session_window: gap {session.gap} is {gap}, not a Duration; make one of it: pl.duration(seconds=...)"
        raise PlanError(msg)
    if time.time_unit == "ms" and session.gap_us is not None and session.gap_us % 1_000:
        msg = f"session_window over {session.time}: a gap of {session.gap_us} us does not fit {time}; cast the column to pl.Datetime('us')"
        raise PlanError(msg)
    return time


def assign_session(rows: pl.LazyFrame, session: SessionWindow, names: tuple[str, str], dtype: pl.Datetime) -> pl.LazyFrame:
    """Return the rows that are in a session, each with the bounds of the interval it opens by itself in two more columns."""
    start, end = names
    gap_us = session.gap.dt.total_microseconds()
    closes = from_micros(to_micros(session.time, dtype) + gap_us, dtype)
    placed = rows.with_columns(session.time.cast(dtype).alias(start), closes.alias(end))
    return placed.filter(pl.col(end) > pl.col(start))


def merge_sessions(rows: pl.LazyFrame, names: tuple[str, str], keys: Sequence[str]) -> pl.LazyFrame:
    """Return the rows of bounded input, in their order, with the bounds of their whole session in the place of their own interval's."""
    start, end = names
    order = [start, _ROW]
    reached = pl.col(end).cum_max().shift(1).over(keys, order_by=order)
    return (
        rows.with_row_index(_ROW)
        .with_columns((pl.col(start) > reached).fill_null(value=True).alias(_OPENS))
        .with_columns(pl.col(_OPENS).cum_sum().over(keys, order_by=order).alias(_NUMBER))
        .with_columns(pl.col(start).min().over([*keys, _NUMBER]), pl.col(end).max().over([*keys, _NUMBER]))
        .drop(_ROW, _OPENS, _NUMBER)
    )
