"""A table of the state store: a few sorted runs, newest first, and what the current batch does to them."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import polars as pl

from microbatch.checkpoint.state.hashing import HASH, TIME, hashes_of
from microbatch.checkpoint.state.locate import fetch, locate, locate_latest
from microbatch.checkpoint.state.matching import matches
from microbatch.checkpoint.state.run import Run, merged_rows, sorted_rows, with_values
from microbatch.errors import PlanError
from microbatch.protocols import TableSpec


class Table:
    """Implements ``protocols.StateTable``.

    Attributes
    ----------
    runs
        Newest first; the tuple is replaced, never changed, so whoever holds one keeps its version.
    added
        The rows this batch added, which go into its delta.
    evicted_to
        The latest mark rows were removed by.
    """

    def __init__(self, name: str, spec: TableSpec) -> None:
        _check_types(name, spec)
        self.name = name
        self.spec = spec
        self.runs: tuple[Run, ...] = ()
        self.added: list[Run] = []
        self.evicted_to: int | None = None
        self.keys = 0
        self._values = pl.Schema({n: d for n, d in spec.schema.items() if n not in spec.keys})
        self._known = 0

    @cached_property
    def arrow_schema(self) -> str:
        """The schema as text that can be read back, which the names of dtypes cannot: an Arrow stream without rows."""
        out = io.BytesIO()
        pl.DataFrame(schema=self.spec.schema).write_ipc_stream(out)
        return base64.b64encode(zlib.compress(out.getvalue())).decode()

    def prepare(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows (unique keys) in the table's own order."""
        return sorted_rows(rows, self.spec)

    def lookup(self, prepared: pl.DataFrame) -> pl.DataFrame:
        """Return the value columns found for the prepared rows' keys, aligned; null where a key is not there."""
        where = locate(self.runs, prepared, self.spec.keys)
        values = fetch(self.runs, where, self._values)
        self._known = with_values(values, self.spec).height if self.spec.removable else int(np.count_nonzero(where.found))
        return values

    def lookup_latest(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Return the value columns of each key's latest time, aligned with the rows; null where a key is at no time."""
        names = [k for k in self.spec.keys if k != self.spec.time_key]
        where = locate_latest(self.runs, keys, hashes_of(keys, self.spec).to_numpy(), names)
        return fetch(self.runs, where, self._values)

    def matches(self, asked: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
        """Return the rows of a table with ``expiry`` that have the asked keys, and for each the row number in ``asked`` of its key."""
        at, rows = matches(self.runs, asked, self.spec)
        if self.spec.expiry is None or self.evicted_to is None:
            return at, rows
        there = rows[self.spec.expiry] > self.evicted_to
        return at.filter(there), rows.filter(there)

    def upsert(self, prepared: pl.DataFrame, *, known: int | None = None) -> None:
        """Put prepared rows in the place of those with the same keys; ``known`` are there (None: as many as the last look-up found)."""
        if prepared.height:
            self.keys += prepared.height - (self._known if known is None else known)
            self._add(prepared.rechunk())

    def remove(self, prepared: pl.DataFrame, *, known: int | None = None) -> None:
        """Remove the prepared rows' keys: a row of nulls hides older ones, until the oldest run is merged."""
        assert self.spec.removable, self.name
        nulls = [pl.lit(None, dtype).alias(name) for name, dtype in self._values.items()]
        self.upsert(prepared.select(TIME, HASH, *self.spec.keys).with_columns(nulls).select(TIME, HASH, *self.spec.schema), known=known)
        self.keys -= prepared.height

    def append(self, rows: pl.DataFrame) -> None:
        """Add rows to a log, or to a table with ``expiry``."""
        if rows.height:
            self.keys += rows.height if self.spec.expiry else 0
            self._add(sorted_rows(rows, self.spec))

    def _add(self, frame: pl.DataFrame) -> None:
        run = Run(frame=frame)
        self.added.append(run)
        self.runs = (run, *self.runs)

    def evict(self, mark_us: int) -> pl.DataFrame:
        """Remove the rows up to the mark and return them: one per key, or all of a log, older first."""
        gone = self._passed(mark_us)
        self._forget(mark_us)
        if not gone:
            return pl.DataFrame(schema=self.spec.schema)
        if self.spec.reduce is not None:
            return pl.concat([run.frame for run in reversed(gone)]).select(list(self.spec.schema))
        rows = merged_rows(gone, self.spec)
        self.keys -= rows.height
        return rows.select(list(self.spec.schema))

    def evict_count(self, mark_us: int) -> int:
        """Remove the rows up to the mark and return how many keys that were."""
        gone = self._passed(mark_us)
        self._forget(mark_us)
        if self.spec.expiry or (len(gone) == 1 and self.spec.reduce is None and not self.spec.removable):
            removed = sum(run.rows for run in gone)  # a run holds a key once
        else:
            removed = merged_rows(gone, self.spec).height if gone else 0
        self.keys -= removed
        return removed

    def _passed(self, mark_us: int) -> list[Run]:
        """Return the part of each run up to the mark, newest first, leaving out runs without one; nothing is copied."""
        cuts = [(run, run.row_after(mark_us)) for run in self.runs]
        return [Run(frame=run.frame[run.first : cut]) for run, cut in cuts if cut > run.first]

    def _forget(self, mark_us: int) -> None:
        self.evicted_to = mark_us if self.evicted_to is None else max(mark_us, self.evicted_to)
        self.runs = without(self.runs, mark_us)

    def scan(self) -> pl.DataFrame:
        """Return all rows: one per key, or all of a log."""
        if not self.runs:
            return pl.DataFrame(schema=self.spec.schema)
        return merged_rows(self.runs, self.spec).select(list(self.spec.schema))

    def first_time(self) -> int | None:
        """Return the earliest time of the rows that are alive, None if there are none."""
        return min((run.first_time for run in self.runs), default=None)

    def times(self) -> list[int]:
        """Return the distinct times of the rows that are alive, ascending."""
        alive = [times[starts[:-1] >= run.first] for run in self.runs for times, starts in [run.segments]]
        return sorted({int(time) for times in alive for time in times})

    @property
    def rows(self) -> int:
        """Keys of a table, rows of a log, rows that are not gone of a table with ``expiry``."""
        if self.spec.expiry is not None and self.evicted_to is not None:
            return self.keys - sum(run.overdue(self.spec.expiry, self.evicted_to) for run in self.runs)
        return sum(run.rows for run in self.runs) if self.spec.reduce else self.keys

    @property
    def bytes(self) -> int:
        """Bytes held, mapped files included."""
        return sum(run.file.bytes if run.file else int(run.frame.estimated_size()) for run in self.runs)

    def replace_runs(self, inputs: Sequence[int], merged: Sequence[Run]) -> None:
        """Put a merged run, in parts, in the place of those it was made of, as far as these have not been evicted meanwhile."""
        here = [k for k, run in enumerate(self.runs) if run.uid in inputs]
        if here:
            self.runs = without((*self.runs[: here[0]], *merged, *self.runs[here[-1] + 1 :]), self.evicted_to)


def without(runs: Sequence[Run], mark_us: int | None) -> tuple[Run, ...]:
    """Return the runs without rows up to the mark, and without those that are left empty."""
    return tuple(left for run in runs if (left := run.without(mark_us)).rows)


def _check_types(name: str, spec: TableSpec) -> None:
    for column, dtype in spec.schema.items():
        if dtype in (pl.Int128, pl.UInt128) or isinstance(dtype, (pl.Object, pl.Unknown, pl.Null)):
            msg = f"state of {name}: column {column!r} is {dtype}, which the state store cannot keep; cast it (to Int64, Decimal or String)"
            raise PlanError(msg)
        if column in spec.keys and isinstance(dtype, (pl.Categorical, pl.Enum)):
            msg = f"state of {name}: key {column!r} is {dtype}, whose codes mean something in one process only; cast it to pl.String"
            raise PlanError(msg)
