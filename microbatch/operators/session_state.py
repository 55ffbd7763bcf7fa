"""The open sessions of each key, and when to look at which key again.

There is a row per open session: the key's first one has number 0, the next one 1, and so on by time. Each says how many the key has, so
that one look-up finds the keys with several, and a second one their other rows. A timer reminds of a key when its first session may be
over; it is set anew only if none is pending by then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from microbatch.operators.intervals import Index, Sessions
from microbatch.operators.session_pieces import SINCE, UNTIL
from microbatch.operators.timers import Timers, timers_table
from microbatch.plan.aggregates import SplitAggregate
from microbatch.plan.nodes import Aggregate
from microbatch.plan.schema import schema_of, stored_type
from microbatch.protocols import StateTable, TableSpec

_NUMBER, _COUNT, _TIMER = "__number", "__count", "__timer"
_LOW, _HIGH = "__low", "__high"
_NEVER = 2**63 - 1


def session_table(node: Aggregate, split: SplitAggregate) -> TableSpec:
    """Return the table of open sessions."""
    schema = schema_of(node.input)
    bounds = {name: schema[name] for name in node.session or ()}
    values = {**bounds, SINCE: pl.Int64(), UNTIL: pl.Int64(), **split.state_schema, _COUNT: pl.Int64(), _TIMER: pl.Int64()}
    columns = pl.Schema({**_stored_keys(node), _NUMBER: pl.Int64(), **values})
    return TableSpec(keys=(*node.plain_keys, _NUMBER), time_key=None, schema=columns, removable=True)


def session_timers_table(node: Aggregate) -> TableSpec:
    """Return the table of timers."""
    return timers_table(_stored_keys(node))


def _stored_keys(node: Aggregate) -> dict[str, pl.DataType]:
    schema = schema_of(node.input)
    return {k: stored_type(schema[k]) for k in node.plain_keys}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Touched:
    """Distinct keys, how many sessions the state holds of each, and for when its timer was set (2**63 - 1: none was)."""

    keys: pl.DataFrame
    count: Index
    timer: Index


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenSessions:
    """The state of sessions by the columns ``keys``; ``timers`` None: none is ever over."""

    keys: list[str]
    table: StateTable
    timers: Timers | None

    def of(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Return all open sessions of these keys (unique)."""
        first = self._look_up(keys.with_columns(pl.lit(0, pl.Int64).alias(_NUMBER)))
        several = first.filter(pl.col(_COUNT) > 1)
        if several.is_empty():
            return first
        return pl.concat([first, self._look_up(self._numbered(several, pl.lit(1), pl.col(_COUNT)))])

    def _numbered(self, keys: pl.DataFrame, low: pl.Expr, high: pl.Expr) -> pl.DataFrame:
        """Return each key with the numbers from ``low`` up to, but not including, ``high``."""
        return keys.select(*self.keys, pl.int_ranges(low, high).alias(_NUMBER)).explode(_NUMBER)

    def _look_up(self, asked: pl.DataFrame) -> pl.DataFrame:
        prepared = self.table.prepare(asked)
        return prepared.select(asked.columns).hstack(self.table.lookup(prepared)).filter(pl.col(_COUNT).is_not_null())

    def touched(self, pieces: pl.DataFrame, sessions: Sessions) -> Touched:
        """Return the keys of pieces, in the order of their sessions; those pieces that ``of`` returned tell what is stored."""
        begins = np.flatnonzero(sessions.new_key)
        count = sessions.highest(pieces[_COUNT].fill_null(0).to_numpy())
        timer = sessions.lowest(pieces[_TIMER].fill_null(_NEVER).to_numpy())
        keys = pieces.select(self.keys)[sessions.first_rows[begins]]
        if begins.size == 0:
            return Touched(keys=keys, count=count, timer=timer)
        return Touched(keys=keys, count=np.maximum.reduceat(count, begins), timer=np.minimum.reduceat(timer, begins))

    def replace(self, touched: Touched, left: pl.DataFrame, key_of: Index, end_us: Index, mark_us: int | None) -> None:
        """Put sessions in the place of all that the touched keys had.

        ``left`` is sorted by key and time, ``key_of`` says which touched key each is of, and ``end_us`` when it ends.
        """
        count = np.bincount(key_of, minlength=touched.count.size)
        number = np.arange(key_of.size) - (np.cumsum(count) - count)[key_of]
        timer = touched.timer.copy()
        if self.timers is not None:
            first = number == 0
            timer[key_of[first]] = self._set(self.timers, left.filter(pl.Series(first)), end_us[first], timer[key_of[first]], mark_us)
        places = {_NUMBER: number, _COUNT: count[key_of], _TIMER: timer[key_of]}
        rows = left.with_columns(pl.Series(name, values, dtype=pl.Int64) for name, values in places.items())
        self.table.upsert(self.table.prepare(rows), known=int(np.minimum(count, touched.count).sum()))
        fewer = touched.keys.with_columns(pl.Series(_LOW, count), pl.Series(_HIGH, touched.count)).filter(pl.col(_LOW) < pl.col(_HIGH))
        if fewer.height:
            gone = self._numbered(fewer, pl.col(_LOW), pl.col(_HIGH))
            self.table.remove(self.table.prepare(gone), known=gone.height)

    def _set(self, timers: Timers, first: pl.DataFrame, end_us: Index, pending: Index, mark_us: int | None) -> Index:
        """Return when each key, here with its first session, will come up; a timer is set where none is pending by then."""
        is_past = pending <= mark_us if mark_us is not None else np.zeros(pending.size, dtype=bool)
        anew = is_past | (pending > end_us)
        timers.set(first.select(self.keys).filter(pl.Series(anew)), pl.Series(end_us[anew]))
        return np.where(anew, end_us, pending)
