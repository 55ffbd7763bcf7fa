"""The order rows stand in: time, then a hash of the other keys."""

from __future__ import annotations

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
    return rows.select(keys).hash_rows(seed=0).alias(HASH)


@cache
def hash_probe() -> list[int]:
    """Return the hashes of a fixed frame: a process that answers otherwise hashes otherwise, and must sort the state again."""
    probe = pl.DataFrame(
        {
            "i": [0, -1, None],
            "s": ["", "a", "a string of forty characters, and no less."],
            "f": [0.0, float("nan"), None],
            "b": [True, None, False],
            "d": [date(1970, 1, 1), None, date(9999, 12, 31)],
            "t": [datetime(1970, 1, 1, tzinfo=UTC), datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC), None],
        }
    )
    return probe.hash_rows(seed=0).to_list()


def directory(times: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct values of a sorted array, and the row each begins at, with the length at the end."""
    if times.size == 0:
        return times, np.zeros(1, dtype=np.int64)
    starts = np.flatnonzero(np.concatenate(([True], times[1:] != times[:-1])))
    return times[starts], np.append(starts, times.size)
