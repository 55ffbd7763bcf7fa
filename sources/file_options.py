"""The options of a file source, checked when it is made, and the columns its files have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from microbatch.durations import Duration, duration_us
from microbatch.errors import PlanError, SourceError
from microbatch.sources.file_cleaner import check_archive
from microbatch.sources.file_formats import (
    check_dtypes,
    check_options,
    common_format,
    format_named,
    format_of,
    infer_schema,
    unknown_name,
)
from microbatch.sources.file_listing import Listing, Pattern, parse_patterns
from microbatch.sources.file_partitions import partition_dtype, partition_values
from microbatch.sources.file_rows import RESCUED, Reading, fetch, must_fetch

_MALFORMED = ("fail", "drop", "rescue")
_CLEAN_SOURCE = ("off", "archive", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """What a ``FileSource`` was told, checked: see there for the meaning.

    ``schema`` None: to be inferred; ``file_format`` None: told by the files' extensions; ``max_age_us`` None: files of any age are new.
    """

    patterns: tuple[Pattern, ...]
    schema: pl.Schema | None
    file_format: str | None
    max_files: int | None
    max_bytes: int | None
    latest_first: bool
    max_age_us: int | None
    clean_source: str
    archive_dir: str | None
    recursive: bool
    hive_bases: tuple[str, ...]
    malformed: str
    storage_options: Mapping[str, object]
    include_file_path: str | None
    format_options: Mapping[str, Any]
    log_compact_interval: int

    @property
    def bases(self) -> list[str]:
        """The folders that do not depend on what is found."""
        return [pattern.base for pattern in self.patterns]

    def listing(self) -> Listing:
        """Return a way to look for files."""

        def enter(name: str) -> bool:
            return self.recursive or (bool(self.hive_bases) and "=" in name)

        return Listing(self.patterns, enter=enter, storage_options=self.storage_options)

    def reading(self, schema: pl.Schema) -> Reading:
        """Return how files become rows whose columns, in the files and from their paths, are ``schema``."""
        return Reading(
            schema=schema,
            file_format=self.file_format,
            format_options=self.format_options,
            malformed=self.malformed,
            include_file_path=self.include_file_path,
            hive_bases=self.hive_bases,
            storage_options=self.storage_options,
        )


def check_file_options(
    path: object,
    *,
    schema: Mapping[str, Any] | None,
    file_format: str | None,
    max_files: int | None,
    max_bytes: int | None,
    latest_first: bool,
    max_file_age: Duration,
    clean_source: str,
    archive_dir: str | None,
    recursive: bool,
    hive_partitioning: bool | None,
    malformed: str,
    storage_options: Mapping[str, object] | None,
    include_file_path: str | None,
    format_options: Mapping[str, Any] | None,
    log_compact_interval: int,
) -> FileOptions:
    """Return the options; PlanError, naming option and value, for what cannot be."""
    patterns = parse_patterns(path)
    _check_numbers(max_files, max_bytes, log_compact_interval)
    _check_choices(malformed=(malformed, _MALFORMED), clean_source=(clean_source, _CLEAN_SOURCE))
    _check_flags(latest_first=latest_first, recursive=recursive, hive_partitioning=hive_partitioning)
    if (archive_dir is not None) != (clean_source == "archive"):
        msg = f'archive_dir={archive_dir!r} with clean_source={clean_source!r}: name a folder exactly if clean_source="archive"'
        raise PlanError(msg)
    by_path = hive_partitioning if hive_partitioning is not None else not any(pattern.is_glob for pattern in patterns)
    declared = None if schema is None else _declared(schema, {include_file_path, RESCUED if malformed == "rescue" else None})
    return FileOptions(
        patterns=patterns,
        schema=declared,
        file_format=_checked_format(patterns, file_format, format_options or {}, None if by_path else declared),
        max_files=max_files,
        max_bytes=max_bytes,
        latest_first=latest_first,
        max_age_us=_max_age_us(max_file_age, ignored=latest_first and (max_files or max_bytes) is not None),
        clean_source=clean_source,
        archive_dir=None if archive_dir is None else check_archive(str(archive_dir), patterns),
        recursive=recursive,
        hive_bases=tuple(pattern.base for pattern in patterns) if by_path else (),
        malformed=malformed,
        storage_options=dict(storage_options or {}),
        include_file_path=include_file_path,
        format_options=dict(format_options or {}),
        log_compact_interval=log_compact_interval,
    )


def _check_numbers(max_files: object, max_bytes: object, log_compact_interval: object) -> None:
    numbers = {"max_files_per_trigger": max_files, "max_bytes_per_trigger": max_bytes, "log_compact_interval": log_compact_interval}
    for name, value in numbers.items():
        if value is None and name != "log_compact_interval":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            msg = f"{name}={value!r} must be a whole number, 1 or more"
            raise PlanError(msg)
    if max_files is not None and max_bytes is not None:
        msg = f"max_files_per_trigger={max_files} and max_bytes_per_trigger={max_bytes} exclude each other; leave one out"
        raise PlanError(msg)


def _check_choices(**choices: tuple[object, Sequence[str]]) -> None:
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise unknown_name(str(value), allowed, what=f"value of {name}")


def _check_flags(**flags: object) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool) and not (value is None and name == "hive_partitioning"):
            msg = f"{name}={value!r} must be True or False"
            raise PlanError(msg)


def _declared(schema: Mapping[str, Any], added: set[str | None]) -> pl.Schema:
    try:
        declared = pl.Schema(pl.DataFrame(schema=schema).schema)
    except (TypeError, ValueError) as error:
        msg = f"schema={schema!r} is not a mapping of column names to dtypes: {error}"
        raise PlanError(msg) from error
    if not declared:
        msg = "schema={} names no column; name them all, or leave it out to have them inferred from the first file"
        raise PlanError(msg)
    if taken := added.intersection(declared):
        msg = f"the source adds a column {taken.pop()!r}, which the schema has too; rename one"
        raise PlanError(msg)
    return declared


def _checked_format(
    patterns: Sequence[Pattern], given: str | None, format_options: Mapping[str, object], schema: pl.Schema | None
) -> str | None:
    """Return the format, from the patterns' extensions if it is not given, None if only the files can tell."""
    names = [pattern.parts[-1] if pattern.parts else pattern.base for pattern in patterns]
    told = {format_of(name) for name in names}
    if given is not None:
        found: str | None = format_named(given)
    elif len(told) > 1 and None not in told:
        found = common_format(names, "path")
    else:
        found = told.pop() if len(told) == 1 else None
    check_options(found, format_options)
    if found is not None and schema is not None:
        check_dtypes(found, schema)
    return found


