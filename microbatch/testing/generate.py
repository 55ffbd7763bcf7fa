"""Random frames and random cuts of a frame into batches: the input of tests that compare two ways to one result.

Everything comes from the ``random.Random`` passed in, so a printed seed repeats a failure.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from polars.datatypes import DataTypeClass

_DAY_US = 86_400_000_000
_BASE_TIME_US = 1_700_000_000_000_000  # 2023-11-14, UTC: an ordinary time
_WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew")
_ODD_STRINGS = ("", " ", "a,b;c\td", '"quoted"', "it's", "two\nlines", "null", "NaN", "-0", "../x=%20", "\u00e9\u4e2d\U0001f642", "x" * 300)
_ODD_FLOATS = (float("nan"), float("inf"), float("-inf"), 0.0, -0.0)


def random_rows(
    rng: random.Random,
    schema: Mapping[str, pl.DataType | DataTypeClass],
    *,
    n_rows: int,
    null_share: float = 0.1,
    extreme_share: float = 0.1,
    n_distinct: int | None = None,
) -> pl.DataFrame:
    """Return a frame of exactly this schema with ordinary values, nulls and extremes.

    Parameters
    ----------
    rng
        The only source of chance; the same state gives the same frame.
    schema
        Columns and their types: numbers, Boolean, String, Binary, Date, Time, Datetime, Duration, Decimal, Categorical, Enum, Null, and
        List, Array and Struct of these.
    n_rows
        Height, 0 or more.
    null_share
        Chance of a null for each value, 0 to 1; inner values of lists and structs keep 0.
    extreme_share
        Chance for each value to be an extreme: the smallest and largest number, NaN, infinities, -0.0, the years 1 and 9999 (times of ns:
        1700 and 2200), empty, odd and long texts, empty lists.
    n_distinct
        Number of ordinary values a column chooses from; None: every row draws its own. Small numbers make columns to group by.

    Raises
    ------
    ValueError
        A type that none of the above covers.

    Examples
    --------
    >>> dict(random_rows(random.Random(1), {"key": pl.Int64, "name": pl.String}, n_rows=3).schema)
    {'key': Int64, 'name': String}
    """
    draw = np.random.default_rng(rng.getrandbits(64))
    mix = _Mix(n_rows=n_rows, null_share=null_share, extreme_share=extreme_share, n_distinct=n_distinct)
    return pl.DataFrame([_column(draw, _instance(dtype), mix).alias(name) for name, dtype in schema.items()])


def random_cuts(rng: random.Random, frame: pl.DataFrame, *, max_batches: int = 6) -> list[pl.DataFrame]:
    """Return the frame cut into 1 to ``max_batches`` pieces in order, some perhaps without rows; together they are the frame.

    Examples
    --------
    >>> pieces = random_cuts(random.Random(1), pl.DataFrame({"n": range(10)}))
    >>> pl.concat(pieces)["n"].to_list() == list(range(10))
    True
    """
    cuts = sorted(rng.randint(0, frame.height) for _ in range(rng.randint(0, max_batches - 1)))
    bounds = [0, *cuts, frame.height]
    return [frame.slice(start, end - start) for start, end in pairwise(bounds)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mix:
    """How ordinary values, extremes and nulls are mixed."""

    n_rows: int
    null_share: float
    extreme_share: float
    n_distinct: int | None


def _column(draw: np.random.Generator, dtype: pl.DataType, mix: _Mix) -> pl.Series:
    """Draw from a pool of ordinary values followed by all extremes, by position; no position is a null."""
    n_ordinary = mix.n_rows if mix.n_distinct is None else mix.n_distinct
    extremes = _extremes(dtype)
    pool = pl.concat([_ordinary(draw, dtype, n_ordinary), extremes])
    position = np.arange(mix.n_rows) if mix.n_distinct is None else draw.integers(0, mix.n_distinct, mix.n_rows)
    if len(extremes):
        extreme_position = n_ordinary + draw.integers(0, len(extremes), mix.n_rows)
        position = np.where(draw.random(mix.n_rows) < mix.extreme_share, extreme_position, position)
    is_null = pl.Series(draw.random(mix.n_rows) < mix.null_share, dtype=pl.Boolean)
    return pool.gather(pl.select(pl.when(~is_null).then(pl.Series(position, dtype=pl.Int64))).to_series())


def _ordinary(draw: np.random.Generator, dtype: pl.DataType, n: int) -> pl.Series:
    """Return n values without nulls, none of them extreme."""
    if isinstance(dtype, pl.List | pl.Array | pl.Struct):
        return _nested(draw, dtype, n)
    if dtype.is_float():
        return pl.Series(np.round(draw.normal(0, 100, n), 3), dtype=pl.Float64).cast(dtype)
    if isinstance(dtype, pl.String | pl.Binary | pl.Categorical):
        return pl.Series(list(draw.choice(_WORDS, n)), dtype=pl.String).cast(dtype)
    if isinstance(dtype, pl.Enum):
        return dtype.categories.gather(pl.Series(draw.integers(0, len(dtype.categories), n), dtype=pl.Int64)).cast(dtype)
    if isinstance(dtype, pl.Boolean):
        return pl.Series(draw.integers(0, 2, n) == 1, dtype=pl.Boolean)
    if isinstance(dtype, pl.Null):
        return pl.Series([None] * n, dtype=dtype)
    return _ordinary_number(draw, dtype, n)


def _ordinary_number(draw: np.random.Generator, dtype: pl.DataType, n: int) -> pl.Series:
    """Return n integers, decimals or times: all that is an integer inside."""
    if isinstance(dtype, pl.Decimal):
        return pl.Series(draw.integers(-9, 10, n), dtype=pl.Int64).cast(dtype)
    if dtype.is_integer():
        return pl.Series(draw.integers(0 if dtype.is_unsigned_integer() else -100, 101, n), dtype=pl.Int64).cast(dtype)
    if isinstance(dtype, pl.Date):
        return pl.Series(draw.integers(19_000, 20_000, n), dtype=pl.Int32).cast(dtype)
    if isinstance(dtype, pl.Time):
        return pl.Series(draw.integers(0, _DAY_US, n) * 1_000, dtype=pl.Int64).cast(dtype)
    if isinstance(dtype, pl.Datetime | pl.Duration):
        start = _BASE_TIME_US if isinstance(dtype, pl.Datetime) else 0
        return _scaled(pl.Series(start + draw.integers(0, 10 * _DAY_US, n), dtype=pl.Int64), dtype)
    msg = f"no random values for the type {dtype}; leave the column out and add it yourself"
    raise ValueError(msg)


def _scaled(microseconds: pl.Series, dtype: pl.Datetime | pl.Duration) -> pl.Series:
    """Return the times of a column of microseconds, in the unit of ``dtype``."""
    if dtype.time_unit == "ms":
        return (microseconds // 1_000).cast(dtype)
    return (microseconds * (1_000 if dtype.time_unit == "ns" else 1)).cast(dtype)


def _nested(draw: np.random.Generator, dtype: pl.List | pl.Array | pl.Struct, n: int) -> pl.Series:
    if isinstance(dtype, pl.Struct):
        fields = [_ordinary(draw, _instance(field.dtype), n).alias(field.name) for field in dtype.fields]
        return pl.DataFrame(fields, height=n).to_struct("")
    inner = _instance(dtype.inner)
    if isinstance(dtype, pl.Array):
        return _ordinary(draw, inner, n * dtype.size).reshape((n, dtype.size))
    lengths = draw.integers(0, 4, n)
    owner = pl.Series(np.repeat(np.arange(n), lengths), dtype=pl.Int64)
    lists = pl.DataFrame([owner.alias("owner"), _ordinary(draw, inner, int(lengths.sum())).alias("value")])
    owners = pl.DataFrame({"owner": pl.Series(np.arange(n), dtype=pl.Int64)})
    grouped = owners.join(lists.group_by("owner", maintain_order=True).agg("value"), on="owner", how="left", maintain_order="left")
    return grouped["value"].fill_null(pl.Series([[]], dtype=dtype)).cast(dtype)


def _extremes(dtype: pl.DataType) -> pl.Series:
    """Return the values of a type that break things; none for types that have no such values."""
    if dtype.is_integer():
        kind: Any = dtype
        return pl.select(pl.concat([kind.min(), kind.max(), pl.lit(0).cast(dtype)])).to_series()
    if dtype.is_float():
        bounds = pl.select(pl.concat([pl.lit(v, pl.Float64).cast(dtype) for v in _ODD_FLOATS])).to_series()
        return bounds.append(_largest_floats(dtype))
    if isinstance(dtype, pl.String | pl.Categorical):
        return pl.Series(_ODD_STRINGS, dtype=pl.String).cast(dtype)
    if isinstance(dtype, pl.Binary):
        return pl.Series([b"", b"\x00\xff", b"'\n"], dtype=dtype)
    if isinstance(dtype, pl.List):
        return pl.Series([[]], dtype=dtype)
    if isinstance(dtype, pl.Decimal):
        return pl.Series([_largest_decimal(dtype), -_largest_decimal(dtype), Decimal(0)], dtype=dtype)
    return _extreme_times(dtype)


def _largest_floats(dtype: pl.DataType) -> pl.Series:
    """Return the largest finite number of a float type and its negative."""
    finfo = np.finfo(np.float16) if isinstance(dtype, pl.Float16) else np.finfo(np.float32 if isinstance(dtype, pl.Float32) else np.float64)
    largest = float(finfo.max)
    return pl.Series([largest, -largest], dtype=pl.Float64).cast(dtype)


def _largest_decimal(dtype: pl.Decimal) -> Decimal:
    return Decimal((0, (9,) * dtype.precision, -dtype.scale))


def _extreme_times(dtype: pl.DataType) -> pl.Series:
    if isinstance(dtype, pl.Date):
        return pl.Series([date.min, date(1970, 1, 1), date.max], dtype=dtype)
    if isinstance(dtype, pl.Time):
        return pl.Series([0, _DAY_US * 1_000 - 1], dtype=pl.Int64).cast(dtype)
    if isinstance(dtype, pl.Datetime):
        ends = [datetime(1700, 1, 1), datetime(2200, 1, 1)] if dtype.time_unit == "ns" else [datetime.min, datetime(9999, 12, 31)]  # noqa: DTZ001, DTZ901
        return pl.Series([*ends, datetime(1970, 1, 1)], dtype=pl.Datetime(dtype.time_unit)).cast(pl.Int64).cast(dtype)  # noqa: DTZ001
    if isinstance(dtype, pl.Duration):
        return _scaled(pl.Series([-365 * _DAY_US, -1_000, 0, 365 * _DAY_US], dtype=pl.Int64), dtype)
    return pl.Series([], dtype=dtype)


def _instance(dtype: pl.DataType | DataTypeClass) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype
