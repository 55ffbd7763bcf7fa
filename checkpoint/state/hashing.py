"""The order rows stand in: time, then a hash of the other keys."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache

import numpy as np
import numpy.typing as npt
import polars as pl

from microbatch.protocols import TableSpec

TIME, HASH = "__t", "__h"
NEVER = np.iinfo(np.int64).max  # time of rows that no watermark passes


def order_columns(rows: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """Return ``__t`` Int64 microseconds and, for tables that are looked up, ``__h`` UInt64, aligned with the rows."""
    columns = [times_of(rows, spec)]
    if spec.reduce is None:
        columns.append(hashes_of(rows, spec))
    return pl.DataFrame(columns)


def times_of(rows: pl.DataFrame, spec: TableSpec) -> pl.Series:
    """Return the time of each row, microseconds; rows without a time are never passed by a watermark; 0 in tables without a time key."""
    if spec.time_key is None:
        return pl.zeros(rows.height, pl.Int64, eager=True).alias(TIME)
    time = rows[spec.time_key]
    micros = time.dt.timestamp("us") if isinstance(time.dtype, pl.Datetime) else time.cast(pl.Int64)
    return micros.fill_null(int(NEVER)).alias(TIME)


def hashes_of(rows: pl.DataFrame, spec: TableSpec) -> pl.Series:
    """Return a hash of each row's keys beside the time; equal keys hash alike, also null, NaN, 0.0 and -0.0."""
    keys = [k for k in spec.keys if k != spec.time_key]
    if not keys:
        return pl.zeros(rows.height, pl.UInt64, eager=True).alias(HASH)
    return hash_rows(rows.select(keys)).alias(HASH)


def hash_order() -> int:
    """Return a number of the order rows are sorted by here: the hash function, as the hashes of a fixed frame show it.

    A run with another number was sorted by another version of the library, and must be sorted again before it is searched.
    """
    return _order_of(hash_rows)


@cache
def _order_of(function: Callable[[pl.DataFrame], pl.Series]) -> int:
    return zlib.crc32(function(_probe()).to_numpy().astype("<u8").tobytes())


def hash_rows(keys: pl.DataFrame) -> pl.Series:
    """Return a 64-bit hash of each row; it may be another one in another version of Polars."""
    return keys.hash_rows(seed=0)


@cache
def _probe() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "i": [0, -1, None],
            "s": ["", "a", "a string of forty characters, and no less."],
            "f": [0.0, float("nan"), None],
            "b": [True, None, False],
            "d": [date(1970, 1, 1), None, date(9999, 12, 31)],
            "t": [datetime(1970, 1, 1, tzinfo=UTC), datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC), None],
        }
    )


def directory(times: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct values of a sorted array, and the row each begins at, with the length at the end."""
    if times.size == 0:
        return times, np.zeros(1, dtype=np.int64)
    if times[0] == times[-1]:  # without a look at the rows between, which may lie on a disk
        return times[:1], np.array([0, times.size], dtype=np.int64)
    starts = np.flatnonzero(np.concatenate(([True], times[1:] != times[:-1])))
    return times[starts], np.append(starts, times.size)
