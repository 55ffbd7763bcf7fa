"""When runs are merged: size-tiered, the newest first, as universal compaction does it (RocksDB's name for it).

Merging four runs of like size makes one of the next size, so a row is rewritten once a tier; the oldest, large run is rewritten
only when the younger ones have grown to a quarter of it. A large run lies in several files, its *parts*, each a run of its own over a
stretch of the order: whoever merges needs the memory of a part, not that of the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import polars as pl

from microbatch.checkpoint.state.run import Run, merged_rows
from microbatch.protocols import TableSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When which runs are merged and how.

    Attributes
    ----------
    tier
        How many runs of like size become one; an older run joins if it is at most that many times as large as all younger ones.
    most_runs
        More runs than this are merged whatever their sizes.
    stall_runs
        With more runs than this a batch waits for the merge, else look-ups would cost more and more.
    inline_rows
        Runs in memory of so many rows together are merged by the engine's thread: handing them over would cost more.
    flush_bytes, flush_deltas
        Runs in memory go to a file when they are larger, or last through more deltas: a restart reads these.
    part_rows
        Rows of a part, about; merging takes some five times their memory.
    memory_bytes
        Run files larger than this together are taken to lie on the disk, and searched with as few pages as can be; None: half of the memory
        there is.
    """

    tier: int = 4
    most_runs: int = 12
    stall_runs: int = 24
    inline_rows: int = 20_000
    flush_bytes: int = 64 << 20
    flush_deltas: int = 50
    part_rows: int = 4 << 20
    memory_bytes: int | None = None

    def to_merge(self, runs: Sequence[Run]) -> list[Run]:
        """Return the newest runs that should become one now, empty if none should; of a run all parts or none."""
        total, taken = 0, list[Run]()
        whole = whole_runs(runs)
        for count, parts in enumerate(whole):
            rows = sum(part.rows for part in parts)
            if taken and rows > self.tier * total:
                return taken if count >= self.tier or len(whole) > self.most_runs else []
            total += rows
            taken += parts
        return taken if len(whole) >= self.tier else []

    def should_flush(self, in_memory: Sequence[Run]) -> bool:
        """Return True if the runs in memory hold too much, or depend on too many delta files."""
        n_bytes = sum(int(run.frame.estimated_size()) for run in in_memory)
        return n_bytes > self.flush_bytes or sum(len(run.deltas) for run in in_memory) > self.flush_deltas

    def should_stall(self, runs: Sequence[Run]) -> bool:
        """Return True if there are so many runs that the next batch had better wait."""
        return len(whole_runs(runs)) > self.stall_runs


def whole_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the runs, the parts of one together, in their order."""
    return [list(parts) for _, parts in groupby(runs, key=lambda run: run.group)]


def split_by_place(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Return the runs in memory and those in files; the former are the newer ones."""
    return [run for run in runs if run.file is None], [run for run in runs if run.file is not None]


def merged_parts(runs: Sequence[Run], spec: TableSpec, part_rows: int, has_oldest: bool) -> Iterator[pl.DataFrame]:
    """Yield the rows of runs (newest first) merged, in order, in pieces made of ``part_rows`` rows or, where more are equal, of more.

    ``has_oldest``: as for ``merged_rows``.
    """
    cuts = _cuts(runs, part_rows)
    bounds = [[run.first, *(run.row_of(*cut) for cut in cuts), run.frame.height] for run in runs]
    for k in range(len(cuts) + 1):
        pieces = [run.piece(b[k], b[k + 1]) for run, b in zip(runs, bounds, strict=True) if b[k + 1] > b[k]]
        if pieces and (rows := merged_rows(pieces, spec, has_oldest=has_oldest)).height:
            yield rows


def _cuts(runs: Sequence[Run], part_rows: int) -> list[tuple[int, int | None]]:
    """Return places in the order (time, hash) that cut all runs together into pieces of about ``part_rows``, ascending."""
    total = sum(run.rows for run in runs)
    sample = max(part_rows // 64, 1)
    # Every so-manyth row of every run stands for as many rows: equal ones stay in one piece, for a cut is a place, not a row.
    places = [run.places(sample) for run in runs] if total > part_rows else []
    if not places:
        return []
    times, hashes = (np.concatenate(columns) for columns in zip(*places, strict=True))
    order = np.lexsort((hashes, times))
    chosen = order[part_rows // sample :: max(part_rows // sample, 1)]
    by_hash = runs[0].is_hashed
    cuts = dict.fromkeys((int(times[k]), int(hashes[k]) if by_hash else None) for k in chosen)
    return list(cuts)
