"""Passes the first row of each key on, and no later one (Spark: StreamingDeduplicateExec).

The state holds keys only. If event time is among them, a key is forgotten when the watermark has passed its time, for a row with that key
would be late; other keys are kept for ever. Within the watermark (Spark: StreamingDeduplicateWithinWatermarkExec) a key expires: at the
time of its first row and the watermark's delay, or the time to live the user gave; a repeat does not prolong it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import polars as pl

from microbatch.clock import stopwatch_us
from microbatch.model import Json, Marks
from microbatch.operators.base import Batch, OperatorProgress
from microbatch.operators.late import LateFilter
from microbatch.plan.nodes import Deduplicate
from microbatch.plan.schema import event_time, event_times, schema_of, stored_type, watermark_delay_us
from microbatch.plan.window import to_micros
from microbatch.protocols import StateTable, TableSpec

_SEEN = "__seen"
NEVER_US = 2**63 - 1
_EXPIRES, _BUCKET = "__expires", "__bucket"
_BUCKETS = 8  # a key may stand in any live bucket, so few of them; keys then outstay their time in the state by an eighth of the delay


def deduplicate_table(node: Deduplicate) -> TableSpec:
    """Return the table of seen keys."""
    schema = schema_of(node.input)
    stored: dict[str, pl.DataType] = {k: stored_type(schema[k]) for k in node.keys}
    if node.within_watermark or node.ttl:
        columns = pl.Schema({**stored, _BUCKET: pl.Int64(), _EXPIRES: pl.Int64()})
        return TableSpec(keys=(*node.keys, _BUCKET), time_key=_BUCKET, schema=columns)
    return TableSpec(keys=node.keys, time_key=_time_key(node), schema=pl.Schema({**stored, _SEEN: pl.Int8()}))


def deduplicate_fingerprint(node: Deduplicate) -> dict[str, Json]:
    """Return what must stay for the state to keep its meaning; columns that are no keys may change."""
    schema = schema_of(node.input)
    kind = "deduplicate within watermark" if node.within_watermark else "deduplicate"
    if node.ttl:
        kind = f"deduplicate with ttl, {node.ttl.clock} time"
    return {"kind": kind, "keys": [[k, str(schema[k])] for k in node.keys], "time_key": _time_key(node)}


def _time_key(node: Deduplicate) -> str | None:
    times = {c: is_end for c, is_end in event_times(node.input).items() if c in node.keys}
    return max(times, key=lambda column: times[column], default=None)


class Memory(Protocol):
    """Which keys were seen."""

    def unseen(self, rows: pl.DataFrame, late_us: int | None) -> pl.DataFrame:
        """Return the rows (unique keys) whose keys are new, in their order, and remember these."""
        ...


class SeenEver:
    """Remembers keys until the watermark passes a time among them, or for ever."""

    def __init__(self, node: Deduplicate, table: StateTable) -> None:
        self._stored = _stored_keys(node)
        self._keys = list(node.keys)
        self._table = table

    def unseen(self, rows: pl.DataFrame, late_us: int | None) -> pl.DataFrame:  # noqa: ARG002
        """Return the rows with new keys."""
        keys = rows.select(*self._stored, pl.lit(1, pl.Int8).alias(_SEEN))
        prepared = self._table.prepare(keys)
        seen = self._table.lookup(prepared)[_SEEN].is_not_null()
        self._table.upsert(prepared.filter(~seen), known=0)
        return rows.filter(_are_not_in(keys.select(self._keys), prepared.filter(seen).select(self._keys)))


class SeenWithin:
    """Remembers each key until it expires, in buckets of expiry."""

    def __init__(self, node: Deduplicate, table: StateTable, time_column: str | None) -> None:
        self._stored = _stored_keys(node)
        self._keys = list(node.keys)
        self._table = table
        self._length_us = node.ttl.us if node.ttl else watermark_delay_us(node)
        self._time: pl.Expr | None = None
        if time_column is not None:
            dtype = schema_of(node.input)[time_column]
            assert isinstance(dtype, pl.Datetime)
            self._time = to_micros(pl.col(time_column), dtype)
        self._width = max(self._length_us // _BUCKETS, 1)

    def unseen(self, rows: pl.DataFrame, late_us: int | None) -> pl.DataFrame:
        """Return the rows with keys that are new, or had expired when the batch before ended; by processing time, by now."""
        time = self._time if self._time is not None else pl.lit(late_us, pl.Int64)
        expires = (time + self._length_us).fill_null(NEVER_US).alias(_EXPIRES)
        # Rounded up: a bucket goes when all in it has expired.
        bucket = pl.when(pl.col(_EXPIRES) < NEVER_US).then(-(-pl.col(_EXPIRES) // self._width) * self._width).otherwise(NEVER_US)
        keys = rows.select(*self._stored, expires).with_columns(bucket.alias(_BUCKET))
        # Of a key's times the latest is the one that counts: it was put there after the others had expired.
        seen = self._table.lookup_latest(keys.select(self._keys))[_EXPIRES]
        is_new = seen.is_null() if late_us is None else (seen <= late_us).fill_null(value=True)
        self._table.upsert(self._table.prepare(keys.filter(is_new)), known=0)
        return rows.filter(is_new)


def _stored_keys(node: Deduplicate) -> list[pl.Expr]:
    schema = schema_of(node.input)
    return [pl.col(k).cast(stored_type(schema[k])) for k in node.keys]


def _are_not_in(keys: pl.DataFrame, known: pl.DataFrame) -> pl.Series:
    """Return which keys are none of the known ones: both are of one batch, so this is no join against the state."""
    joined = keys.join(known.with_columns(there=True), on=keys.columns, how="left", nulls_equal=True, maintain_order="left")
    return joined["there"].is_null()


class DeduplicateOperator:
    """Keeps the keys it has seen in ``table``."""

    def __init__(self, operator_id: str, node: Deduplicate, table: StateTable) -> None:
        self.operator_id = operator_id
        self._keys = list(node.keys)
        self._table = table
        self._event_time = event_time(node.input)
        self._by_batch_time = node.ttl is not None and node.ttl.clock == "processing"
        expires = node.within_watermark or node.ttl is not None
        self._forgets = expires or _time_key(node) is not None
        expiry_column = None if self._by_batch_time else self._event_time
        self._memory: Memory = SeenWithin(node, table, expiry_column) if expires else SeenEver(node, table)
        self._late = LateFilter(self._event_time, schema_of(node.input))
        self._progress = OperatorProgress(name="deduplicate")

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the rows whose keys were not seen before, in their order."""
        rows = batch.collect(self._late.on_time(inputs[0], batch)).unique(self._keys, keep="first", maintain_order=True)
        started = stopwatch_us()
        new = self._memory.unseen(rows, batch.time_us if self._by_batch_time else batch.marks.late_us)
        updated = stopwatch_us()
        mark = batch.time_us if self._by_batch_time else batch.marks.eviction_us
        removed = self._table.evict_count(mark) if mark is not None and self._forgets else 0
        self._note(new.height, removed, updated - started, stopwatch_us() - updated)
        return new.lazy()

    def _note(self, updated: int, removed: int, update_us: int, removal_us: int) -> None:
        self._progress = OperatorProgress(
            name=f"deduplicate {self.operator_id}",
            rows_total=self._table.rows,
            rows_updated=updated,
            rows_removed=removed,
            rows_late=self._late.rows,
            memory_bytes=self._table.bytes,
            update_ms=update_us // 1_000,
            removal_ms=removal_us // 1_000,
        )

    def wants_batch(self, marks: Marks, time_us: int) -> bool:  # noqa: ARG002
        """Return True if the watermark moved on (Spark: shouldRunAnotherBatch)."""
        return marks.moved

    def progress(self) -> OperatorProgress:
        """Return what the last batch did."""
        return self._progress
