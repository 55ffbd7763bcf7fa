"""Finds all rows of keys in tables that hold many rows per key: ranges of equal hashes, by binary search, and never by a join."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from microbatch.checkpoint.state.hashing import HASH, TIME, order_columns
from microbatch.checkpoint.state.locate import Index, same_keys, search, search_ranges
from microbatch.checkpoint.state.run import Run
from microbatch.protocols import TableSpec


def matches(runs: Sequence[Run], asked: pl.DataFrame, spec: TableSpec) -> tuple[pl.Series, pl.DataFrame]:
    """Return the rows with the asked keys, and for each the row of ``asked`` whose key it has; one key may be asked for several times."""
    ordered = order_columns(asked, spec)
    times, hashes = ordered[TIME].to_numpy(), ordered[HASH].to_numpy()
    order = np.lexsort((hashes, times))
    wanted = asked.select(spec.keys)
    found = [_matches_in(run, wanted, order, (times[order], hashes[order]), spec) for run in runs if run.rows]
    rows = pl.concat([pl.DataFrame(schema=spec.schema), *(rows for _, rows in found)])
    return pl.Series(np.concatenate([np.empty(0, dtype=np.int64), *(at for at, _ in found)])), rows


def _matches_in(
    run: Run, wanted: pl.DataFrame, order: Index, places: tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]], spec: TableSpec
) -> tuple[Index, pl.DataFrame]:
    at, begin, end = spans(run, *places)
    counts = end - begin
    rows = np.repeat(begin - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    asked = order[np.repeat(at, counts)]
    equal = same_keys(run, wanted, asked, rows, spec.keys)
    if not equal.all():
        asked, rows = asked[equal], rows[equal]
    return asked, run.frame.select(spec.schema.names())[rows]


def spans(run: Run, times: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64]) -> tuple[Index, Index, Index]:
    """Return which of the asked (time, hash), sorted, are in a run, and for each of these the rows [begin, end) that have both."""
    first = search(run, times, hashes)
    at = np.flatnonzero(first >= 0)
    run_times, starts = run.segments
    segment = np.searchsorted(run_times, times[at])
    low, high = starts[segment], starts[segment + 1]
    # The first row with the next hash; behind the largest hash there is none.
    largest = hashes[at] == np.iinfo(np.uint64).max
    behind = search_ranges(run.hashes, np.where(largest, hashes[at], hashes[at] + np.uint64(1)), low, high)
    return at, first[at], np.where(largest, high, behind)
