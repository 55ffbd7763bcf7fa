"""When runs are merged: size-tiered, the newest first, as universal compaction does it (RocksDB's name for it).

Merging four runs of like size makes one of the next size, so a row is rewritten once a tier; the oldest, large run is rewritten
only when the younger ones have grown to a quarter of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from microbatch.checkpoint.state.run import Run

TIER = 4
MOST_RUNS = 12
INLINE_ROWS = 20_000
FLUSH_BYTES = 64 << 20
FLUSH_DELTAS = 50


def runs_to_merge(runs: Sequence[Run]) -> Sequence[Run]:
    """Return the newest runs that should become one now, empty if none should.

    The next older run joins as long as it is at most ``TIER`` times as large as all younger ones together.
    """
    total, taken = 0, 0
    for run in runs:
        if taken and run.rows > TIER * total:
            break
        total += run.rows
        taken += 1
    if taken >= TIER:
        return runs[:taken]
    return runs if len(runs) > MOST_RUNS else []


def split_by_place(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Return the runs in memory and those in files; the former are the newer ones."""
    return [run for run in runs if run.file is None], [run for run in runs if run.file is not None]


def should_flush(in_memory: Sequence[Run]) -> bool:
    """Return True if the runs in memory hold too much, or depend on too many delta files."""
    n_bytes = sum(int(run.frame.estimated_size()) for run in in_memory)
    return n_bytes > FLUSH_BYTES or sum(len(run.deltas) for run in in_memory) > FLUSH_DELTAS
