"""Rows added by hand: for tests and notebooks. They live with the object, so a query restarted in this process reads them again."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from microbatch.errors import PlanError, SourceError
from microbatch.model import Offset
from microbatch.protocols import SourceContext

Rows = pl.DataFrame | Mapping[str, Sequence[Any]]

# One lock for all memory sources, so that rows may arrive on several at once.
_arrivals = threading.RLock()


class MemorySource:
    """A source of rows added by hand (Spark: MemoryStream).

    The offset is ``{"adds": n, "rows": r}``: so many arrivals, so many rows; an arrival without rows is one too.

    Parameters
    ----------
    schema
        Columns and dtypes.
    max_rows_per_trigger
        The most rows of a batch; None: no limit.
    """

    def __init__(self, schema: Mapping[str, Any] | pl.Schema, *, max_rows_per_trigger: int | None = None) -> None:
        if max_rows_per_trigger is not None and max_rows_per_trigger < 1:
            msg = f"max_rows_per_trigger={max_rows_per_trigger} must be 1 or more"
            raise PlanError(msg)
        self._schema = pl.Schema(schema)
        self.max_rows_per_trigger = max_rows_per_trigger
        self._frames: list[pl.DataFrame] = []
        self._ends: list[int] = []  # rows up to and including each arrival

    @property
    def description(self) -> str:
        """Its name for progress and ``explain``."""
        return f"MemorySource[{', '.join(self._schema)}]"

    def schema(self) -> pl.Schema:
        """Return the columns."""
        return self._schema

    def add(self, rows: Rows) -> Offset:
        """Let rows arrive at once and return the offset behind them; PlanError if they do not fit the schema."""
        frame = self._fitted(rows)
        with _arrivals:
            self._frames.append(frame)
            self._ends.append(self._total() + frame.height)
            return self._offset(self._ends[-1])

    @staticmethod
    def add_together(rows: Mapping[MemorySource, Rows]) -> None:
        """Let rows arrive on several sources at once: whoever looks sees all of them or none."""
        fitted = {source: source._fitted(frame) for source, frame in rows.items()}
        with _arrivals:
            for source, frame in fitted.items():
                source.add(frame)

    def _fitted(self, rows: Rows) -> pl.DataFrame:
        try:
            frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows, schema=self._schema, strict=True)
            return frame.select(list(self._schema)).cast(dict(self._schema), strict=True)  # type: ignore[arg-type]
        except (pl.exceptions.PolarsError, TypeError, ValueError) as cause:
            msg = f"rows do not fit the stream's columns {dict(self._schema)}: {str(cause).splitlines()[0]}"
            raise PlanError(msg) from cause

    def _total(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _offset(self, rows: int) -> Offset:
        return {"adds": bisect_right(self._ends, rows), "rows": rows}

    def read_all(self) -> pl.LazyFrame:
        """Return all rows there are."""
        return self._slice(0, self._total())

    def _slice(self, start: int, end: int) -> pl.LazyFrame:
        with _arrivals:
            begins = [0, *self._ends]
            touched = [f for f, a, z in zip(self._frames, begins, self._ends, strict=False) if a < end and z > start]
            before = next((a for a, z in zip(begins, self._ends, strict=False) if z > start), start)
        if not touched:
            return pl.LazyFrame(schema=self._schema)
        return pl.concat(touched)[start - before : end - before].lazy()

    def open(self, context: SourceContext) -> MemoryReader:  # noqa: ARG002
        """Return a reader."""
        return MemoryReader(self)


class MemoryReader:
    """Reads a memory source between offsets."""

    def __init__(self, source: MemorySource) -> None:
        self._source = source
        self._frozen: Offset = None
        self._is_frozen = False

    def latest_offset(self, start: Offset, *, limited: bool) -> Offset:
        """Return the end of the next batch."""
        with _arrivals:
            newest = self._frozen if self._is_frozen else self._newest()
        limit = self._source.max_rows_per_trigger
        if newest is None or not limited or limit is None or _rows(newest) - _rows(start) <= limit:
            return start if newest is None else newest
        return self._source._offset(_rows(start) + limit)

    def _newest(self) -> Offset:
        return self._source._offset(self._source._total()) if self._source._frames else None

    def freeze(self) -> None:
        """Fix the end at what is there now."""
        with _arrivals:
            self._frozen, self._is_frozen = self._newest(), True

    def read(self, start: Offset, end: Offset) -> pl.LazyFrame:
        """Return the rows after ``start`` up to ``end``."""
        if _rows(end) > self._source._total():
            msg = (
                f"{self._source.description}: the checkpoint asks for rows up to {_rows(end)}, this process has {self._source._total()}: "
                "rows of a memory stream do not outlive their process; take a new checkpoint"
            )
            raise SourceError(msg)
        return self._source._slice(_rows(start), _rows(end))

    def row_count(self, start: Offset, end: Offset) -> int:
        """Return the number of rows."""
        return _rows(end) - _rows(start)

    def commit(self, end: Offset) -> None:
        """Keep all rows: a query on another checkpoint may read them."""

    def metrics(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""


def _rows(offset: Offset) -> int:
    if offset is None:
        return 0
    if not isinstance(offset, dict) or not isinstance(offset.get("rows"), int):
        msg = f"{offset!r} is no offset of a memory stream: the checkpoint belongs to another source"
        raise SourceError(msg)
    return int(str(offset["rows"]))
