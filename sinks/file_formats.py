"""The file formats of the file sink: what each can hold, how a frame becomes a file, and how files become a frame again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from microbatch.errors import PlanError

Options: TypeAlias = Mapping[str, Any]
_Scan: TypeAlias = Callable[[list[str], pl.Schema, Options, tuple[str, ...]], pl.LazyFrame]

BATCH_COLUMN = "microbatch_id"
"""The partition column that names the batch, in folders of partitioned files."""

_ADVICE: tuple[tuple[type[pl.DataType], str], ...] = (
    (pl.Struct, ".struct.json_encode()"),
    (pl.List, '.cast(pl.List(pl.String)).list.join(",")'),
    (pl.Array, '.arr.to_list().cast(pl.List(pl.String)).list.join(",")'),
    (pl.Binary, '.bin.encode("base64")'),
    (pl.Duration, ".dt.total_microseconds()"),
    (pl.Decimal, ".cast(pl.String)"),
    (pl.Time, ".cast(pl.String)"),
    (pl.Null, ".cast(pl.String)"),
    (pl.Object, ".map_elements(str, return_dtype=pl.String)"),
)
_TEXT_TYPES = (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Date, pl.Datetime)
_JSON_TYPES = (*_TEXT_TYPES, pl.Null, pl.List, pl.Array, pl.Struct)
# In JSON Polars cannot read integers of 8 and 16 bits (it panics) nor all of 128 bits (2.1).
_NARROW = (pl.Int8, pl.Int16, pl.UInt8, pl.UInt16)
_WIDE = (pl.Int128, pl.UInt128)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """One format.

    ``writing`` are the options a user may set; ``reading`` those of them that a reader must know, with the reader's name for it.
    ``holds`` answers for one dtype, inner dtypes being asked apart. ``partitions``: readers know partition columns from the path.
    """

    name: str
    suffix: str
    writing: tuple[str, ...]
    reading: Mapping[str, str]
    holds: Callable[[pl.DataType], bool]
    partitions: bool
    write: Callable[[pl.DataFrame, Path | io.BytesIO, Options], None]
    scan: _Scan

    def check_options(self, options: Options) -> None:
        """Raise PlanError for an option that is unknown or has a value the writer refuses."""
        for option in options:
            if option not in self.writing:
                msg = f"format_options has {option!r}, which {self.name} files do not know{_did_you_mean(option, self.writing)}"
                raise PlanError(msg)
        try:
            self.write(pl.DataFrame({"x": [0]}), io.BytesIO(), options)
        except (ValueError, TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            msg = f"format_options={dict(options)} is refused by the {self.name} writer: {error}"
            raise PlanError(msg) from error

    def check_schema(self, schema: pl.Schema) -> None:
        """Raise PlanError for the first column whose type these files cannot give back."""
        for name, dtype in schema.items():
            if not all(map(self.holds, _with_inner(dtype))):
                advice = next((code for kind, code in _ADVICE if isinstance(dtype, kind)), "")
                or_turn = f", or turn it into something simpler before the sink: pl.col({name!r}){advice}" if advice else ""
                other = "ipc" if isinstance(dtype, pl.Struct) and self.name == "parquet" else "parquet"
                ask = "" if isinstance(dtype, pl.Object) else f'; write format="{other}"'
                msg = f"{self.name} files cannot hold column {name!r} of type {dtype}{ask}{or_turn}"
                raise PlanError(msg)

    def reading_options(self, options: Options) -> dict[str, Any]:
        """Return the options a reader needs, under the reader's names."""
        return {theirs: options[ours] for ours, theirs in self.reading.items() if ours in options}

    def n_lost_numbers(self, rows: pl.DataFrame) -> int:
        """Return how many values of float columns become null in these files: in JSON there is no NaN and no infinity."""
        if self.name != "ndjson":
            return 0
        floats = pl.col(pl.Float16, pl.Float32, pl.Float64)
        lost = rows.select(floats.is_finite().not_().sum())
        return int(lost.sum_horizontal().item()) if lost.width else 0


def format_named(name: str) -> FileFormat:
    """Return the format of a name; PlanError with the names there are."""
    found = next((fmt for fmt in _FORMATS if fmt.name == name), None)
    if found is None:
        names = [fmt.name for fmt in _FORMATS]
        msg = f"format={name!r} is none of {names}{_did_you_mean(str(name), names)}"
        raise PlanError(msg)
    return found


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known) or 'none'}"


