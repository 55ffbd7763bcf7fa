"""Keeps one row of partial aggregates per group; what it puts out, and when it forgets a group, is the output mode's business.

Per batch (Spark: StateStoreRestoreExec, StateStoreSaveExec): drop late rows, reduce the batch to one row a group, bring that together with
the state, put out, close what the watermark has passed. Append mode never looks a group up: it appends the reduced rows to a log
and merges them when the group closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import polars as pl

from microbatch.clock import stopwatch_us
from microbatch.model import Json, Marks, OutputMode
from microbatch.operators.base import Batch, OperatorProgress, engine_for
from microbatch.operators.late import LateFilter, late
from microbatch.operators.panes import panes_of
from microbatch.plan.aggregates import SplitAggregate
from microbatch.plan.nodes import Aggregate
from microbatch.plan.partials import OLD
from microbatch.plan.schema import event_time_key, schema_of, stored_type
from microbatch.protocols import StateTable, TableSpec

_EVERYTHING = "__all"  # the one key of an aggregation without keys
_ROWS = "__rows"


def aggregate_table(node: Aggregate, split: SplitAggregate, mode: OutputMode) -> TableSpec:
    """Return the table an aggregation keeps: a log in append mode, else one row per group."""
    keys = node.keys or (_EVERYTHING,)
    reduce = partial(merged, split, keys) if mode is OutputMode.APPEND else None
    return TableSpec(keys=keys, time_key=event_time_key(node), schema=stored_schema(node, split), reduce=reduce)


def stored_schema(node: Aggregate, split: SplitAggregate) -> pl.Schema:
    """Return the columns of the table: keys as they are stored, then partial aggregates."""
    schema = schema_of(node.input)
    stored: dict[str, pl.DataType] = {k: stored_type(schema[k]) for k in node.keys} or {_EVERYTHING: pl.Int64()}
    return pl.Schema({**stored, **split.state_schema})


def aggregate_fingerprint(node: Aggregate, split: SplitAggregate, mode: OutputMode) -> dict[str, Json]:
    """Return what must stay for the state to keep its meaning."""
    schema = schema_of(node.input)
    return {
        "kind": "aggregate",
        "mode": mode.value,
        "keys": [[k, str(schema[k])] for k in node.keys],
        "time_key": event_time_key(node),
        "state": [[name, str(dtype)] for name, dtype in split.state_schema.items()],
    }


def merged(split: SplitAggregate, keys: Sequence[str], partials: pl.DataFrame) -> pl.DataFrame:
    """Return one row of partial aggregates per group, from several, older ones first."""
    if partials.is_empty():
        return partials
    engine = engine_for(partials.height)
    return split.checked(split.merge(partials.lazy(), list(keys)).collect(engine=engine)).select(partials.columns)


class AggregateOperator:
    """One row per group; ``table`` holds its partial aggregates."""

    def __init__(self, operator_id: str, node: Aggregate, split: SplitAggregate, mode: OutputMode, table: StateTable) -> None:
        self.operator_id = operator_id
        self._keys = list(node.keys)
        self._split = split
        self._mode = mode
        self._table = table
        self._time_key = event_time_key(node)
        self._panes = panes_of(node, split)
        schema = schema_of(node.input)
        self._stored = stored_schema(node, split)
        textual = [k for k in self._keys if stored_type(schema[k]) != schema[k]]
        self._as_stored = [pl.col(k).cast(pl.String) for k in textual]
        self._as_declared = [pl.col(k).cast(schema[k]) for k in textual]
        self._progress = OperatorProgress(name="aggregate")
        self._late = LateFilter(self._time_key if mode is not OutputMode.COMPLETE else None, schema)
        self._late_rows = 0

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the groups the output mode wants from this batch, with the columns the user named."""
        reduced = self._split.checked(self._reduce(inputs[0], batch))
        if not self._keys:
            reduced = reduced.with_columns(pl.lit(0, pl.Int64).alias(_EVERYTHING))
        if reduced.columns != self._stored.names():
            reduced = reduced.select(list(self._stored))
        started = stopwatch_us()
        groups, removed, update_us = self._merge_into_state(reduced, batch)
        self._note(reduced.height, removed, update_us, stopwatch_us() - started - update_us)
        result = self._split.finish(groups, self._keys)
        return (result.with_columns(self._as_declared) if self._as_declared else result).lazy()

    def _reduce(self, rows: pl.LazyFrame, batch: Batch) -> pl.DataFrame:
        """Return the batch as one row of partial aggregates a group, without late groups.

        The time is a key, so a row is late just when its group is: groups are judged, of which there are fewer, and their rows counted;
        unless the rows are to be kept.
        """
        self._late_rows = 0
        mark = batch.marks.late_us
        if batch.late is not None:
            on_time = self._late.on_time(self._panes.spread(rows) if self._panes else rows, batch)
            reduced = batch.collect(self._split.reduce(on_time.with_columns(self._as_stored), self._keys))
            self._late_rows = self._late.rows
            return reduced
        rows = rows.with_columns(self._as_stored) if self._as_stored else rows
        if mark is None or self._time_key is None or self._mode is OutputMode.COMPLETE:
            reduced = batch.collect(self._split.reduce(rows, self._keys))
            return self._panes.windows(self._split.checked(reduced)) if self._panes else reduced
        reduced = batch.collect(self._split.reduce(rows, self._keys, pl.len().alias(_ROWS)))
        if self._panes:
            reduced = self._panes.windows(self._split.checked(reduced), pl.col(_ROWS).sum())
        is_late = late(self._time_key, self._stored, mark)
        self._late_rows = int(reduced.select(pl.col(_ROWS).filter(is_late).sum()).item())
        return (reduced.filter(~is_late) if self._late_rows else reduced).drop(_ROWS)

    def _merge_into_state(self, reduced: pl.DataFrame, batch: Batch) -> tuple[pl.DataFrame, int, int]:
        """Return the groups to put out, how many left the state, and the microseconds spent before any left."""
        started = stopwatch_us()
        if self._mode is OutputMode.APPEND:
            self._table.append(reduced)
            updated_us = stopwatch_us() - started
            closed = self._close(batch)
            return closed, closed.height, updated_us
        merged = self._upsert(reduced)
        updated_us = stopwatch_us() - started
        if self._mode is OutputMode.COMPLETE:
            return self._table.scan(), 0, updated_us
        return merged, self._close_silently(batch), updated_us

    def _upsert(self, reduced: pl.DataFrame) -> pl.DataFrame:
        prepared = self._table.prepare(reduced)
        older = self._table.lookup(prepared)
        older.columns = [f"{name}{OLD}" for name in older.columns]
        merged = self._split.checked(self._split.combine(prepared.hstack(older)))
        self._table.upsert(merged)
        return merged

    def _close(self, batch: Batch) -> pl.DataFrame:
        """Return the groups the watermark has passed, merged, and forget them."""
        mark = batch.marks.eviction_us
        if mark is None:
            return pl.DataFrame(schema=self._stored)
        return merged(self._split, self._keys, self._table.evict(mark))

    def _close_silently(self, batch: Batch) -> int:
        mark = batch.marks.eviction_us
        return self._table.evict_count(mark) if mark is not None and self._time_key is not None else 0

    def _note(self, updated: int, removed: int, update_us: int, removal_us: int) -> None:
        self._progress = OperatorProgress(
            name=f"aggregate {self.operator_id}",
            rows_total=self._table.rows,
            rows_updated=updated,
            rows_removed=removed,
            rows_late=self._late_rows,
            memory_bytes=self._table.bytes,
            update_ms=update_us // 1_000,
            removal_ms=removal_us // 1_000,
        )

    def wants_batch(self, marks: Marks, time_us: int) -> bool:  # noqa: ARG002
        """Return True if the watermark moved on, in append and update mode (Spark: shouldRunAnotherBatch)."""
        return self._mode is not OutputMode.COMPLETE and marks.moved

    def progress(self) -> OperatorProgress:
        """Return what the last batch did."""
        return self._progress
