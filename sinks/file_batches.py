"""Files of batches in a folder: each batch appears whole, in one step, under a name that follows from its id."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from microbatch.clock import new_uuid
from microbatch.errors import PlanError, SinkError
from microbatch.sinks.file_formats import BATCH_COLUMN, FileFormat

# Spark: ExternalCatalogUtils.escapePathName and DEFAULT_PARTITION_NAME; Polars, DuckDB and pyarrow read the same.
_ODD_CHARACTERS = re.compile("[\x00-\x1f\x7f\"#%'*/:=?\\\\{\\[\\]^]")
_PARTITION_TYPES = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date, pl.Datetime)
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_STAGED = ".tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFiles:
    """The files of one query in one folder.

    Without ``partition_by`` a batch is the file ``batch-<id>-<query>.parquet``; with it, the folder
    ``microbatch_id=<id>`` with a file ``part-<query>.parquet`` in each ``column=value`` folder below.

    While a batch is written it lies under a hidden name, a folder beside the sink's: Polars' ``**`` descends into hidden folders
    too, so inside the sink's folder a reader of ``**/*.parquet`` would see half a batch.
    """

    folder: Path
    query_id: str
    format: FileFormat
    options: Mapping[str, Any]
    partition_by: tuple[str, ...]

    def publish(self, batch_id: int, rows: pl.DataFrame) -> list[Path]:
        """Make a batch visible, whole and durable, and return its files: none for no rows.

        A batch that is visible already, left by an attempt that died before its entry in the log, stays as it is.
        Raises OSError and PolarsError; nothing is visible then.
        """
        if rows.is_empty():
            return []
        final = self.place(batch_id)
        if not final.exists():
            with self._staging() as staged:
                if self.partition_by:
                    self._write_partitions(rows, staged)
                    staged.rename(final)
                else:
                    self._write_file(rows, staged)
                    final.hardlink_to(staged)
            sync(self.folder)
        return sorted(final.rglob(f"*{self.format.suffix}")) if self.partition_by else [final]

    def withdraw(self, batch_id: int) -> None:
        """Make a batch invisible again, in one step; nothing to do if it is not there."""
        final = self.place(batch_id)
        if not self.partition_by:
            final.unlink(missing_ok=True)
        elif final.exists():
            with self._staging() as staged:
                final.rename(staged)

    def place(self, batch_id: int) -> Path:
        """Return where a batch lies: a file, or with partition columns a folder."""
        if self.partition_by:
            return self.folder / f"{BATCH_COLUMN}={batch_id:010d}"
        return self.folder / f"batch-{batch_id:010d}-{self._tag}{self.format.suffix}"

    def remove_staged(self) -> None:
        """Remove what attempts of this query left when they died; invisible, so only the space matters."""
        for left in self._staging_folder.iterdir():
            if left.name.startswith(self._staged_prefix) and left.name.endswith(_STAGED):
                _remove(left)

    @property
    def _tag(self) -> str:
        return re.sub(r"[^0-9a-zA-Z]", "", self.query_id)[:8] or "query"

    @property
    def _staging_folder(self) -> Path:
        return self.folder.parent if self.partition_by else self.folder

    @property
    def _staged_prefix(self) -> str:
        return f".{self.folder.name}.microbatch-{self._tag}."

    @contextmanager
    def _staging(self) -> Generator[Path, None, None]:
        """Hold a hidden name of its own; what is left under it afterwards is removed."""
        # Unique to this attempt: a run thought dead may still be writing.
        staged = self._staging_folder / f"{self._staged_prefix}{new_uuid()}{_STAGED}"
        try:
            yield staged
        finally:
            _remove(staged)

    def _write_partitions(self, rows: pl.DataFrame, staged: Path) -> None:
        keyed = rows.with_columns(_partition_text(column) for column in self.partition_by)
        parts = keyed.partition_by(self.partition_by, as_dict=True, include_key=False, maintain_order=True)
        for values, part in parts.items():
            folder = staged.joinpath(*(f"{column}={_escaped(value)}" for column, value in zip(self.partition_by, values, strict=True)))
            folder.mkdir(parents=True)
            self._write_file(part, folder / f"part-{self._tag}{self.format.suffix}")
        for folder in _folders(staged):
            sync(folder)

    def _write_file(self, rows: pl.DataFrame, path: Path) -> None:
        self.format.write(rows, path, self.options)
        sync(path)


def check_partitions(partition_by: tuple[str, ...], schema: pl.Schema) -> None:
    """Raise PlanError unless these columns can be folders, beside the batch's, and leave something to write."""
    for column in partition_by:
        if column not in schema:
            msg = f"partition_by names {column!r}; the rows have {schema.names()}"
            raise PlanError(msg)
        if not (schema[column].is_integer() or isinstance(schema[column], _PARTITION_TYPES)):
            msg = (
                f"partition_by={column!r} is of type {schema[column]}; folders can be named by texts, integers, Booleans, dates and times: "
                f"add a column for it, such as pl.col({column!r}).cast(pl.String)"
            )
            raise PlanError(msg)
        if _ODD_CHARACTERS.search(column):
            msg = f"partition_by={column!r} cannot name a folder that readers understand; rename the column"
            raise PlanError(msg)
    if len(set(partition_by)) < len(partition_by):
        msg = f"partition_by={list(partition_by)} names a column twice"
        raise PlanError(msg)
    if partition_by and len(partition_by) == len(schema):
        msg = f"partition_by={list(partition_by)} takes every column, so the files would be empty; leave one out"
        raise PlanError(msg)
    if partition_by and BATCH_COLUMN in schema:
        msg = f"the column {BATCH_COLUMN!r} is in the way: partitioned files keep the batch id under that name; rename it"
        raise PlanError(msg)


def check_place(folder: Path, partition_by: tuple[str, ...], schema: pl.Schema) -> None:
    """Raise unless partitions can be moved into the folder in one step and read back as columns: PlanError, SinkError."""
    if not partition_by:
        return
    taken = [part for part in folder.parts if part.partition("=")[0] in schema and "=" in part]
    if taken:
        msg = f"readers of {folder} would take {taken[0]!r} for a column of the rows; take another folder, or rename the column"
        raise PlanError(msg)
    if folder.is_mount():
        msg = f"{folder} is a mount point, so a batch of many files cannot be moved into it in one step; take a folder below it"
        raise SinkError(msg)


def _partition_text(column: str) -> pl.Expr:
    """Return a partition column as the text of its folder; null, the empty text and Hive's word for null are all null, as in Spark."""
    return pl.col(column).cast(pl.String).replace(["", _NULL_PARTITION], [None, None])


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably; nothing to do if it exists."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync(path: Path) -> None:
    """Return when a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(top: Path) -> Iterator[Path]:
    return (Path(folder) for folder, _, _ in os.walk(top))


def _escaped(value: str | None) -> str:
    return _NULL_PARTITION if value is None else _ODD_CHARACTERS.sub(lambda odd: f"%{ord(odd[0]):02X}", value)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
