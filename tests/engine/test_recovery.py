"""From what lies in the two logs to where a query goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from microbatch.checkpoint.checkpoint import Checkpoint
from microbatch.engine.recovery import recover
from microbatch.errors import CheckpointCorruptError, CheckpointMismatchError
from microbatch.model import BatchCommit, BatchPlan, Marks

CONF = {"spark.sql.shuffle.partitions": "1"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    opened = Checkpoint.open(tmp_path / "checkpoint")
    yield opened
    opened.close()


def plan(batch_id: int, *, late: int | None = None, eviction: int | None = None) -> BatchPlan:
    marks = Marks(late_us=late, eviction_us=eviction)
    return BatchPlan(batch_id=batch_id, offsets=(batch_id * 10,), marks=marks, batch_time_us=5_000, conf=CONF)


def commit(batch_id: int, watermark: int | None = None) -> BatchCommit:
    own = {} if watermark is None else {"watermark-t": watermark}
    return BatchCommit(batch_id=batch_id, next_watermark_us=watermark, operator_watermarks_us=own, state=f"{batch_id}.delta")


def test_an_empty_checkpoint_begins_at_batch_0(checkpoint: Checkpoint) -> None:
    position = recover(checkpoint, 2)
    assert (position.next_batch_id, position.start, position.rerun, position.state_version) == (0, (None, None), None, 0)


def test_after_a_committed_batch_the_next_one_is_planned(checkpoint: Checkpoint) -> None:
    checkpoint.offsets.add(plan(0, eviction=7))
    checkpoint.commits.add(commit(0, 9))
    position = recover(checkpoint, 1)
    assert position.rerun is None
    assert (position.next_batch_id, position.start, position.state_version, position.state) == (1, (0,), 1, "0.delta")
    assert (position.previous_mark_us, position.watermark_us, position.operator_watermarks_us) == (7, 9, {"watermark-t": 9})


def test_the_watermark_does_not_fall_behind_the_logged_one(checkpoint: Checkpoint) -> None:
    checkpoint.offsets.add(plan(0, eviction=20))
    checkpoint.commits.add(commit(0, 9))
    assert recover(checkpoint, 1).watermark_us == 20


def test_an_uncommitted_batch_runs_again_as_logged(checkpoint: Checkpoint) -> None:
    checkpoint.offsets.add(plan(0))
    checkpoint.commits.add(commit(0, 3))
    logged = plan(1, late=None, eviction=3)
    checkpoint.offsets.add(logged)
    position = recover(checkpoint, 1)
    assert position.rerun == logged
    assert (position.start, position.state_version, position.state) == ((0,), 1, "0.delta")
    assert (position.previous_mark_us, position.watermark_us, position.operator_watermarks_us) == (None, 3, {"watermark-t": 3})


def test_an_uncommitted_first_batch_starts_before_the_first_row(checkpoint: Checkpoint) -> None:
    checkpoint.offsets.add(plan(0))
    position = recover(checkpoint, 1)
    assert position.rerun == plan(0)
    assert position.start == (None,)


def test_batches_between_the_last_commit_and_the_last_offsets_are_not_run_again(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    for batch_id in range(3):
        checkpoint.offsets.add(plan(batch_id))
    checkpoint.commits.add(commit(0))
    position = recover(checkpoint, 1)
    assert position.rerun == plan(2)
    assert position.start == (10,)
    assert "batch 2 was not committed, nor is the one before" in caplog.text


def test_a_batch_whose_start_is_unknown_stops_the_query(checkpoint: Checkpoint) -> None:
    for batch_id in range(3):
        checkpoint.offsets.add(plan(batch_id))
    checkpoint.offsets.purge_below(2)
    with pytest.raises(CheckpointCorruptError, match=r"batch 2 must run again, but batch 1 doesn't exist.*restore the folder"):
        recover(checkpoint, 1)


def test_another_number_of_sources_is_refused_with_both(checkpoint: Checkpoint) -> None:
    checkpoint.offsets.add(plan(0))
    with pytest.raises(CheckpointMismatchError, match="a query with 1 sources, this one has 2"):
        recover(checkpoint, 2)
