"""Which intervals of a key overlap or touch, so that they are one session: numpy over sorted columns, no loop over keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sessions:
    """Sessions of a frame's rows, numbered from 0 by key, and within a key by start.

    Attributes
    ----------
    order
        Row numbers, sorted by key and start.
    begins
        Where each session begins in ``order``.
    start, end
        Bounds of each session, [start, end).
    new_key
        Which sessions are the first of their key.
    """

    order: Index
    begins: Index
    start: Index
    end: Index
    new_key: npt.NDArray[np.bool_]

    @property
    def count(self) -> int:
        """How many there are."""
        return self.begins.size

    @property
    def first_rows(self) -> Index:
        """Return for each session the row it begins with, in time."""
        return self.order[self.begins]

    @property
    def sizes(self) -> Index:
        """How many rows each has."""
        return np.diff(self.begins, append=self.order.size)

    def of_rows(self) -> Index:
        """Return the session of each row."""
        numbers = np.empty(self.order.size, dtype=np.int64)
        numbers[self.order] = np.repeat(np.arange(self.count), self.sizes)
        return numbers

    def lowest(self, values: Index) -> Index:
        """Return for each session the lowest of its rows' values."""
        return np.minimum.reduceat(values[self.order], self.begins) if self.count else values[:0]

    def highest(self, values: Index) -> Index:
        """Return for each session the highest of its rows' values."""
        return np.maximum.reduceat(values[self.order], self.begins) if self.count else values[:0]


def find_sessions(keys: pl.DataFrame, start: Index, end: Index) -> Sessions:
    """Return the sessions of rows that each are an interval [start, end), aligned with their keys; equal ends and starts touch."""
    order, first_of_key = _by_key(keys, start)
    starts, ends = start[order], end[order]
    opens = first_of_key.copy()
    opens[1:] |= starts[1:] > _reached(first_of_key, ends)[:-1]
    begins = np.flatnonzero(opens)
    return Sessions(
        order=order,
        begins=begins,
        start=starts[begins],
        end=np.maximum.reduceat(ends, begins) if begins.size else ends,
        new_key=first_of_key[begins],
    )


def _by_key(keys: pl.DataFrame, start: Index) -> tuple[Index, npt.NDArray[np.bool_]]:
    """Return the row numbers sorted by key and start, and which of them are the first of their key.

    Keys are sorted by hash; only where two keys share one are they told apart exactly.
    """
    hashes = hashed(keys)
    order = _sorted(hashes, start)
    same = np.zeros(order.size, dtype=bool)
    sorted_hashes = hashes.to_numpy()[order]
    same[1:] = sorted_hashes[1:] == sorted_hashes[:-1]
    repeats = np.flatnonzero(same)
    if _equal(keys, order[repeats - 1], order[repeats]):
        return order, ~same
    numbers = keys.with_row_index("__row").select(pl.col("__row").first().over(keys.columns).cast(pl.UInt64)).to_series()
    order = _sorted(numbers, start)
    sorted_numbers = numbers.to_numpy()[order]
    return order, np.concatenate(([True], sorted_numbers[1:] != sorted_numbers[:-1]))[: order.size]


def hashed(keys: pl.DataFrame) -> pl.Series:
    """Return a hash of each row; equal rows hash alike, also null, NaN, 0.0 and -0.0."""
    return keys.hash_rows(seed=0)


def _sorted(first: pl.Series, second: Index) -> Index:
    columns = pl.DataFrame({"first": first, "second": second})
    return columns.select(pl.arg_sort_by("first", "second")).to_series().to_numpy().astype(np.int64)


def _equal(keys: pl.DataFrame, left: Index, right: Index) -> bool:
    return all(keys[k].gather(left).eq_missing(keys[k].gather(right)).all() for k in keys.columns)


def _reached(first_of_key: npt.NDArray[np.bool_], ends: Index) -> Index:
    """Return how far the intervals of a key reach, up to and including each one.

    One running maximum over all keys: each key's times are lifted above those of the keys before it. Where that would not fit 64 bits, the
    ranks of the ends stand for the ends.
    """
    if ends.size == 0:
        return ends
    number = np.cumsum(first_of_key) - 1
    low = int(ends.min())
    span = int(ends.max()) - low + 1
    if span <= (2**63 - 1) // (int(number[-1]) + 1):
        lift = number * span - low
        return np.asarray(np.maximum.accumulate(ends + lift) - lift)
    values, ranks = np.unique(ends, return_inverse=True)
    lift = number * values.size
    return np.asarray(values[np.maximum.accumulate(ranks + lift) - lift])
