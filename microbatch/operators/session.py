"""Merges the rows of a key that come close in time (Spark: SessionWindowStateStoreRestoreExec, MergingSortWithSessionWindowStateIterator).

Per batch: drop late rows, each judged by its own interval; make sessions of the batch's rows; fetch those of the touched keys and of those
that are due; merge what overlaps or touches; put out what is over; write the rest in the place of what was there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from microbatch.clock import stopwatch_us
from microbatch.model import Json, Marks, OutputMode
from microbatch.operators.base import Batch, OperatorProgress
from microbatch.operators.late import LateFilter
from microbatch.operators.session_pieces import Pieces
from microbatch.operators.session_state import OpenSessions
from microbatch.plan.aggregates import SplitAggregate
from microbatch.plan.nodes import Aggregate
from microbatch.plan.schema import schema_of, stored_type
from microbatch.plan.window import to_micros


def session_fingerprint(node: Aggregate, split: SplitAggregate, mode: OutputMode) -> dict[str, Json]:
    """Return what must stay for the state to keep its meaning; the gap may change."""
    schema = schema_of(node.input)
    return {
        "kind": "session",
        "mode": mode.value,
        "keys": [[k, str(schema[k])] for k in node.keys],
        "state": [[name, str(dtype)] for name, dtype in split.state_schema.items()],
    }


class SessionOperator:
    """One row per session; ``state`` holds those that are open."""

    def __init__(self, operator_id: str, node: Aggregate, split: SplitAggregate, mode: OutputMode, state: OpenSessions) -> None:
        assert node.session is not None
        self.operator_id = operator_id
        self._keys = list(node.keys)
        self._split = split
        self._mode = mode
        self._state = state
        self._pieces = Pieces(split=split, keys=node.plain_keys, bounds=node.session)
        schema = schema_of(node.input)
        textual = [k for k in node.plain_keys if stored_type(schema[k]) != schema[k]]
        self._as_stored = [pl.col(k).cast(pl.String) for k in textual]
        self._as_declared = [pl.col(k).cast(schema[k]) for k in textual]
        dtype = schema[node.session[1]]
        assert isinstance(dtype, pl.Datetime)
        self._end_us = to_micros(pl.col(node.session[1]), dtype)
        self._late = LateFilter(node.session[1], schema)
        self._progress = OperatorProgress(name="session")

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the sessions the output mode wants from this batch, with the columns the user named."""
        rows = batch.collect(self._late.on_time(inputs[0], batch).with_columns(self._as_stored))
        started = stopwatch_us()
        new = self._pieces.of_rows(rows, batch.batch_id)
        over = self._merge_into_state(new, batch.marks.eviction_us)
        result = self._split.finish(self._state.table.scan() if self._mode is OutputMode.COMPLETE else over, self._keys)
        self._note(new.height, over.height, stopwatch_us() - started)
        return (result.with_columns(self._as_declared) if self._as_declared else result).lazy()

    def _merge_into_state(self, new: pl.DataFrame, mark: int | None) -> pl.DataFrame:
        """Return the sessions that are over, and write those that are left of the keys that are new or due."""
        asked = [new.select(self._state.keys)]
        if self._state.timers is None:
            mark = None
        elif mark is not None:
            asked.append(self._state.timers.due(mark))
        pieces = pl.concat([self._state.of(pl.concat(asked).unique()), new], how="diagonal")
        sessions = self._pieces.sessions(pieces)
        touched = self._state.touched(pieces, sessions)
        merged = self._pieces.merged(pieces.select(self._pieces.columns), sessions)
        end_us = merged.select(self._end_us).to_series()
        is_left = end_us > mark if mark is not None else end_us.is_not_null()
        key_of = (np.cumsum(sessions.new_key) - 1)[is_left.to_numpy()]
        self._state.replace(touched, merged.filter(is_left), key_of, end_us.filter(is_left).to_numpy(), mark)
        return merged.filter(~is_left)

    def _note(self, updated: int, removed: int, us: int) -> None:
        timers = self._state.timers
        self._progress = OperatorProgress(
            name=f"session {self.operator_id}",
            rows_total=self._state.table.rows,
            rows_updated=updated,
            rows_removed=removed,
            rows_late=self._late.rows,
            memory_bytes=self._state.table.bytes + (timers.bytes if timers else 0),
            update_ms=us // 1_000,
        )

    def wants_batch(self, marks: Marks, time_us: int) -> bool:  # noqa: ARG002
        """Return True if the watermark moved on, in append mode (Spark: shouldRunAnotherBatch)."""
        return self._mode is OutputMode.APPEND and marks.moved

    def progress(self) -> OperatorProgress:
        """Return what the last batch did."""
        return self._progress
