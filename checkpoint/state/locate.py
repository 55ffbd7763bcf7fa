"""Finds keys in runs: by binary search on the sorted hashes, newest run first, and never by a join against the state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from microbatch.checkpoint.state.hashing import HASH, TIME, directory
from microbatch.checkpoint.state.run import Run

Index = npt.NDArray[np.int64]
_FEW_SEGMENTS = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Located:
    """For each wanted key the run it is in (-1: in none) and its row there."""

    run_of: Index
    row_of: Index

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Which keys are there."""
        return self.run_of >= 0


def locate(runs: Sequence[Run], wanted: pl.DataFrame, keys: Sequence[str]) -> Located:
    """Return where each wanted key (unique, sorted by time and hash) stands in its newest version."""
    times, hashes = wanted[TIME].to_numpy(), wanted[HASH].to_numpy()
    run_of = np.full(wanted.height, -1, dtype=np.int64)
    row_of = np.zeros(wanted.height, dtype=np.int64)
    left = np.arange(wanted.height)
    for j, run in enumerate(runs):
        begin, end = _within(run, times, hashes)
        if begin == end:
            continue
        rows = search(run, times[begin:end], hashes[begin:end])
        hits = np.flatnonzero(rows >= 0)
        if hits.size:
            at = left[begin + hits]
            rows_hit = _of_the_same_key(run, wanted, at, rows[hits], keys)
            true = rows_hit >= 0
            run_of[at[true]], row_of[at[true]] = j, rows_hit[true]
            found = begin + hits[true]
            left, times, hashes = np.delete(left, found), np.delete(times, found), np.delete(hashes, found)
    return Located(run_of=run_of, row_of=row_of)


def _within(run: Run, times: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64]) -> tuple[int, int]:
    """Return begin and end of the places, sorted by time and hash, that lie between a run's first live row and its last."""
    bounds = []
    for row, side in ((run.first, "left"), (run.frame.height - 1, "right")):
        begin, end = np.searchsorted(times, run.times[row]), np.searchsorted(times, run.times[row], side="right")
        bounds.append(int(begin + np.searchsorted(hashes[begin:end], run.hashes[row], side=side)))  # type: ignore[call-overload]
    return bounds[0], max(bounds)


def locate_latest(runs: Sequence[Run], wanted: pl.DataFrame, hashes: npt.NDArray[np.uint64], keys: Sequence[str]) -> Located:
    """Return where each wanted key (unique, in any order, without its time) stands at the latest time it is there with."""
    run_of = np.full(wanted.height, -1, dtype=np.int64)
    row_of = np.zeros(wanted.height, dtype=np.int64)
    left = np.argsort(hashes)
    sought = hashes[left]
    for j, begin, end in _latest_first(runs):
        if left.size == 0:
            break
        column = runs[j].hashes[begin:end]
        rows = np.minimum(np.searchsorted(column, sought), column.size - 1)
        hits = np.flatnonzero(column[rows] == sought)
        if hits.size:
            rows_hit = _of_the_same_key(runs[j], wanted, left[hits], begin + rows[hits], keys)
            true = rows_hit >= 0
            run_of[left[hits[true]]], row_of[left[hits[true]]] = j, rows_hit[true]
            left, sought = np.delete(left, hits[true]), np.delete(sought, hits[true])
    return Located(run_of=run_of, row_of=row_of)


def _latest_first(runs: Sequence[Run]) -> list[tuple[int, int, int]]:
    """Return run, begin and end of each stretch of live rows with one time; the latest first, of one time the newest run first."""
    stretches = [
        (-int(times[k]), j, max(int(starts[k]), run.first), int(starts[k + 1]))
        for j, run in enumerate(runs)
        for times, starts in [run.segments]
        for k in range(int(np.searchsorted(starts, run.first, side="right")) - 1, times.size)
    ]
    return [(j, begin, end) for _, j, begin, end in sorted(stretches)]


def search(run: Run, times: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64]) -> Index:
    """Return the first live row of a run with each (time, hash), both sorted; -1 where there is none."""
    found = np.full(times.size, -1, dtype=np.int64)
    run_times, starts = run.segments
    if run_times.size == 0:
        return found
    segment = np.minimum(np.searchsorted(run_times, times), run_times.size - 1)
    # Only times that are there: ranges are told apart by where they begin, and a time that is not there has no range.
    known = np.flatnonzero(run_times[segment] == times)
    low, high = starts[segment[known]], starts[segment[known] + 1]
    row = _first_rows(run, hashes[known], low, high)
    ok = (row < high) & (row >= run.first)
    ok[ok] = run.hashes[row[ok]] == hashes[known[ok]]
    found[known[ok]] = row[ok]
    return found


def _first_rows(run: Run, wanted: npt.NDArray[np.uint64], low: Index, high: Index) -> Index:
    if run.fence is None or run.segments[0].size > 1 or not run.fence.suits(wanted.size):
        return search_ranges(run.hashes, wanted, low, high)
    low, high = run.fence.pages_of(wanted, run.frame.height)
    run.fence.fetch_ahead(run.hashes, np.concatenate((low, high - 1)))
    return _bisected(run.hashes, wanted, low, high)


