"""The rows of a list of files as one lazy frame: straight from Polars where that tells all that can go wrong, else through a guard."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from microbatch.errors import SourceError
from microbatch.sources.file_formats import Data, check_dtypes, common_format, footer, has_footer, mismatch, scan
from microbatch.sources.file_listing import open_file_system, scheme_of
from microbatch.sources.file_partitions import partition_literal, partition_values
from microbatch.sources.rescue import Judged, UnreadableFileError, judge, may_lack_fields, unread_file

RESCUED = "_rescued"
RESCUED_DTYPE = pl.Struct({"file": pl.String, "reason": pl.String, "raw": pl.String})

_CHUNK_BYTES = 256 << 20  # of a guarded scan, read and judged at once: many small files cost one scan, large ones bounded memory
_WAYS_OUT = 'repair the file, or let malformed="drop" count such rows or malformed="rescue" keep them'


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files become rows.

    ``schema`` has the columns of the files and those from their paths; ``hive_bases`` are the folders below which ``key=value`` folders
    give columns of the schema, empty if none do.
    """

    schema: pl.Schema
    file_format: str | None
    format_options: Mapping[str, Any]
    malformed: str
    include_file_path: str | None
    hive_bases: Sequence[str]
    storage_options: Mapping[str, object]

    @property
    def output_schema(self) -> pl.Schema:
        """All columns of the source."""
        columns = dict(self.schema)
        if self.include_file_path is not None:
            columns[self.include_file_path] = pl.String()
        if self.malformed == "rescue":
            columns[RESCUED] = RESCUED_DTYPE
        return pl.Schema(columns)


@dataclass(slots=True)
class Malformed:
    """What of the files read last was malformed, by file, so that reading them twice does not count twice."""

    rows: dict[str, int] = field(default_factory=dict[str, int])
    files: set[str] = field(default_factory=set[str])


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Files that are read in one scan: the same values come from their paths."""

    paths: tuple[str, ...]
    from_path: Mapping[str, str | None]
    in_memory: bool


def read_files(paths: Sequence[str], reading: Reading, malformed: Malformed) -> pl.LazyFrame:
    """Return the rows of files in their order, with ``reading.output_schema``.

    Raises
    ------
    SourceError
        Now or when the rows are collected, naming the file: it is gone, cannot be read, has other columns, or has a malformed row.
    """
    if not paths:
        return pl.LazyFrame(schema=reading.output_schema)
    file_format = reading.file_format or common_format(paths, "files of one batch")
    reader = _Reader(file_format, reading, malformed)
    if has_footer(file_format) and reading.malformed == "fail" and all(scheme_of(path) == "file" for path in paths):
        return reader.direct(paths)
    return reader.guarded(paths)


class _Reader:
    """Reads files of one format."""

    def __init__(self, file_format: str, reading: Reading, malformed: Malformed) -> None:
        self._format = file_format
        self._reading = reading
        self._malformed = malformed

    def direct(self, paths: Sequence[str]) -> pl.LazyFrame:
        """Return a scan into which filters and projections sink; every footer is looked at now."""
        parts = [
            self._completed(self._scan(part, part.paths), part) for chunk in self._chunks(paths) for part in self._with_equal_footers(chunk)
        ]
        return parts[0] if len(parts) == 1 else pl.concat(parts)

    def guarded(self, paths: Sequence[str]) -> pl.LazyFrame:
        """Return a scan that judges the rows of a file one by one where reading it as a whole fails."""
        chunks = list(self._chunks(paths))

        def batches(
            columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            left = n_rows
            for part in (part for chunk in chunks for part in self._read(chunk)):
                if left is not None:
                    part, left = part.head(left), left - min(left, part.height)
                kept = part if predicate is None else part.filter(predicate)
                yield kept if columns is None else kept.select(columns)
                if left == 0:
                    return

        # All columns are parsed, whatever is asked for: whether a row is malformed must not depend on what a query does with it.
        return register_io_source(batches, schema=self._reading.output_schema, is_pure=True)

    def _chunks(self, paths: Sequence[str]) -> Iterator[_Chunk]:
        reading = self._reading

        def kind(path: str) -> tuple[bool, Mapping[str, str | None]]:
            values = partition_values(path, reading.hive_bases)
            return must_fetch(path, self._format), {name: text for name, text in values.items() if name in reading.schema}

        for (in_memory, from_path), members in groupby(paths, kind):
            for some in [[path] for path in members] if in_memory else _by_size(members):
                chunk = _Chunk(tuple(some), from_path, in_memory)
                check_dtypes(self._format, self._file_schema(chunk))
                yield chunk

    def _file_schema(self, chunk: _Chunk) -> pl.Schema:
        return pl.Schema({name: dtype for name, dtype in self._reading.schema.items() if name not in chunk.from_path})

    def _scan(self, chunk: _Chunk, data: Sequence[Data]) -> pl.LazyFrame:
        path_column = None if chunk.in_memory else self._reading.include_file_path
        return scan(self._format, data, self._file_schema(chunk), self._reading.format_options, path_column=path_column)

    def _with_equal_footers(self, chunk: _Chunk) -> Iterator[_Chunk]:
        """Yield the chunk; for IPC, whose scan takes the first file's columns for all, in parts of equal columns. SourceError if unfit."""
        footers = {path: self._fitting_footer(path, self._file_schema(chunk)) for path in chunk.paths}
        for _, members in groupby(chunk.paths, lambda path: list(footers[path].items()) if self._format == "ipc" else None):
            yield replace(chunk, paths=tuple(members))

    def _fitting_footer(self, path: str, schema: pl.Schema) -> pl.Schema:
        try:
            found = footer(self._format, path)
        except FileNotFoundError as error:
            raise _gone(path) from error
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._unreadable(path, str(error)) from error
        if difference := mismatch(found, schema):
            raise self._unreadable(path, difference)
        return found

    def _completed(self, rows: pl.LazyFrame, chunk: _Chunk, *, judged: bool = False) -> pl.LazyFrame:
        """Return rows with the columns that come from the path, and nothing rescued unless they are ``judged``."""
        reading, path = self._reading, chunk.paths[0]
        added = [partition_literal(path, name, text, reading.schema[name]) for name, text in chunk.from_path.items()]
        if reading.include_file_path is not None and (chunk.in_memory or judged):
            added.append(pl.lit(path).alias(reading.include_file_path))
        if reading.malformed == "rescue" and not judged:
            added.append(pl.lit(None, dtype=RESCUED_DTYPE).alias(RESCUED))
        return rows.with_columns(added).select(*reading.output_schema)

    def _read(self, chunk: _Chunk) -> Iterator[pl.DataFrame]:
        data = [fetch(path, self._reading.storage_options) for path in chunk.paths] if chunk.in_memory else chunk.paths
        rows = self._read_whole(chunk, data)
        if rows is not None:
            yield self._completed(rows.lazy(), chunk).collect()
        elif len(chunk.paths) == 1:
            yield self._completed(self._judged(chunk, data[0]).lazy(), chunk, judged=True).collect()
        else:
            for path in chunk.paths:
                yield from self._read(replace(chunk, paths=(path,)))

    def _read_whole(self, chunk: _Chunk, data: Sequence[Data]) -> pl.DataFrame | None:
        """Return the rows, None if some are malformed or may be."""
        try:
            rows = self._scan(chunk, data).collect()
        except FileNotFoundError as error:
            raise _gone(next((path for path in chunk.paths if not Path(path).exists()), chunk.paths[0])) from error
        except (pl.exceptions.PolarsError, OSError):
            return None
        options = self._reading.format_options
        return None if self._format == "csv" and may_lack_fields(rows, data, self._file_schema(chunk), options) else rows

    def _judged(self, chunk: _Chunk, data: Data) -> pl.DataFrame:
        path, schema, malformed = chunk.paths[0], self._file_schema(chunk), self._reading.malformed
        try:
            judged = judge(self._format, data, schema, self._reading.format_options)
        except FileNotFoundError as error:
            raise _gone(path) from error
        except UnreadableFileError as error:
            if malformed == "fail":
                raise self._unreadable(path, str(error)) from error
            self._malformed.files.add(path)
            return self._kept(unread_file(schema, str(error)), path)
        bad = judged.verdicts.filter(pl.col("reason").is_not_null())
        if bad.height and malformed == "fail":
            raise _malformed(path, bad)
        if bad.height:
            self._malformed.rows[path] = bad.height
        return self._kept(judged, path)

    def _kept(self, judged: Judged, path: str) -> pl.DataFrame:
        """Return the good rows, and if asked to the malformed ones as rows of nulls that say what they were."""
        reason = pl.col("reason")
        if self._reading.malformed != "rescue":
            return judged.rows.filter(judged.verdicts["reason"].is_null())
        text = pl.when(pl.col("line").is_null()).then(reason).otherwise(pl.format("line {}: {}", "line", reason))
        rescued = pl.when(reason.is_not_null()).then(pl.struct(file=pl.lit(path), reason=text, raw="raw"))
        return judged.rows.with_columns(judged.verdicts.select(rescued.alias(RESCUED)).to_series())

    def _unreadable(self, path: str, reason: str) -> SourceError:
        msg = f"{path} cannot be read as {self._format}: {reason}; {_WAYS_OUT}, or correct schema= and format="
        return SourceError(msg)


