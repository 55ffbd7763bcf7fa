"""The file formats: their names and options, how Polars scans them, and which columns they can hold."""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import polars as pl

from microbatch.errors import PlanError

Data: TypeAlias = "str | bytes"
"""One file: its local path, or its bytes."""

TEXT_SCHEMA = pl.Schema({"value": pl.String})

_EXTENSIONS = {
    ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".txt": "text",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".feather": "ipc", ".ipc": "ipc",
}  # fmt: skip
_COMPRESSED = (".gz", ".zst")
_ALIASES = {"json": "ndjson", "jsonl": "ndjson", "arrow": "ipc", "feather": "ipc"}
_CSV_PARSING = ("has_header", "separator", "quote_char", "null_values", "empty_string_is_null", "encoding", "decimal_comma")
_INFERENCE = ("try_parse_dates", "infer_schema_length")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "csv": (*_CSV_PARSING, *_INFERENCE),
    "ndjson": ("infer_schema_length",),
    "parquet": (),
    "ipc": (),
    "text": (),
}
_FROM_FOOTER = ("parquet", "ipc")
# Dtypes for which Polars has no parser; a panic or an error at the first row would be the alternative.
_NOT_IN_CSV = (pl.Duration, pl.Binary, pl.List, pl.Array, pl.Struct, pl.Object, pl.Null)
_NOT_IN_JSON = (pl.Duration, pl.Time, pl.Binary, pl.Object)
_UPCAST = pl.ScanCastOptions(integer_cast="upcast", float_cast="upcast")


def format_named(name: str) -> str:
    """Return the format a user means: ``csv``, ``ndjson``, ``parquet``, ``ipc`` or ``text``; PlanError for another name."""
    found = _ALIASES.get(name.lower(), name.lower())
    if found not in _OPTIONS:
        raise unknown_name(name, _OPTIONS, what="format")
    return found


def format_of(path: str) -> str | None:
    """Return the format the extension of a path stands for, None if it stands for none.

    Examples
    --------
    >>> format_of("landing/a.csv.gz"), format_of("landing/*.json"), format_of("landing/a.parquet.gz")
    ('csv', 'ndjson', None)
    """
    stem, extension = os.path.splitext(path.lower())  # noqa: PTH122 - paths are strings here, and may be URLs
    if extension not in _COMPRESSED:
        return _EXTENSIONS.get(extension)
    found = _EXTENSIONS.get(os.path.splitext(stem)[1])  # noqa: PTH122
    return None if found in _FROM_FOOTER else found


def common_format(paths: Iterable[str], where: str) -> str:
    """Return the one format of some files; PlanError, naming two of them, if their extensions do not tell."""
    by_format: dict[str | None, str] = {}
    for path in paths:
        by_format.setdefault(format_of(path), path)
    if len(by_format) == 1 and (only := next(iter(by_format))) is not None:
        return only
    files = " and ".join(f"{path} ({found or 'unknown'})" for path, found in sorted((p, f) for f, p in by_format.items()))
    msg = f"{where}: the extensions do not tell one format: {files or 'no file yet'}; say format={', '.join(map(repr, _OPTIONS))}"
    raise PlanError(msg)


def check_options(file_format: str | None, options: Mapping[str, object]) -> None:
    """Raise PlanError for a ``format_options`` name the format (None: any format) does not have."""
    known = _OPTIONS[file_format] if file_format else _OPTIONS["csv"]
    for name in options:
        if name not in known:
            raise unknown_name(name, known, what=f"option of {file_format or 'csv'} in format_options")


