"""What of a Polars schema a Delta table can hold, and the cast that makes the rest fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import polars as pl
from polars.datatypes import DataTypeClass

from microbatch.errors import PlanError, SinkError

# Delta has no unsigned integers: the next wider signed type holds all values, but for UInt64, which `to_delta` therefore checks.
_WIDENED: Mapping[DataTypeClass, pl.DataType] = {pl.UInt8: pl.Int16(), pl.UInt16: pl.Int32(), pl.UInt32: pl.Int64(), pl.UInt64: pl.Int64()}
_TEXT = (pl.Categorical, pl.Enum)
_SAME = (pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Float32, pl.Float64, pl.Decimal, pl.String, pl.Binary, pl.Date)
_INSTEAD: Mapping[DataTypeClass, str] = {
    pl.Time: ".dt.to_string()",
    pl.Duration: ".dt.total_microseconds()",
    pl.Float16: ".cast(pl.Float32)",
    pl.Int128: ".cast(pl.Decimal(38, 0))",
    pl.UInt128: ".cast(pl.Decimal(38, 0))",
    pl.Null: ".cast(pl.String)",
}
# Spark refuses these in Parquet field names unless the table maps column names (DeltaColumnMapping).
_FORBIDDEN = " ,;{}()\n\t="
NESTED = (pl.List, pl.Struct, pl.Map)


def delta_schema(schema: pl.Schema) -> pl.Schema:
    """Return the columns as a Delta table holds them, in the same order.

    Categorical and Enum become String; unsigned integers the next wider signed type (UInt64: Int64); Datetime microseconds, and UTC if it
    has a zone (without one it is Delta's ``timestamp_ntz``); Array becomes List; List, Struct and Map are mapped inside.

    Raises
    ------
    PlanError
        A type or a name that Delta has no place for, with what to write instead.

    Examples
    --------
    >>> dict(delta_schema(pl.Schema({"n": pl.UInt32, "kind": pl.Enum(["a"])})))
    {'n': Int64, 'kind': String}
    """
    if not schema:
        msg = "a Delta table needs at least one column; the query has none"
        raise PlanError(msg)
    _check_names(schema)
    return pl.Schema({name: _delta_type(dtype, name, name) for name, dtype in schema.items()})


def _delta_type(dtype: pl.DataType, at: str, column: str) -> pl.DataType:
    """Map one type; ``at`` is its place inside the column, such as ``tags[].name``."""
    if isinstance(dtype, _SAME):
        return dtype
    if isinstance(dtype, _TEXT):
        return pl.String()
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", "UTC" if dtype.time_zone else None)
    if isinstance(dtype, (pl.List, pl.Array)):
        return pl.List(_delta_type(_made(dtype.inner), f"{at}[]", column))
    if isinstance(dtype, pl.Map):
        return pl.Map(_delta_type(_made(dtype.key), f"{at}.key", column), _delta_type(_made(dtype.value), f"{at}.value", column))
    if isinstance(dtype, pl.Struct) and dtype.fields:
        return pl.Struct({field.name: _delta_type(_made(field.dtype), f"{at}.{field.name}", column) for field in dtype.fields})
    widened = _WIDENED.get(dtype.base_type())
    if widened is None:
        raise _no_such_type(dtype, at, column)
    return widened


def _made(dtype: pl.DataType | DataTypeClass) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()


def _no_such_type(dtype: pl.DataType, at: str, column: str) -> PlanError:
    instead = _INSTEAD.get(dtype.base_type())
    if instead is None:
        way_out = "cast it to a type Delta has, or drop the column"
    elif at == column:
        way_out = f'write pl.col("{column}"){instead}'
    else:
        way_out = f"inside the column, write {instead} on it"
    return PlanError(f'column "{column}": Delta has no type for {dtype} (at {at}); {way_out}')


def _check_names(schema: pl.Schema) -> None:
    for column, dtype in schema.items():
        for name, _ in _parts(column, dtype):
            bad = sorted(set(name) & set(_FORBIDDEN))
            if bad:
                msg = f'column "{column}": Delta allows no {bad} in the name "{name}"; write .rename({{"{name}": ...}})'
                raise PlanError(msg)
    twice = [name for name, count in Counter(column.lower() for column in schema).items() if count > 1]
    if twice:
        same = [column for column in schema if column.lower() in twice]
        msg = f"columns {same} differ only in case, which Delta ignores; .rename one of them"
        raise PlanError(msg)


def _parts(name: str, dtype: pl.DataType) -> Iterator[tuple[str, pl.DataType]]:
    """Yield a column's name and type, then those of everything inside it; what has no name of its own is called ""."""
    yield name, dtype
    inside: list[tuple[str, pl.DataType | DataTypeClass]] = []
    if isinstance(dtype, pl.Struct):
        inside = [(field.name, field.dtype) for field in dtype.fields]
    elif isinstance(dtype, (pl.List, pl.Array)):
        inside = [("", dtype.inner)]
    elif isinstance(dtype, pl.Map):
        inside = [("", dtype.key), ("", dtype.value)]
    for inner_name, inner in inside:
        yield from _parts(inner_name, _made(inner))


def check_unmapped(schema: pl.Schema) -> None:
    """Raise PlanError if a column would change its type on the way into the table."""
    for (name, dtype), held in zip(schema.items(), delta_schema(schema).values(), strict=True):
        if dtype != held:
            msg = f'column "{name}": Delta has no {dtype}, and map_types=False; write pl.col("{name}").cast(pl.{held!r})'
            raise PlanError(msg)


def to_delta(rows: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Return the rows with the columns and types of ``schema``, which is ``delta_schema`` of theirs; no value is changed.

    Raises
    ------
    SinkError
        A value does not fit: a UInt64 of 2**63 or more, nanoseconds that microseconds would cut.
    """
    return pl.DataFrame([_fit(rows.get_column(name), dtype) for name, dtype in schema.items()])


def _fit(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    if column.dtype == dtype:
        return column
    try:
        fitted = column.cast(dtype)
    except pl.exceptions.InvalidOperationError as error:
        msg = f'column "{column.name}" ({column.dtype}): a value does not fit into the table\'s {dtype}: {error}; filter or cast it before'
        raise SinkError(msg) from error
    if _has_nanoseconds(column.dtype) and not fitted.cast(column.dtype).equals(column):
        msg = (
            f'column "{column.name}" ({column.dtype}): Delta keeps microseconds and would cut nanoseconds; '
            f'write pl.col("{column.name}").dt.truncate("1us")'
        )
        raise SinkError(msg)
    return fitted


def _has_nanoseconds(dtype: pl.DataType) -> bool:
    return any(isinstance(part, pl.Datetime) and part.time_unit == "ns" for _, part in _parts("", dtype))


def schema_conflicts(held: pl.Schema, given: pl.Schema, *, merge_schema: bool) -> list[str]:
    """Return why rows with the columns ``given`` do not fit a table with the columns ``held``; empty if they do.

    The order of columns does not count. With ``merge_schema`` a column may be missing on either side: the table gets it, or the rows
    leave it null.
    """
    folded = {name.lower(): name for name in held}
    why: list[str] = []
    for name, dtype in given.items():
        if name in held:
            if held[name] != dtype:
                why.append(f'"{name}" is {held[name]} in the table, {dtype} in the query')
        elif name.lower() in folded:
            why.append(f'"{name}" of the query is "{folded[name.lower()]}" in the table')
        elif not merge_schema:
            why.append(f'"{name}" ({dtype}) is only in the query (merge_schema=True adds it to the table)')
    if not merge_schema:
        why += [
            f'"{name}" ({dtype}) is only in the table (merge_schema=True leaves it null)'
            for name, dtype in held.items()
            if name not in given
        ]
    return why
