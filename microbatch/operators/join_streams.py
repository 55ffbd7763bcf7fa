"""Joins two streams (Spark: StreamingSymmetricHashJoinExec). Both sides keep their rows as long as they may still meet others.

Per batch: drop late rows; pair the arrivals of both sides with each other and with the rows kept from before; keep the arrivals; forget
rows the watermark says are dead, and put out those of them that met none, where the kind of join asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from microbatch.clock import stopwatch_us
from microbatch.model import Json, Marks
from microbatch.operators.base import Batch, OperatorProgress
from microbatch.operators.join_side import SideState
from microbatch.plan.nodes import JoinStreams
from microbatch.plan.schema import bounds_of_join, columns_of_join, event_times
from microbatch.protocols import StateTable, TableSpec


def join_fingerprint(node: JoinStreams) -> dict[str, Json]:
    """Return what must stay for the state to keep its meaning."""
    bounds, columns = bounds_of_join(node), columns_of_join(node)
    sides: dict[str, Json] = {
        side: [[name, str(dtype)] for name, dtype in columns.sides[side].columns.items()] for side in ("left", "right")
    }
    return {
        "kind": "join of two streams",
        "how": node.how,
        "keys": [[str(a), str(b), str(dtype)] for (a, b), dtype in zip(node.keys, columns.left.key_types, strict=True)],
        "where": None if node.where is None else str(node.where),
        "nulls_equal": node.nulls_equal,
        "event_times": [list[Json](sorted(event_times(below))) for below in (node.left, node.right)],
        "bounds_us": [bounds.key, bounds.left_us, bounds.right_us],
        **sides,
    }


class JoinStreamsOperator:
    """Pairs of rows of both sides; ``open_table`` gives the tables, by what their names end in."""

    def __init__(self, operator_id: str, node: JoinStreams, open_table: Callable[[str, TableSpec], StateTable]) -> None:
        self.operator_id = operator_id
        self._how = node.how
        self._columns = columns_of_join(node)
        self._nulls_equal = node.nulls_equal
        self._left = SideState(node, "left", open_table)
        self._right = SideState(node, "right", open_table)
        self._ends = any(bounds_of_join(node).ends(side) for side in ("left", "right"))
        self._wide = pl.Schema({**self._columns.left.columns, **self._columns.right.columns})
        self._progress = OperatorProgress(name="join")

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the pairs of this batch, and the rows of which it is now certain that they met none."""
        left, right = self._arrivals(inputs, batch)
        started = stopwatch_us()
        alone = [self._failing(self._left, left), self._failing(self._right, right)]
        left, right = left.filter(*self._columns.left.conditions), right.filter(*self._columns.right.conditions)
        pairs = self._pairs(left, right)
        eviction_us = batch.marks.eviction_us
        met = {}
        for side, arrived in ((self._left, left), (self._right, right)):
            new, older = side.note_met(pairs, arrived)
            side.keep(arrived, new, eviction_us)
            met[side] = pl.concat([new, older])
        updated = stopwatch_us()
        alone += [self._left.evict(eviction_us), self._right.evict(eviction_us)]
        result = self._result(pairs, met[self._left], [rows for rows in alone if rows.height])
        self._note(updated - started, stopwatch_us() - updated)
        return result.lazy()

    def _arrivals(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return both sides' rows that are not late, collected in one pass."""
        taken: list[pl.DataFrame] = []
        batch.observe(self._left.arriving(inputs[0], batch), taken.append)
        right = batch.collect(self._right.arriving(inputs[1], batch))
        return self._left.numbered(taken[0], batch.batch_id), self._right.numbered(right, batch.batch_id)

    def _failing(self, side: SideState, arrived: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of a preserved side that fail a condition on it alone: it is known at once that they meet none."""
        return side.side.failing(arrived).select(list(side.side.columns))

    def _pairs(self, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
        fresh = left.join(
            right,
            left_on=self._columns.left.keys,
            right_on=self._columns.right.keys,
            how="inner",
            nulls_equal=self._nulls_equal,
            coalesce=False,
        )
        older = [self._right.meet(left), self._left.meet(right)]
        pairs = pl.concat([fresh, *(rows.select(fresh.columns) for rows in older)])
        return pairs.filter(*self._columns.mixed) if self._columns.mixed else pairs

    def _result(self, pairs: pl.DataFrame, met: pl.DataFrame, alone: Sequence[pl.DataFrame]) -> pl.DataFrame:
        match self._how:
            case "semi":
                pairs = pairs.join(met, on=self._left.row, how="semi").unique(self._left.row)
            case "anti":
                pairs = pairs.clear()
            case _:
                pass
        wide = [pairs.select(list(self._wide)), *(rows.select(_wide(rows, self._wide)) for rows in alone)]
        return pl.concat(wide).select(self._columns.output)

    def _note(self, update_us: int, removal_us: int) -> None:
        sides = (self._left, self._right)
        self._progress = OperatorProgress(
            name=f"join {self.operator_id}",
            rows_total=sum(side.rows for side in sides),
            rows_updated=sum(side.updated for side in sides),
            rows_removed=sum(side.removed for side in sides),
            rows_late=sum(side.late.rows for side in sides),
            memory_bytes=sum(side.bytes for side in sides),
            update_ms=update_us // 1_000,
            removal_ms=removal_us // 1_000,
        )

    def wants_batch(self, marks: Marks, time_us: int) -> bool:  # noqa: ARG002
        """Return True if the watermark moved on and rows of a side die some day (Spark: shouldRunAnotherBatch)."""
        return self._ends and marks.moved

    def progress(self) -> OperatorProgress:
        """Return what the last batch did."""
        return self._progress


def _wide(rows: pl.DataFrame, schema: pl.Schema) -> list[pl.Expr]:
    return [pl.col(c) if c in rows.columns else pl.lit(None, dtype).alias(c) for c, dtype in schema.items()]
