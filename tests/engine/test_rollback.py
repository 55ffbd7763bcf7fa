"""Back to an earlier batch: what the query does then, what a rollback that dies leaves, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb
from microbatch.checkpoint.atomic import LocalFolder

BATCHES = 8


class Job:
    """Sums per key, one batch a row added; the stream keeps its rows, so they can be read again."""

    def __init__(self, folder: Path, *, stateful: bool = True, **options: Any) -> None:
        self.stream = mb.MemoryStream({"k": pl.Int64, "v": pl.Int64})
        self.checkpoint = folder / "checkpoint"
        rows = self.stream.frame().group_by("k").agg(pl.col("v").sum()) if stateful else self.stream.frame()
        self.seen: dict[int, list[Any]] = {}
        mode = "update" if stateful else "append"
        self.query = rows.sink_foreach_batch(
            lambda frame, batch_id: self.seen.update({batch_id: sorted(frame.rows())}), mode=mode, checkpoint=self.checkpoint, **options
        )
        for v in range(BATCHES):
            self.stream.add({"k": [v % 3], "v": [v]})
            self.query.run()

    def sums(self) -> list[tuple[int, int]]:
        return sorted(mb.read_state(self.checkpoint).select("k", pl.nth(1)).collect().rows())


SUMS = [(0, 0 + 3 + 6), (1, 1 + 4 + 7), (2, 2 + 5)]


def log_ids(checkpoint: Path, log: str) -> list[int]:
    return sorted(int(f.name) for f in (checkpoint / log).iterdir() if f.name.isdigit())


@pytest.mark.parametrize("batch_id", [0, 3, 7])
def test_the_next_run_goes_on_behind_the_batch_gone_back_to(tmp_path: Path, batch_id: int) -> None:
    job = Job(tmp_path)
    before = {k: rows for k, rows in job.seen.items() if k > batch_id}
    mb.rollback(job.checkpoint, batch_id)
    assert log_ids(job.checkpoint, "commits") == log_ids(job.checkpoint, "offsets") == list(range(batch_id + 1))
    assert dict(job.sums()) == {k: sum(v for v in range(batch_id + 1) if v % 3 == k) for k in range(min(batch_id + 1, 3))}
    job.seen.clear()
    job.query.run()
    assert job.sums() == SUMS
    # The rows come again in one batch, for that is how much there is now.
    assert list(job.seen) == ([batch_id + 1] if before else [])


def test_a_query_without_state_can_go_back_too(tmp_path: Path) -> None:
    job = Job(tmp_path, stateful=False)
    with pytest.raises(mb.PlanError, match="retained are none"):
        mb.read_state(job.checkpoint)
    mb.rollback(job.checkpoint, 5)
    job.seen.clear()
    job.query.run()
    assert job.seen == {6: [(0, 6), (1, 7)]}


class DiedError(Exception):
    """The process is gone."""


@pytest.mark.parametrize("step", range(0, 20, 3))
def test_a_rollback_that_dies_leaves_a_query_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    job = Job(tmp_path)
    removals = iter(range(10_000))
    remove = LocalFolder.remove

    def dying(folder: LocalFolder, name: str) -> None:
        if next(removals) == step:
            raise DiedError
        remove(folder, name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFolder, "remove", dying)
        with pytest.raises(DiedError):
            mb.rollback(job.checkpoint, 2)
    if random.Random(step).random() < 0.5:
        mb.rollback(job.checkpoint, 2)
        assert log_ids(job.checkpoint, "commits") == log_ids(job.checkpoint, "offsets") == [0, 1, 2]
    job.query.run()
    assert job.sums() == SUMS


def test_a_batch_that_is_not_retained_or_not_done_is_refused_with_those_that_are(tmp_path: Path) -> None:
    job = Job(tmp_path, retain_batches=4)
    for batch_id in (-1, 1, BATCHES):
        with pytest.raises(mb.PlanError, match=f"batch {batch_id} is not one to go back to; finished and retained are 3 to 7"):
            mb.rollback(job.checkpoint, batch_id)
    mb.rollback(job.checkpoint, 3)
    job.query.run()
    assert job.sums() == SUMS


def test_a_batch_whose_state_is_damaged_is_refused_and_nothing_changed(tmp_path: Path) -> None:
    job = Job(tmp_path)
    delta = min(job.checkpoint.glob("state/*3-*.delta"))
    delta.write_bytes(delta.read_bytes()[:-1])
    with pytest.raises(mb.CheckpointCorruptError, match=f"{delta} is damaged"):
        mb.rollback(job.checkpoint, 3)
    assert log_ids(job.checkpoint, "commits") == list(range(BATCHES))


def test_a_running_query_is_not_taken_back(tmp_path: Path) -> None:
    job = Job(tmp_path)
    with job.query.start(), pytest.raises(mb.CheckpointInUseError):
        mb.rollback(job.checkpoint, 3)


def test_a_folder_that_is_no_checkpoint_is_refused_and_not_made_one(tmp_path: Path) -> None:
    with pytest.raises(mb.PlanError, match="is no checkpoint"):
        mb.rollback(tmp_path / "nothing", 3)
    assert not (tmp_path / "nothing").exists()