def _by_size(paths: Iterable[str]) -> Iterator[list[str]]:
    """Yield runs of local files that are not too large together."""
    chunk: list[str] = []
    size = 0
    for path in paths:
        n_bytes = _size(path)
        if chunk and size + n_bytes > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(path)
        size += n_bytes
    yield chunk


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a Path for each file would cost more than the call
    except OSError as error:
        raise _gone(path) from error


def must_fetch(path: str, file_format: str) -> bool:
    """Return True if Polars is given the bytes of a file, not its path."""
    # scan_ndjson alone takes such a path for a glob, and finds nothing.
    return scheme_of(path) != "file" or (file_format == "ndjson" and any(wild in path for wild in "*?["))


def fetch(path: str, storage_options: Mapping[str, object]) -> bytes:
    """Return the bytes of a file; SourceError, naming it, if it is gone or cannot be fetched."""
    try:
        if scheme_of(path) == "file":
            return Path(path).read_bytes()
        content: bytes = open_file_system(scheme_of(path), storage_options).cat_file(path)
    except FileNotFoundError as error:
        raise _gone(path) from error
    except OSError as error:
        msg = f"{path} cannot be fetched: {error}; look at its store, then start again"
        raise SourceError(msg, retryable=True) from error
    return content


def _malformed(path: str, bad: pl.DataFrame) -> SourceError:
    first = bad.row(0, named=True)
    others = f" (and {bad.height - 1} more malformed rows)" if bad.height > 1 else ""
    msg = f"{path}, line {first['line']}: {first['reason']}: {first['raw'][:200]!r}{others}; {_WAYS_OUT}"
    return SourceError(msg)


def _gone(path: str) -> SourceError:
    msg = f"{path} is gone, but belongs to a batch that is not finished: put it back and start again; leave cleaning up to clean_source="
    return SourceError(msg)
