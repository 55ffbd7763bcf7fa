"""Passes the first row of each key on, and no later one (Spark: StreamingDeduplicateExec).

The state holds keys only. If event time is among them, a key is forgotten when the watermark has passed its time, for a row with that key
would be late; other keys are kept for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from microbatch.clock import stopwatch_us
from microbatch.model import Json
from microbatch.operators.base import Batch, OperatorProgress
from microbatch.operators.late import late
from microbatch.plan.nodes import Deduplicate
from microbatch.plan.schema import event_times, schema_of, stored_type
from microbatch.protocols import StateTable, TableSpec

_SEEN = "__seen"


def deduplicate_table(node: Deduplicate) -> TableSpec:
    """Return the table of seen keys."""
    schema = schema_of(node.input)
    stored: dict[str, pl.DataType] = {k: stored_type(schema[k]) for k in node.keys}
    return TableSpec(keys=node.keys, time_key=_time_key(node), schema=pl.Schema({**stored, _SEEN: pl.Int8()}))


def deduplicate_fingerprint(node: Deduplicate) -> dict[str, Json]:
    """Return what must stay for the state to keep its meaning; columns that are no keys may change."""
    schema = schema_of(node.input)
    return {"kind": "deduplicate", "keys": [[k, str(schema[k])] for k in node.keys], "time_key": _time_key(node)}


def _time_key(node: Deduplicate) -> str | None:
    times = {c: is_end for c, is_end in event_times(node.input).items() if c in node.keys}
    return max(times, key=lambda column: times[column], default=None)


class DeduplicateOperator:
    """Keeps the keys it has seen in ``table``."""

    def __init__(self, operator_id: str, node: Deduplicate, table: StateTable) -> None:
        self.operator_id = operator_id
        self._keys = list(node.keys)
        self._table = table
        self._time_key = _time_key(node)
        times = event_times(node.input)
        self._event_time = max(times, key=lambda column: times[column], default=None)
        self._schema = schema_of(node.input)
        self._late_rows = 0
        self._progress = OperatorProgress(
            name="deduplicate", rows_total=0, rows_updated=0, rows_removed=0, rows_late=0, memory_bytes=0, update_ms=0, removal_ms=0
        )

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the rows whose keys were not seen before, in their order."""
        rows = batch.collect(self._without_late(inputs[0], batch)).unique(self._keys, keep="first", maintain_order=True)
        started = stopwatch_us()
        new = self._unseen(rows)
        updated = stopwatch_us()
        mark = batch.marks.eviction_us
        removed = self._table.evict_count(mark) if mark is not None and self._time_key is not None else 0
        self._note(new.height, removed, updated - started, stopwatch_us() - updated)
        return new.lazy()

    def _without_late(self, rows: pl.LazyFrame, batch: Batch) -> pl.LazyFrame:
        self._late_rows = 0
        mark = batch.marks.late_us
        if mark is None or self._event_time is None:
            return rows
        is_late = late(self._event_time, self._schema, mark)
        batch.observe(rows.filter(is_late).select(pl.len()), self._count_late)
        return rows.filter(~is_late)

    def _count_late(self, figures: pl.DataFrame) -> None:
        self._late_rows = int(figures.item())

    def _unseen(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows with new keys, and remember these."""
        stored = [pl.col(k).cast(stored_type(self._schema[k])) for k in self._keys]
        keys = rows.select(*stored, pl.lit(1, pl.Int8).alias(_SEEN))
        prepared = self._table.prepare(keys)
        new = prepared.filter(self._table.lookup(prepared)[_SEEN].is_null())
        self._table.upsert(new, known=0)
        is_new = keys.join(new, on=self._keys, how="left", nulls_equal=True, maintain_order="left")[f"{_SEEN}_right"].is_not_null()
        return rows.filter(is_new)

    def _note(self, updated: int, removed: int, update_us: int, removal_us: int) -> None:
        self._progress = OperatorProgress(
            name=f"deduplicate {self.operator_id}",
            rows_total=self._table.rows,
            rows_updated=updated,
            rows_removed=removed,
            rows_late=self._late_rows,
            memory_bytes=self._table.bytes,
            update_ms=update_us // 1_000,
            removal_ms=removal_us // 1_000,
        )

    def wants_batch(self, before_us: int | None, after_us: int | None) -> bool:
        """Return True if the watermark moved on (Spark: shouldRunAnotherBatch)."""
        return after_us is not None and (before_us is None or after_us > before_us)

    def progress(self) -> OperatorProgress:
        """Return what the last batch did."""
        return self._progress