def unknown_name(name: str, known: Iterable[str], *, what: str) -> PlanError:
    """Return the error for a name that is not known, with the one that was probably meant."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return PlanError(f"unknown {what}: {name!r}{hint}; known are {', '.join(known) or 'none'}")


def check_dtypes(file_format: str, schema: pl.Schema) -> None:
    """Raise PlanError, naming the column, for a dtype that files of the format cannot be read into."""
    refused = {"csv": _NOT_IN_CSV, "ndjson": _NOT_IN_JSON}.get(file_format, ())
    for name, dtype in schema.items():
        if dtype in refused:
            msg = f"column {name!r}: {file_format} cannot be read as {dtype}; declare it as String or Int64 and convert it in the query"
            raise PlanError(msg)
    if file_format == "text" and schema != TEXT_SCHEMA:
        msg = f"text files have one column, value (String), besides columns from the path; the schema says {show(schema)}"
        raise PlanError(msg)


def has_footer(file_format: str) -> bool:
    """Return True if files of the format say themselves which columns they have, cheaply."""
    return file_format in _FROM_FOOTER


def footer(file_format: str, data: Data) -> pl.Schema:
    """Return the columns of a Parquet or IPC file; raises PolarsError or OSError."""
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    return pl.Schema((pl.read_parquet_schema if file_format == "parquet" else pl.read_ipc_schema)(source))


def infer_schema(file_format: str, data: Data, options: Mapping[str, Any]) -> pl.Schema:
    """Return the columns one file seems to have; raises PolarsError or OSError."""
    match file_format:
        case "csv":
            return pl.scan_csv(data, glob=False, raise_if_empty=False, **options).collect_schema()
        case "ndjson":
            return pl.scan_ndjson(data, **options).collect_schema()
        case "text":
            return TEXT_SCHEMA
        case _:
            return footer(file_format, data)


def scan(
    file_format: str, data: Sequence[Data], schema: pl.Schema, options: Mapping[str, Any], *, path_column: str | None = None
) -> pl.LazyFrame:
    """Return the rows of files in their order, with the columns of ``schema``, and then ``path_column`` if one is named.

    Columns are found by name. Whatever does not fit raises a PolarsError when collected, but for CSV rows with too few fields, whose
    last columns are null, and for numbers of the same kind but smaller, which are widened.
    """
    sources: Any = list(data)
    match file_format:
        case "csv":
            rows = pl.scan_csv(
                sources,
                schema=parsed_schema(file_format, schema),
                glob=False,
                raise_if_empty=False,
                include_file_paths=path_column,
                **parsing_options(options),
            )
        case "ndjson":
            rows = pl.scan_ndjson(sources, schema=parsed_schema(file_format, schema), include_file_paths=path_column)
        case "text":
            rows = pl.scan_lines(sources, name="value", glob=False, include_file_paths=path_column)
        case "parquet":
            # With the schema given Polars opens no file before the rows are asked for.
            rows = pl.scan_parquet(
                sources, schema=schema, glob=False, hive_partitioning=False, cast_options=_UPCAST, include_file_paths=path_column
            )
        case _:
            rows = pl.scan_ipc(sources, glob=False, hive_partitioning=False, include_file_paths=path_column)
    extra = [path_column] if path_column else []
    return rows.select(*(pl.col(name).cast(dtype) for name, dtype in schema.items()), *extra)


def parsing_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the CSV options that matter once the schema is known."""
    return {name: value for name, value in options.items() if name in _CSV_PARSING}


def parsed_schema(file_format: str, schema: pl.Schema) -> pl.Schema:
    """Return what Polars' text parsers are asked for: dtypes they lack are read as another, to be cast."""
    # Asked for an Enum (or, in JSON, a Decimal) they give up the file at a value that is none, instead of the value.
    as_text = (pl.Enum, pl.Categorical) if file_format == "csv" else (pl.Enum, pl.Categorical, pl.Decimal)
    as_int64 = () if file_format == "csv" else (pl.Int8, pl.Int16, pl.UInt8, pl.UInt16)
    read_as: dict[str, pl.DataType] = {name: pl.String() for name, dtype in schema.items() if dtype in as_text}
    read_as |= {name: pl.Int64() for name, dtype in schema.items() if dtype in as_int64}
    return pl.Schema({name: read_as.get(name, dtype) for name, dtype in schema.items()})


def mismatch(found: Mapping[str, pl.DataType | None], schema: pl.Schema) -> str | None:
    """Return how a file's columns (dtype None: not known) differ from the schema, None if the rows can be read."""
    missing = [name for name in schema if name not in found]
    if missing:
        return f"column {missing[0]!r} ({schema[missing[0]]}) of the schema is missing; the file has {list(found)}"
    extra = [name for name in found if name not in schema]
    if extra:
        dtype = found[extra[0]]
        return f"column {extra[0]!r}{f' ({dtype})' if dtype else ''} is not in the schema, which has {list(schema)}"
    for name, wanted in schema.items():
        is_now = found[name]
        if is_now is not None and not _fits(is_now, wanted):
            return f"column {name!r} is {is_now}, the schema says {wanted}"
    return None


def _fits(found: pl.DataType, wanted: pl.DataType) -> bool:
    if found in (wanted, pl.Null):
        return True
    if found.is_integer() and wanted.is_integer():
        # Every value of the smaller type has a place in the larger one.
        low, high = _limits(found)
        wanted_low, wanted_high = _limits(wanted)
        return wanted_low <= low and high <= wanted_high
    return found == pl.Float32 and wanted == pl.Float64


def _limits(integer: pl.DataType) -> tuple[int, int]:
    bits = int("".join(filter(str.isdigit, str(integer))))
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if integer.is_signed_integer() else (0, 2**bits - 1)


def show(schema: Mapping[str, pl.DataType]) -> str:
    """Return a schema in one line, as a user would write it."""
    return "{" + ", ".join(f"{name!r}: {dtype}" for name, dtype in schema.items()) + "}"