def _max_age_us(max_file_age: Duration, *, ignored: bool) -> int | None:
    length_us = duration_us(max_file_age, what="max_file_age")
    if length_us < 0:
        msg = f"max_file_age={max_file_age!r} must not be negative"
        raise PlanError(msg)
    return None if ignored else length_us


def infer_file_schema(options: FileOptions) -> pl.Schema:
    """Return the columns of the oldest file that is not empty, and those its path gives.

    Raises
    ------
    PlanError
        There is no file yet, or the extensions do not tell the format.
    SourceError
        The file cannot be read.
    """
    files = options.listing().all()
    first = files.filter(pl.col("bytes") > 0).head(1)
    if first.is_empty():
        msg = f"{', '.join(options.bases)}: no file with content yet, so its columns cannot be inferred; pass schema={{column: dtype}}"
        raise PlanError(msg)
    path: str = first["path"].item()
    file_format = options.file_format or common_format(files["path"].to_list(), ", ".join(options.bases))
    data = fetch(path, options.storage_options) if must_fetch(path, file_format) else path
    try:
        found = infer_schema(file_format, data, options.format_options)
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"{path}: its columns cannot be inferred: {error}; pass schema={{column: dtype}}, or correct format="
        raise SourceError(msg) from error
    from_path = {name: partition_dtype(text) for name, text in partition_values(path, options.hive_bases).items()}
    columns = {name: pl.String() if dtype == pl.Null else dtype for name, dtype in found.items()} | from_path
    return _declared(columns, {options.include_file_path, RESCUED if options.malformed == "rescue" else None})
