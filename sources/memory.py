"""Rows added by hand: for tests and notebooks. They live with the object, so a query restarted in this process reads them again."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import polars as pl

from microbatch.errors import CheckpointMismatchError, PlanError, SourceError
from microbatch.model import Offset
from microbatch.protocols import SourceContext

Rows: TypeAlias = pl.DataFrame | Mapping[str, Sequence[Any]]

_KINDS = ((pl.String, pl.Categorical, pl.Enum), pl.Duration, (pl.List, pl.Array), pl.Struct)

# One lock and one count for all memory sources, so that rows may arrive on several at once.
_arrivals = threading.RLock()
_numbers = itertools.count(1)
_newest = 0  # number of the last arrival anywhere


@dataclass(slots=True)
class _Look:
    """One look of a run at all its memory sources: the newest arrival it sees, and the readers that asked so far."""

    newest: int
    asked: set[int]


_looks: dict[str, _Look] = {}  # by run


def _next_number() -> int:
    global _newest  # noqa: PLW0603 - one count for the process
    _newest = next(_numbers)
    return _newest


def _look(run: str, reader: int) -> int:
    """Return the newest arrival a reader may see: the same for all readers of a run until one of them asks again."""
    look = _looks.get(run)
    if look is None or reader in look.asked:
        look = _looks[run] = _Look(_newest, set())
    look.asked.add(reader)
    return look.newest


class Arrived:
    """The rows that arrived on one source; used under the lock."""

    def __init__(self, empty: pl.DataFrame) -> None:
        self._empty = empty
        self._frames: list[pl.DataFrame] = []
        self._ends: list[int] = []  # rows up to and including each arrival
        self._numbers: list[int] = []

    @property
    def n_rows(self) -> int:
        """All rows so far."""
        return self._ends[-1] if self._ends else 0

    def append(self, frame: pl.DataFrame, number: int) -> None:
        """Add an arrival."""
        self._ends.append(self.n_rows + frame.height)
        self._frames.append(frame)
        self._numbers.append(number)

    def end(self, newest: int, *, most_rows: int | None) -> Offset:
        """Return the offset behind the arrivals up to number ``newest`` and at most ``most_rows`` rows; None if nothing arrived."""
        n_adds = bisect_right(self._numbers, newest)
        if n_adds == 0:
            return None
        n_rows = self._ends[n_adds - 1] if most_rows is None else min(most_rows, self._ends[n_adds - 1])
        return {"adds": min(bisect_right(self._ends, n_rows), n_adds), "rows": n_rows}

    def between(self, start: int, end: int) -> pl.LazyFrame:
        """Return the rows from ``start`` up to, not including, ``end``, counted from 0."""
        first, last = bisect_right(self._ends, start), bisect_left(self._ends, end)
        touched = self._frames[first : last + 1]
        if start >= end or not touched:
            return self._empty.lazy()
        return pl.concat(touched).slice(start - (self._ends[first] - self._frames[first].height), end - start).lazy()


class MemorySource:
    """A source of rows added by hand (Spark: MemoryStream). All methods may be called from any thread.

    The offset is ``{"adds": n, "rows": r}``: so many arrivals are read whole, so many rows in all; an arrival without rows counts too.

    Parameters
    ----------
    schema
        Columns and dtypes.
    max_rows_per_trigger
        The most rows of a batch, 1 or more; None: no limit.

    Raises
    ------
    PlanError
        The schema or the limit cannot be.
    """

    def __init__(self, schema: Mapping[str, Any] | pl.Schema, *, max_rows_per_trigger: int | None = None) -> None:
        _check_limit(max_rows_per_trigger)
        self._schema = _checked_schema(schema)
        self._limit = max_rows_per_trigger
        self._arrived = Arrived(self._schema.to_frame())

    @property
    def description(self) -> str:
        """One line for progress and ``explain``."""
        return f"MemorySource[{', '.join(self._schema)}]"

    def schema(self) -> pl.Schema:
        """Return the columns."""
        return self._schema

    def add(self, rows: Rows) -> Offset:
        """Let rows arrive, all at once, and return the offset behind them.

        Columns are found by name; values are cast where nothing is lost. Raises PlanError, naming the column, otherwise.
        """
        frame = fitted(rows, self._schema)
        with _arrivals:
            self._arrived.append(frame, _next_number())
            return self._arrived.end(_newest, most_rows=None)

    @staticmethod
    def add_together(rows: Mapping[MemorySource, Rows]) -> None:
        """Let rows arrive on several sources at once: a query that plans a batch sees all of them or none. Raises as ``add``."""
        frames = {source: fitted(some, source.schema()) for source, some in rows.items()}
        with _arrivals:
            number = _next_number()
            for source, frame in frames.items():
                source._arrived.append(frame, number)

    def open(self, context: SourceContext) -> MemoryReader:
        """Return a reader."""
        # The readers of one run have their folders side by side; only they look at the same arrivals.
        return MemoryReader(self._arrived, self._limit, run=context.folder.path.rpartition("/")[0])

    def read_all(self) -> pl.LazyFrame:
        """Return all rows there are now."""
        with _arrivals:
            return self._arrived.between(0, self._arrived.n_rows)


class MemoryReader:
    """Reads what arrived on a memory source."""

    def __init__(self, arrived: Arrived, limit: int | None, *, run: str) -> None:
        self._arrived = arrived
        self._limit = limit
        self._run = run
        self._frozen: int | None = None
        with _arrivals:
            _looks.pop(run, None)

    def latest_offset(self, start: Offset, *, limited: bool) -> Offset:
        """Return the end of the next batch, None if nothing arrived yet."""
        with _arrivals:
            newest = _look(self._run, id(self)) if self._frozen is None else self._frozen
            most_rows = _rows(start) + self._limit if limited and self._limit is not None else None
            end = self._arrived.end(newest, most_rows=most_rows)
            # What was read stays read: a frozen end may lie before it.
            return start if end is None or _rows(end) < _rows(start) else end

    def freeze(self) -> None:
        """Fix the end at what arrived up to now."""
        with _arrivals:
            self._frozen = _look(self._run, id(self))

    def read(self, start: Offset, end: Offset) -> pl.LazyFrame:
        """Return the rows after ``start`` up to ``end``; SourceError if they arrived in a process that is gone."""
        with _arrivals:
            if _rows(end) > self._arrived.n_rows:
                msg = (
                    f"the checkpoint asks for {_rows(end)} rows of a memory stream, {self._arrived.n_rows} arrived in this process; "
                    f"such rows end with their process: take a new checkpoint, or add the same rows again first"
                )
                raise SourceError(msg)
            return self._arrived.between(_rows(start), _rows(end))

    def row_count(self, start: Offset, end: Offset) -> int:
        """Return the number of rows."""
        return _rows(end) - _rows(start)

    def commit(self, end: Offset) -> None:
        """All rows are kept: a query on another checkpoint may read them."""

    def metrics(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""
        with _arrivals:
            _looks.pop(self._run, None)


def _rows(offset: Offset) -> int:
    match offset:
        case None:
            return 0
        case {"adds": int(), "rows": int(rows)}:
            return rows
        case _:
            msg = f"{offset!r} is no offset of a memory stream; restore the old query, or take a new checkpoint"
            raise CheckpointMismatchError(msg)


def fitted(rows: Rows, schema: pl.Schema) -> pl.DataFrame:
    """Return rows with exactly the columns of a schema; PlanError, naming the column, unless nothing is lost by that."""
    columns = rows.get_columns() if isinstance(rows, pl.DataFrame) else [_series(name, rows[name], schema.get(name)) for name in rows]
    by_name = {column.name: column for column in columns}
    if by_name.keys() != schema.keys():
        missing, extra = sorted(schema.keys() - by_name.keys()), sorted(by_name.keys() - schema.keys())
        msg = f"rows do not fit the stream's columns {list(schema)}: missing {missing}, not known {extra}; give exactly these columns"
        raise PlanError(msg)
    lengths = {name: len(column) for name, column in by_name.items()}
    if len(set(lengths.values())) > 1:
        msg = f"columns of different lengths: {lengths}; give each the same number of values"
        raise PlanError(msg)
    return pl.DataFrame([_cast(by_name[name], dtype) for name, dtype in schema.items()], schema=schema)


def _series(name: str, values: Sequence[Any], dtype: pl.DataType | None) -> pl.Series:
    """Return a column of Python values: of the dtype if they all are, else of the dtype they seem to have."""
    if isinstance(values, list | tuple) and dtype is not None:
        with suppress(TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            return pl.Series(name, values, dtype=dtype, strict=True)
    try:
        return pl.Series(name, values)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        msg = f"column {name!r}: its values make no column of {dtype}: {str(error).partition(chr(10))[0]}"
        raise PlanError(msg) from error


def _cast(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    if column.dtype == dtype:
        return column
    msg = f"column {column.name!r}: values of {column.dtype} do not fit {dtype} without loss; cast them before they are added"
    if not _is_kin(column.dtype, dtype):
        raise PlanError(msg)
    try:
        cast = column.cast(dtype, strict=True)
        is_same = cast.cast(column.dtype, strict=True).equals(column)
    except pl.exceptions.PolarsError as error:
        raise PlanError(msg) from error
    if not is_same:
        raise PlanError(msg)
    return cast


def _is_kin(found: pl.DataType, wanted: pl.DataType) -> bool:
    """Return True if values of one dtype may mean the same in the other."""
    if isinstance(found, pl.Null) or (found.is_numeric() and wanted.is_numeric()):
        return True
    if isinstance(found, pl.Datetime) and isinstance(wanted, pl.Datetime):
        return found.time_zone == wanted.time_zone
    return any(isinstance(found, kinds) and isinstance(wanted, kinds) for kinds in _KINDS)


def _check_limit(limit: object) -> None:
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        msg = f"max_rows_per_trigger={limit!r} must be a whole number, 1 or more"
        raise PlanError(msg)


def _checked_schema(schema: Mapping[str, Any] | pl.Schema) -> pl.Schema:
    try:
        return pl.Schema(pl.DataFrame(schema=schema).schema)
    except (TypeError, ValueError) as error:
        msg = f"schema={schema!r} is not a mapping of column names to dtypes: {error}"
        raise PlanError(msg) from error
