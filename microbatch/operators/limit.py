"""Passes the first rows of the stream's life on (Spark: StreamingGlobalLimitExec); the state is how many went by."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from microbatch.model import Json, Marks
from microbatch.operators.base import Batch, OperatorProgress
from microbatch.plan.nodes import Limit
from microbatch.protocols import StateTable, TableSpec

LIMIT_TABLE = TableSpec(keys=("__all",), time_key=None, schema=pl.Schema({"__all": pl.Int64(), "passed": pl.Int64()}))


def limit_fingerprint() -> dict[str, Json]:
    """Return what must stay for the state to keep its meaning; the number of rows may change."""
    return {"kind": "limit"}


class LimitOperator:
    """Counts the rows it passed in the one row of ``table``."""

    def __init__(self, operator_id: str, node: Limit, table: StateTable) -> None:
        self.operator_id = operator_id
        self._n = node.n
        self._table = table
        self._updated = 0

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return as many of the batch's rows as are still wanted."""
        slot = self._table.prepare(pl.DataFrame({"__all": [0], "passed": [0]}, schema=LIMIT_TABLE.schema))
        passed = self._table.lookup(slot)["passed"].fill_null(0).item()
        rows = batch.collect(inputs[0].limit(max(self._n - passed, 0)))
        self._table.upsert(slot.with_columns(passed=pl.lit(passed + rows.height, pl.Int64)))
        self._updated = int(rows.height > 0)
        return rows.lazy()

    def wants_batch(self, marks: Marks, time_us: int) -> bool:  # noqa: ARG002
        """Return False: time does not matter to it."""
        return False

    def progress(self) -> OperatorProgress:
        """Return what the last batch did."""
        return OperatorProgress(
            name=f"limit {self.operator_id}",
            rows_total=self._table.rows,
            rows_updated=self._updated,
            memory_bytes=self._table.bytes,
        )