def search_ranges(column: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64], low: Index, high: Index) -> Index:
    """Return for each wanted value the first row in [low, high) that is not smaller; ``high`` if all are.

    Wanted values of one range stand together. A few ranges are searched one by one, many all at once by bisection.
    """
    firsts, bounds = directory(low)
    if firsts.size <= max(_FEW_SEGMENTS, wanted.size // 256):
        row = np.empty(wanted.size, dtype=np.int64)
        for k in range(firsts.size):
            begin, end = bounds[k], bounds[k + 1]
            row[begin:end] = low[begin] + np.searchsorted(column[low[begin] : high[begin]], wanted[begin:end])
        return row
    return _bisected(column, wanted, low, high)


def _bisected(column: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64], low: Index, high: Index) -> Index:
    low, high = low.copy(), high.copy()
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        smaller = (low < high) & (column[np.minimum(middle, column.size - 1)] < wanted)
        high = np.where(smaller | (low >= high), high, middle)
        low = np.where(smaller, middle + 1, low)
    return low


def _of_the_same_key(run: Run, wanted: pl.DataFrame, at: Index, rows: Index, keys: Sequence[str]) -> Index:
    """Return the rows that hold the wanted keys: where only the hash is equal, the key's row among the neighbours, or -1."""
    equal = same_keys(run, wanted, at, rows, keys)
    if equal.all():
        return rows
    found = rows.copy()
    found[~equal] = _among_neighbours(run, wanted, at[~equal], rows[~equal], keys)
    return found


def same_keys(run: Run, wanted: pl.DataFrame, at: Index, rows: Index, keys: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return whether the run's rows hold the wanted keys; null equals null, NaN equals NaN."""
    equal = np.ones(at.size, dtype=bool)
    for key in keys:
        if wanted.schema[key].is_integer() and not run.frame[key].null_count() and not wanted[key].null_count():
            equal &= _ahead(run, run.column(key)[0], rows)[rows] == wanted[key].to_numpy()[at]
        else:
            equal &= run.frame[key].gather(rows).eq_missing(wanted[key].gather(at)).to_numpy()
    return equal


def _among_neighbours(run: Run, wanted: pl.DataFrame, at: Index, rows: Index, keys: Sequence[str]) -> Index:
    """Look at all rows with the same time and hash, by a join of these few rows."""
    _, starts = run.segments
    ends = starts[np.searchsorted(starts, rows, side="right")]
    hashes = run.hashes[rows]
    last = np.array(
        [r + np.searchsorted(run.hashes[r:e], h, side="right") for r, e, h in zip(rows, ends, hashes, strict=True)], dtype=np.int64
    )
    counts = last - rows
    candidates = np.repeat(rows, counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    near = run.frame.select(keys)[candidates].with_columns(row=pl.Series(candidates), want=pl.Series(np.repeat(np.arange(at.size), counts)))
    asked = wanted.select(keys)[at].with_columns(want=pl.Series(np.arange(at.size)))
    hits = asked.join(near, on=["want", *keys], how="inner", nulls_equal=True)
    found = np.full(at.size, -1, dtype=np.int64)
    found[hits["want"].to_numpy()] = hits["row"].to_numpy()
    return found


def fetch(runs: Sequence[Run], where: Located, columns: pl.Schema) -> pl.DataFrame:
    """Return the columns of the located rows, null where a key is in no run."""
    found = where.found
    fixed = [name for name, dtype in columns.items() if is_fixed(dtype)]
    arrays = {name: _fetch_fixed(runs, where, name, found) for name in fixed}
    out = pl.DataFrame({name: values for name, (values, _) in arrays.items()} | {f"{name}?": valid for name, (_, valid) in arrays.items()})
    exprs = [pl.when(pl.col(f"{name}?")).then(pl.col(name).cast(columns[name])).alias(name) for name in fixed]
    others = [name for name in columns if name not in arrays]
    pieces = ([out.select(exprs)] if fixed else []) + ([_fetch_others(runs, where, others, columns)] if others else [])
    if len(pieces) < 2:
        return pieces[0] if pieces else pl.DataFrame(height=found.size)
    return pieces[0].hstack(pieces[1]).select(list(columns))


def is_fixed(dtype: pl.DataType) -> bool:
    """Return True for types numpy can take rows of without help."""
    return (dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128)) or dtype.is_temporal() or dtype in (pl.Float32, pl.Float64)


def _fetch_fixed(
    runs: Sequence[Run], where: Located, name: str, found: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
    valid = found.copy()
    values = None
    for j in np.unique(where.run_of[found]):
        at = np.flatnonzero(where.run_of == j)
        column, there = runs[j].column(name)
        values = np.zeros(found.size, dtype=column.dtype) if values is None else values
        values[at] = _ahead(runs[j], column, where.row_of[at])[where.row_of[at]]
        if there is not None:
            valid[at] = there[where.row_of[at]]
    return np.zeros(found.size, dtype=np.int64) if values is None else values, valid


def _ahead(run: Run, column: npt.NDArray[np.generic], rows: Index) -> npt.NDArray[np.generic]:
    """Return the column, its pages with these rows asked for if the run lies on the disk."""
    if run.fence is not None and run.fence.suits(rows.size):
        run.fence.fetch_ahead(column, rows)
    return column


def _fetch_others(runs: Sequence[Run], where: Located, names: list[str], columns: pl.Schema) -> pl.DataFrame:
    """Gather strings, lists and the like with Polars: a row of nulls stands last, for the keys that are in no run."""
    pieces: list[pl.DataFrame] = []
    position = np.full(where.run_of.size, -1, dtype=np.int64)
    total = 0
    for j in np.unique(where.run_of[where.found]):
        at = np.flatnonzero(where.run_of == j)
        pieces.append(runs[j].frame.select(names)[where.row_of[at]])
        position[at] = total + np.arange(at.size)
        total += at.size
    nothing = pl.DataFrame({name: pl.Series([None], dtype=columns[name]) for name in names})
    position[position < 0] = total
    return pl.concat([*pieces, nothing])[position]
