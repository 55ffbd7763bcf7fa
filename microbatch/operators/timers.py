"""When to look at which keys again: a log of (key, time) whose clean-up touches only what is due.

A timer is a reminder, no decision: it may be stale, for the key may have been prolonged, removed or reminded of twice. Whoever gets a key
from ``due`` looks it up and decides by what the state says of it; a key that is to stay gets a new timer.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from microbatch.protocols import StateTable, TableSpec

DUE = "__due"


def timers_table(keys: Mapping[str, pl.DataType]) -> TableSpec:
    """Return the table of timers for keys of these dtypes, as they are stored."""
    return TableSpec(keys=(*keys, DUE), time_key=DUE, schema=pl.Schema({**keys, DUE: pl.Int64()}), reduce=_each_once)


def _each_once(timers: pl.DataFrame) -> pl.DataFrame:
    return timers.unique(maintain_order=True)


class Timers:
    """The timers of one operator, in ``table``; times are integer microseconds."""

    def __init__(self, table: StateTable) -> None:
        self._table = table

    def set(self, keys: pl.DataFrame, time_us: pl.Series) -> None:
        """Remind of each key (columns as declared) at its time, aligned with the keys; keys without a time are left out.

        A key may have several timers; setting the same one again changes nothing.
        """
        self._table.append(keys.with_columns(time_us.cast(pl.Int64).alias(DUE)).filter(pl.col(DUE).is_not_null()))

    def due(self, mark_us: int) -> pl.DataFrame:
        """Remove the timers at or before the mark, and return their keys, each once: O(what is due)."""
        return self._table.evict(mark_us).drop(DUE).unique(maintain_order=True)

    def next_us(self) -> int | None:
        """Return the time of the earliest timer, None if there are none."""
        return self._table.first_time()

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return self._table.bytes
