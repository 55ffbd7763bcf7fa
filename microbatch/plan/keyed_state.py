"""What a function over per-key state takes and returns, as frames: one call a batch, never one a key (Spark: TransformWithStateExec).

A function that is called key by key is one such function too (``operators.per_key``), so plan, operator and store know only this form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import polars as pl

from microbatch.errors import PlanError

TIMED_OUT, AT, FIRED = "timed_out", "at_us", "fired"
EXPIRES = "__expires_"
"""Before a variable's name: the column of the time it expires, microseconds; beside variables with a time to live only."""


class TimeMode(StrEnum):
    """By which time a timer fires."""

    PROCESSING = "processing_time"  # when it is before the time of a batch
    EVENT = "event_time"  # when it is before the watermark


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBatch:
    """What a batch hands to the function of ``map_state(..., vectorised=True)``; it is called if there is at least one key.

    Attributes
    ----------
    rows
        The batch's rows, in order, with all columns.
    states
        One row per key of ``rows`` in the order they first come, then one per key that is here only because a timer fired: the key
        columns, the state variables (null where there is none, or where it has expired), and ``timed_out``, True for the latter.
    timers
        The timers of these keys: the key columns, ``at_us`` (Int64, microseconds since 1970, UTC), and ``fired``, True if it is due now.
        With ``timeout=`` a key with rows has none: data clears it. None without timers.
    watermark_us
        The watermark, None if no event time was seen yet, or there is no watermark.
    batch_time_us
        The logged time of the batch.
    batch_id
        The number of the batch.
    """

    rows: pl.DataFrame
    states: pl.DataFrame
    timers: pl.DataFrame | None
    watermark_us: int | None
    batch_time_us: int
    batch_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """What the function makes of a ``StateBatch``; every key in it must be one of ``StateBatch.states``.

    Attributes
    ----------
    rows
        The rows to put out: the key columns, then those of ``output_schema``.
    states
        At most one row per key: the key columns and the variables that change (null clears one). Keys and variables that are not here
        stay as they are. None: nothing changes.
    removed
        Keys whose variables are all cleared. None: no key.
    timers
        The key columns and ``at_us``: all timers that these keys have from now on. None: those that have not fired stay (``timers=``), or
        none (``timeout=``).
    """

    rows: pl.DataFrame
    states: pl.DataFrame | None = None
    removed: pl.DataFrame | None = None
    timers: pl.DataFrame | None = None


StateFunction: TypeAlias = Callable[[StateBatch], StateChange]


def check_storable(what: str, columns: Mapping[str, pl.DataType]) -> None:
    """Raise PlanError for a column of a type that the state cannot keep."""
    for name, dtype in columns.items():
        if isinstance(dtype, (pl.Int128, pl.UInt128, pl.Object, pl.Unknown, pl.Null)):
            msg = f"map_state: {what} {name!r} is {dtype}, which the state cannot keep; cast it (to Int64, Decimal, String or Binary)"
            raise PlanError(msg)


def without_state(rows: pl.DataFrame, keys: tuple[str, ...], state: pl.Schema, *, has_timers: bool, now_us: int) -> StateBatch:
    """Return bounded input as the first and last batch there is: every key once, without state or watermark, and no timer set."""
    nothing = [pl.lit(None, dtype).alias(name) for name, dtype in state.items()]
    states = rows.select(keys).unique(maintain_order=True).with_columns(*nothing, pl.lit(value=False).alias(TIMED_OUT))
    timers = states.clear().select(*keys, pl.lit(0, pl.Int64).alias(AT), pl.col(TIMED_OUT).alias(FIRED)) if has_timers else None
    return StateBatch(rows=rows, states=states, timers=timers, watermark_us=None, batch_time_us=now_us, batch_id=0)
