"""An aggregation that forgets groups which were not updated for some time.

A group's row in the state says when it expires. Per batch: groups that have expired by now are removed and, if asked for, put out once
more; then the batch's rows are brought together with what is left. "Now" is the eviction mark by event time, else the logged time of the
batch, so a batch that runs again forgets the same groups. Each group has a timer at or before its expiry: one that comes too early, for the
group was updated since, is set again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from microbatch.clock import stopwatch_us
from microbatch.model import Json, Marks, OutputMode
from microbatch.operators.aggregate import aggregate_fingerprint
from microbatch.operators.base import Batch, OperatorProgress
from microbatch.operators.late import LateFilter
from microbatch.operators.timers import Timers, timers_table
from microbatch.plan.aggregates import SplitAggregate
from microbatch.plan.nodes import Aggregate
from microbatch.plan.partials import OLD
from microbatch.plan.schema import event_time, schema_of, stored_type
from microbatch.plan.ttl import EXPIRED
from microbatch.plan.window import to_micros
from microbatch.protocols import StateTable, TableSpec

_AT, _EXPIRES = "__at", "__expires"
_NEVER = 2**63 - 1


def ttl_table(node: Aggregate, split: SplitAggregate) -> TableSpec:
    """Return the table of groups."""
    columns = pl.Schema({**_stored_keys(node), _EXPIRES: pl.Int64(), **split.state_schema})
    return TableSpec(keys=node.keys, time_key=None, schema=columns, removable=True)


def ttl_timers_table(node: Aggregate) -> TableSpec:
    """Return the table of timers."""
    return timers_table(_stored_keys(node))


def ttl_fingerprint(node: Aggregate, split: SplitAggregate, mode: OutputMode) -> dict[str, Json]:
    """Return what must stay for the state to keep its meaning; the length of the time to live may change."""
    assert node.ttl is not None
    return {**aggregate_fingerprint(node, split, mode), "kind": "aggregate with ttl", "clock": node.ttl.clock}


def _stored_keys(node: Aggregate) -> dict[str, pl.DataType]:
    schema = schema_of(node.input)
    return {k: stored_type(schema[k]) for k in node.keys}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupTables:
    """The state of an aggregation with a time to live."""

    groups: StateTable
    timers: Timers


class TtlAggregateOperator:
    """One row per group that is alive; ``table`` holds its partial aggregates and expiry."""

    def __init__(self, operator_id: str, node: Aggregate, split: SplitAggregate, mode: OutputMode, tables: GroupTables) -> None:
        assert node.ttl is not None
        self.operator_id = operator_id
        self._keys = list(node.keys)
        self._split = split
        self._mode = mode
        self._ttl = node.ttl
        self._table, self._timers = tables.groups, tables.timers
        schema = schema_of(node.input)
        textual = [k for k in self._keys if stored_type(schema[k]) != schema[k]]
        self._as_stored = [pl.col(k).cast(pl.String) for k in textual]
        self._as_declared = [pl.col(k).cast(schema[k]) for k in textual]
        self._time_column = event_time(node.input) if node.ttl.clock == "event" else None
        self._schema = schema
        self._late = LateFilter(self._time_column, schema)
        self._progress = OperatorProgress(name="aggregate")

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the groups the output mode wants from this batch, those that expired first."""
        # A row that would have expired by itself when the batch before ended would bring a forgotten group back.
        on_time = self._late.on_time(inputs[0].with_columns(self._as_stored), batch.behind(self._ttl.us))
        reduced = batch.collect(self._split.reduce(on_time, self._keys, self._time(batch).alias(_AT)))
        started = stopwatch_us()
        now = self._now(batch.marks, batch.time_us)
        expired = self._forget(now)
        swept = stopwatch_us()
        groups = self._upsert(self._split.checked(reduced), now)
        self._note(groups.height, expired.height, stopwatch_us() - swept, swept - started)
        return self._result(self._table.scan() if self._mode is OutputMode.COMPLETE else groups, expired).lazy()

    def _result(self, groups: pl.DataFrame, expired: pl.DataFrame) -> pl.DataFrame:
        result = self._split.finish(groups, self._keys)
        if self._ttl.emits:
            # Expired ones first: a group that begins anew in this batch is there in the end.
            last = self._split.finish(expired, self._keys).with_columns(pl.lit(value=True).alias(EXPIRED))
            result = pl.concat([last, result.with_columns(pl.lit(value=False).alias(EXPIRED))])
        return result.with_columns(self._as_declared) if self._as_declared else result

    def _time(self, batch: Batch) -> pl.Expr:
        """Return when a group was updated by its rows, microseconds; null if none of them has a time."""
        if self._time_column is None:
            return pl.lit(batch.time_us)
        dtype = self._schema[self._time_column]
        assert isinstance(dtype, pl.Datetime)
        return to_micros(pl.col(self._time_column), dtype).max()

    def _now(self, marks: Marks, time_us: int) -> int | None:
        return marks.eviction_us if self._time_column is not None else time_us

    def _forget(self, now: int | None) -> pl.DataFrame:
        """Remove the groups that have expired, and return them."""
        mark = now if now is not None else -_NEVER
        due = self._table.prepare(self._timers.due(mark))
        groups = due.hstack(self._table.lookup(due))
        expired, alive = groups.filter(pl.col(_EXPIRES) <= mark), groups.filter(pl.col(_EXPIRES) > mark)
        self._table.remove(expired, known=expired.height)
        self._timers.set(alive.select(self._keys), alive[_EXPIRES])
        return expired

    def _upsert(self, reduced: pl.DataFrame, now: int | None) -> pl.DataFrame:
        """Return the groups of the batch, brought together with what is alive of them in the state."""
        rows = reduced.with_columns((pl.col(_AT) + self._ttl.us).fill_null(_NEVER).alias(_EXPIRES)).drop(_AT)
        prepared = self._table.prepare(rows)
        older = self._table.lookup(prepared)
        before = older[_EXPIRES]
        if now is not None:
            older = older.select(pl.when(before > now).then(pl.all()))
        older.columns = [f"{name}{OLD}" for name in older.columns]
        pairs = prepared.hstack(older).with_columns(_later(pl.col(_EXPIRES), pl.col(_EXPIRES + OLD))).drop(_EXPIRES + OLD)
        merged = self._split.checked(self._split.combine(pairs))
        self._table.upsert(merged)
        begins = merged.filter((before.is_null() | (before == _NEVER)) & (merged[_EXPIRES] < _NEVER))
        self._timers.set(begins.select(self._keys), begins[_EXPIRES])
        return merged

    def _note(self, updated: int, removed: int, update_us: int, removal_us: int) -> None:
        self._progress = OperatorProgress(
            name=f"aggregate {self.operator_id}",
            rows_total=self._table.rows,
            rows_updated=updated,
            rows_removed=removed,
            rows_late=self._late.rows,
            memory_bytes=self._table.bytes + self._timers.bytes,
            update_ms=update_us // 1_000,
            removal_ms=removal_us // 1_000,
        )

    def wants_batch(self, marks: Marks, time_us: int) -> bool:
        """Return True if a timer is due: such a batch takes it away, so that the next one is not wanted for it."""
        now, due = self._now(marks, time_us), self._timers.next_us()
        return now is not None and due is not None and due <= now

    def progress(self) -> OperatorProgress:
        """Return what the last batch did."""
        return self._progress


def _later(one: pl.Expr, other: pl.Expr) -> pl.Expr:
    """Return the later of two expiries; one that never comes gives way to one that does."""
    known = [pl.when(e < _NEVER).then(e) for e in (one, other)]
    return pl.max_horizontal(known).fill_null(_NEVER)
