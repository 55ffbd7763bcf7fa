"""The state as rows, for people and tools: at any retained version, while the query runs, without its lock."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import polars as pl

from microbatch.checkpoint.commit_log import CommitLog
from microbatch.checkpoint.layout import COMMITS, METADATA, STATE
from microbatch.checkpoint.place import folder_at
from microbatch.checkpoint.state.files import StateFiles, state_files
from microbatch.checkpoint.state.manifest import fetch_version, runs_of, schema_in, with_columns_of
from microbatch.checkpoint.state.run import Run, merged_rows, with_values
from microbatch.checkpoint.state.table import without
from microbatch.errors import PlanError
from microbatch.protocols import TableSpec

CHANGE, VERSION = "_change_type", "_version"
_UPDATE, _DELETE = "update", "delete"
_OURS, _INNER_KEY = "__", "__key_"  # a key computed under the name of a column is kept as __key_<name>


@dataclass(frozen=True, kw_only=True)
class StoredState:
    """The retained versions of a checkpoint's state, by number: how many batches each has seen."""

    where: str
    files: StateFiles
    deltas: dict[int, str]

    @classmethod
    def at(cls, checkpoint: str | PathLike[str]) -> StoredState:
        """Return what is there now; PlanError if it is no checkpoint, or one without state."""
        folder = folder_at(checkpoint)
        if folder.read(METADATA) is None:
            msg = f"{folder.path} is no checkpoint: it has no file {METADATA!r}"
            raise PlanError(msg)
        commits, state = CommitLog(folder.sub(COMMITS)), folder.sub(STATE)
        named = {batch_id + 1: commit.state for batch_id in commits.ids() if (commit := commits.get(batch_id)) is not None}
        there = set(state.names())
        deltas = {v: name for v, name in named.items() if name is not None and name in there}
        return cls(where=folder.path, files=state_files(state), deltas=deltas)

    def version(self, number: int | None, *, verify: bool = False) -> StoredVersion:
        """Return a version, None: the newest; ``verify`` reads every file whole for its checksum.

        Raises PlanError, saying which are retained; CheckpointCorruptError.
        """
        number = max(self.deltas, default=0) if number is None else number
        if number not in self.deltas:
            kept = f"{min(self.deltas)} to {max(self.deltas)}" if self.deltas else "none"
            msg = f"{self.where}: version {number} of the state is not retained; retained are {kept}"
            raise PlanError(msg)
        return StoredVersion(where=self.where, files=self.files, number=number, delta=self.deltas[number], verify=verify)


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """The tables of one version."""

    where: str
    files: StateFiles
    number: int
    delta: str
    verify: bool

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The manifest's entry of each table."""
        tables: dict[str, Any] = fetch_version(self.files, self.delta, self.number)["tables"]
        return tables

    def check(self) -> None:
        """Raise CheckpointCorruptError unless every file of the version can be read."""
        for entry in self.tables.values():
            runs_of(self.files.root, entry, verify=self.verify)

    def entry(self, table: str | None) -> dict[str, Any]:
        """Return the entry of the table ``name_of`` finds."""
        return dict(self.tables[self.name_of(table)])

    def name_of(self, table: str | None) -> str:
        """Return the table's name, None: of the only one that does not help another, as ``x/timers`` helps ``x``.

        Raises PlanError, naming the tables there are.
        """
        own = [name for name in self.tables if name.rpartition("/")[0] not in self.tables]
        if table is None and len(own) == 1:
            return own[0]
        if table is None or table not in self.tables:
            asked = "operator=... is needed" if table is None else f"no operator {table!r} keeps state"
            msg = f"{self.where}: {asked}; at version {self.number} these do: {', '.join(map(repr, self.tables)) or 'none'}"
            raise PlanError(msg)
        return table

    def read(self, entry: dict[str, Any]) -> pl.DataFrame:
        """Return a table's rows: one per key; those of a log as they were added, older first."""
        spec = spec_of(entry)
        rows = merged_or_all(without(self._runs(entry, spec), entry["evicted_to"]), spec, is_log=entry["log"])
        if spec.expiry is None or entry["evicted_to"] is None:
            return rows
        return rows.filter(pl.col(spec.expiry) > entry["evicted_to"])

    def changes(self, entry: dict[str, Any], before: dict[str, Any] | None) -> pl.DataFrame:
        """Return what this version's batch changed of a table; ``before`` is its entry in the version before."""
        spec = spec_of(entry)
        own = [run for run in self._runs(entry, spec) if run.deltas and run.deltas[0].file == self.delta]
        pieces = [_marked(run.live, spec, entry["removable"]) for run in without(own, entry["evicted_to"])]
        if before is not None and entry["evicted_to"] is not None and spec.expiry is not None:
            evicted = self.read(before).filter(pl.col(spec.expiry) <= entry["evicted_to"])
            pieces.append(evicted.with_columns(pl.lit(_DELETE).alias(CHANGE)))
        elif before is not None and entry["evicted_to"] is not None:
            alive = without(self._runs(before, spec), before["evicted_to"])
            gone = [run.piece(run.first, max(run.first, run.row_after(entry["evicted_to"]))) for run in alive]
            evicted = merged_or_all(tuple(run for run in gone if run.rows), spec, is_log=entry["log"])
            pieces.append(evicted.with_columns(pl.lit(_DELETE).alias(CHANGE)))
        empty = pl.DataFrame(schema={**spec.schema, CHANGE: pl.String()})
        return pl.concat([empty, *(piece.select(empty.columns) for piece in pieces)])

    def _runs(self, entry: dict[str, Any], spec: TableSpec) -> list[Run]:
        return [with_columns_of(run, spec) for run in runs_of(self.files.root, entry, verify=self.verify)]


def spec_of(entry: dict[str, Any]) -> TableSpec:
    """Return what the stored table holds; how a log is reduced only its query knows."""
    return TableSpec(
        keys=tuple(entry["keys"]),
        time_key=entry["time_key"],
        schema=schema_in(entry),
        removable=entry["removable"],
        expiry=entry.get("expiry"),  # older checkpoints know no such tables
    )


def merged_or_all(runs: tuple[Run, ...], spec: TableSpec, *, is_log: bool) -> pl.DataFrame:
    """Return the newest row of each key, of a log all rows, older first."""
    if not runs:
        return pl.DataFrame(schema=spec.schema)
    rows = pl.concat([run.live for run in reversed(runs)]) if is_log else merged_rows(runs, spec)
    return rows.select(list(spec.schema))


def _marked(rows: pl.DataFrame, spec: TableSpec, removable: bool) -> pl.DataFrame:
    if not removable:
        return rows.with_columns(pl.lit(_UPDATE).alias(CHANGE))
    numbered = rows.with_row_index("__row")
    is_there = np.zeros(rows.height, dtype=bool)
    is_there[with_values(numbered, spec)["__row"].to_numpy()] = True
    return rows.with_columns(pl.Series(is_there).replace_strict({True: _UPDATE, False: _DELETE}, return_dtype=pl.String).alias(CHANGE))


def as_users_know(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows without columns only the engine knows, and with keys under the names users gave them."""
    names = {c: c.removeprefix(_INNER_KEY) for c in rows.columns if c.startswith(_INNER_KEY) or not c.startswith(_OURS)}
    return rows.select(pl.col(c).alias(name) for c, name in names.items())
