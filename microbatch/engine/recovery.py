"""From the two logs to where a started query goes on (Spark: MicroBatchExecution.populateStartOffsets).

Let L be the newest entry of the offset log and C that of the commit log::

    no L                        -> batch 0, nothing read yet
    C = L                       -> batch L+1 from offsets(L); watermark = the later of L's logged and C's next
    C < L or no C               -> run batch L again exactly as logged, from offsets(L-1)
    L > 0 and no entry L-1      -> damaged: stop
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from microbatch.checkpoint.checkpoint import Checkpoint
from microbatch.engine.watermark import later
from microbatch.errors import CheckpointCorruptError, CheckpointMismatchError
from microbatch.model import BatchCommit, BatchPlan, Offset

_log = logging.getLogger("microbatch.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a run begins: the batch to run again, if any, and what the batch before it left.

    ``state`` names the delta of ``state_version``, as the commit of the batch before does; None: that batch kept no state, or, with
    ``commit_lost``, nothing is known of it.
    """

    rerun: BatchPlan | None
    next_batch_id: int
    start: tuple[Offset, ...]
    previous_mark_us: int | None
    watermark_us: int | None
    batch_time_us: int
    operator_watermarks_us: Mapping[str, int] = field(default_factory=dict[str, int])
    state_version: int
    state: str | None
    commit_lost: bool = False


def recover(checkpoint: Checkpoint, n_sources: int) -> Position:
    """Return the position of a query that starts on this checkpoint.

    Raises
    ------
    CheckpointMismatchError
        The logs were written for another number of sources.
    CheckpointCorruptError
        The logs contradict each other.
    """
    newest = checkpoint.offsets.latest()
    if newest is None:
        return Position(
            rerun=None,
            next_batch_id=0,
            start=(None,) * n_sources,
            previous_mark_us=None,
            watermark_us=None,
            batch_time_us=0,
            state_version=0,
            state=None,
        )
    if len(newest.offsets) != n_sources:
        msg = (
            f"checkpoint {checkpoint.folder.path} was written by a query with {len(newest.offsets)} sources, this one has {n_sources}; "
            f"restore the old query or take a new checkpoint"
        )
        raise CheckpointMismatchError(msg)
    commit = checkpoint.commits.get(newest.batch_id)
    return _run_again(checkpoint, newest) if commit is None else _go_on(newest, commit)


def _go_on(newest: BatchPlan, commit: BatchCommit) -> Position:
    return Position(
        rerun=None,
        next_batch_id=newest.batch_id + 1,
        start=newest.offsets,
        previous_mark_us=newest.marks.eviction_us,
        watermark_us=later(newest.marks.eviction_us, commit.next_watermark_us),
        batch_time_us=newest.batch_time_us,
        operator_watermarks_us=commit.operator_watermarks_us,
        state_version=newest.batch_id + 1,
        state=commit.state,
    )


def _run_again(checkpoint: Checkpoint, newest: BatchPlan) -> Position:
    before = _entry_before(checkpoint, newest)
    commit = checkpoint.commits.get(newest.batch_id - 1) if newest.batch_id else None
    if newest.batch_id and commit is None:
        _log.warning("batch %d was not committed, nor is the one before; running %d again", newest.batch_id, newest.batch_id)
    return Position(
        rerun=newest,
        next_batch_id=newest.batch_id,
        start=before.offsets if before else (None,) * len(newest.offsets),
        previous_mark_us=newest.marks.late_us,
        watermark_us=newest.marks.eviction_us,
        batch_time_us=newest.batch_time_us,
        operator_watermarks_us=commit.operator_watermarks_us if commit else {},
        state_version=newest.batch_id,
        state=commit.state if commit else None,
        commit_lost=newest.batch_id > 0 and commit is None,
    )


def _entry_before(checkpoint: Checkpoint, newest: BatchPlan) -> BatchPlan | None:
    if newest.batch_id == 0:
        return None
    before = checkpoint.offsets.get(newest.batch_id - 1)
    if before is None:
        msg = (
            f"checkpoint {checkpoint.folder.path}: batch {newest.batch_id} must run again, but batch {newest.batch_id - 1} doesn't exist "
            f"in offsets/, so its start is unknown; restore the folder from a copy"
        )
        raise CheckpointCorruptError(msg)
    return before
