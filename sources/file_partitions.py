"""Columns that ``key=value`` folders give to the files in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

import polars as pl

from microbatch.errors import SourceError

_PARTITION = re.compile(r"([^/=]+)=([^/]*)/")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_FLAGS = {"true": True, "false": False}


def partition_values(path: str, bases: Sequence[str]) -> dict[str, str | None]:
    """Return the columns the folders below the longest of ``bases`` give to a file, as text, None for null.

    Examples
    --------
    >>> partition_values("/in/day=2024-01-02/shop=a%20b/x=1.csv", ["/in"])
    {'day': '2024-01-02', 'shop': 'a b'}
    """
    base = max((base for base in bases if path.startswith(f"{base.rstrip('/')}/")), key=len, default=None)
    if base is None:
        return {}
    return {unquote(key): None if value == _NO_VALUE else unquote(value) for key, value in _PARTITION.findall(path[len(base) :])}


def partition_literal(path: str, name: str, text: str | None, dtype: pl.DataType) -> pl.Expr:
    """Return the value a path gives to a column; SourceError, naming both, if it is none of the dtype."""
    try:
        value = _parsed(text, dtype)
    except pl.exceptions.PolarsError as error:
        msg = f"{path}: its path gives column {name!r} the value {text!r}, which is no {dtype}; rename the folder, or declare String"
        raise SourceError(msg) from error
    return pl.lit(value).first().alias(name)


def partition_dtype(text: str | None) -> pl.DataType:
    """Return the dtype a value looks like: Int64, Date, else String."""
    for dtype in (pl.Int64(), pl.Date()):
        try:
            if text is not None and _parsed(text, dtype).item() is not None:
                return dtype
        except pl.exceptions.PolarsError:
            continue
    return pl.String()


def _parsed(text: str | None, dtype: pl.DataType) -> pl.Series:
    """Return one value; PolarsError if it is none of the dtype."""
    value = pl.Series([text], dtype=pl.String)
    match dtype:
        case pl.Date():
            return value.str.to_date("%Y-%m-%d")
        case pl.Datetime():
            return value.str.to_datetime(time_unit=dtype.time_unit, time_zone=dtype.time_zone)
        case pl.Time():
            return value.str.to_time()
        case pl.Boolean():
            return value.str.to_lowercase().replace_strict(_FLAGS, return_dtype=dtype)
        case _:
            return value.cast(dtype)
