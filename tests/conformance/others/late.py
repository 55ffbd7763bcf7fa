"""What came too late, as the cases look at it: input rows, a row being late when it is late for every window it belongs to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.plan.window import START
from tests.conformance.compare import Row, rows_of
from tests.conformance.others.joins import LEFT, RIGHT
from tests.conformance.others.pipeline import FILLER

PER_SECOND = 1_000


class LateOutput:
    """The late rows of a case, of all its inputs together."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.sink = mb.MemorySink()
        self._inputs: list[dict[str, Any]] = list(body["inputs"].values())
        slides = [op["window"]["slide_ms"] for op in body["pipeline"] if op.get("window", {}).get("kind") == "hopping"]
        self._slide = timedelta(milliseconds=slides[0]) if slides else None
        self._seen = 0

    def fresh(self) -> list[Row]:
        """Return the rows that came too late since the last call."""
        rows = [row for _, late in self.sink.batches() for row in self._input_rows(late)]
        fresh = rows[self._seen :]
        self._seen = len(rows)
        return fresh

    def _input_rows(self, late: pl.DataFrame) -> list[Row]:
        if late.is_empty():
            return []
        rows = late.unnest("row")
        sides = [side for side in (LEFT, RIGHT) if any(c.startswith(side) for c in rows.columns)]
        return [row for rows in (_of_side(rows, side) for side in sides or [""]) for row in self._of_input(rows)]

    def _of_input(self, rows: pl.DataFrame) -> list[Row]:
        if FILLER in rows.columns:
            rows = rows.filter(~pl.col(FILLER))
        # The inputs of a case that share an operator have the same columns, or each its own.
        spec = next(spec for spec in self._inputs if set(spec["schema"]) <= set(rows.columns))
        rows = rows.filter(pl.col(spec["time"]).is_not_null())  # the other side's
        if self._slide is not None and START in rows.columns:
            rows = rows.filter(pl.col(spec["time"]) < pl.col(START) + self._slide)  # the last window the row is in
        return rows_of(rows, list(spec["schema"]), per_second=PER_SECOND)


def _of_side(rows: pl.DataFrame, side: str) -> pl.DataFrame:
    """Return the columns of a side of a join, by their own names."""
    return rows.select(pl.col(c).alias(c.removeprefix(side)) for c in rows.columns if c.startswith(side))