def _with_inner(dtype: pl.DataType) -> Iterator[pl.DataType]:
    """Yield a dtype and all dtypes inside it."""
    yield dtype
    inner: Sequence[Any] = [field.dtype for field in dtype.fields] if isinstance(dtype, pl.Struct) else [getattr(dtype, "inner", None)]
    for part in inner:
        if part is not None:
            yield from _with_inner(part)


def _parquet_holds(dtype: pl.DataType) -> bool:
    return not isinstance(dtype, pl.Object) and not (isinstance(dtype, pl.Struct) and not dtype.fields)


def _ipc_holds(dtype: pl.DataType) -> bool:
    return not isinstance(dtype, pl.Object)


def _csv_holds(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or isinstance(dtype, (*_TEXT_TYPES, pl.Time))


def _ndjson_holds(dtype: pl.DataType) -> bool:
    simple_number = dtype.is_float() or (dtype.is_integer() and not isinstance(dtype, _WIDE))
    return simple_number or isinstance(dtype, _JSON_TYPES)


def _write_parquet(rows: pl.DataFrame, file: Path | io.BytesIO, options: Options) -> None:
    rows.write_parquet(file, **options)


def _write_ipc(rows: pl.DataFrame, file: Path | io.BytesIO, options: Options) -> None:
    rows.write_ipc(file, **options)


def _write_csv(rows: pl.DataFrame, file: Path | io.BytesIO, options: Options) -> None:
    rows.write_csv(file, **options)


def _write_ndjson(rows: pl.DataFrame, file: Path | io.BytesIO, options: Options) -> None:
    rows.write_ndjson(file, **options)


def _scan_parquet(paths: list[str], schema: pl.Schema, _: Options, partition_by: tuple[str, ...]) -> pl.LazyFrame:
    hive = _hive_schema(paths[0], schema, partition_by)
    return pl.scan_parquet(paths, glob=False, hive_partitioning=bool(hive), hive_schema=hive or None)


def _scan_ipc(paths: list[str], schema: pl.Schema, _: Options, partition_by: tuple[str, ...]) -> pl.LazyFrame:
    hive = _hive_schema(paths[0], schema, partition_by)
    return pl.scan_ipc(paths, glob=False, hive_partitioning=bool(hive), hive_schema=hive or None)


def _scan_csv(paths: list[str], schema: pl.Schema, options: Options, _: tuple[str, ...]) -> pl.LazyFrame:
    return pl.scan_csv(paths, glob=False, schema=schema, **options)


def _scan_ndjson(paths: list[str], schema: pl.Schema, _: Options, __: tuple[str, ...]) -> pl.LazyFrame:
    readable = {name: _widened(dtype) for name, dtype in schema.items()}
    return pl.scan_ndjson(paths, schema=readable).cast(schema)


def _hive_schema(path: str, schema: pl.Schema, partition_by: tuple[str, ...]) -> dict[str, pl.DataType]:
    """Return the type of every ``name=value`` folder on the path: also of those above the sink's folder, which Polars takes for columns."""
    if not partition_by:
        return {}
    names = [part.partition("=")[0] for part in Path(path).parts[:-1] if "=" in part]
    return {name: schema.get(name, pl.String()) for name in names} | {BATCH_COLUMN: pl.Int64()}


def _widened(dtype: Any) -> pl.DataType:
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _widened(field.dtype) for field in dtype.fields})
    if isinstance(dtype, pl.List):
        return pl.List(_widened(dtype.inner))
    if isinstance(dtype, pl.Array):
        return pl.Array(_widened(dtype.inner), dtype.size)
    widened: pl.DataType = pl.Int64() if isinstance(dtype, _NARROW) else dtype
    return widened


_FORMATS = (
    FileFormat(
        name="parquet",
        suffix=".parquet",
        writing=("compression", "compression_level", "statistics", "row_group_size", "data_page_size"),
        reading={},
        holds=_parquet_holds,
        partitions=True,
        write=_write_parquet,
        scan=_scan_parquet,
    ),
    FileFormat(
        name="csv",
        suffix=".csv",
        writing=("separator", "quote_char", "null_value"),
        reading={"separator": "separator", "quote_char": "quote_char", "null_value": "null_values"},
        holds=_csv_holds,
        partitions=False,
        write=_write_csv,
        scan=_scan_csv,
    ),
    FileFormat(
        name="ndjson",
        suffix=".ndjson",
        writing=(),
        reading={},
        holds=_ndjson_holds,
        partitions=False,
        write=_write_ndjson,
        scan=_scan_ndjson,
    ),
    FileFormat(
        name="ipc",
        suffix=".arrow",
        writing=("compression",),
        reading={},
        holds=_ipc_holds,
        partitions=True,
        write=_write_ipc,
        scan=_scan_ipc,
    ),
)
