"""A checkpoint opens when its query can go on from it, and says why when not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from microbatch.checkpoint.checkpoint import Checkpoint
from microbatch.errors import CheckpointCorruptError, CheckpointInUseError, CheckpointMismatchError, PlanError
from microbatch.model import BatchCommit, BatchPlan, Marks


def plan(batch_id: int, *offsets: int) -> BatchPlan:
    return BatchPlan(batch_id=batch_id, offsets=offsets, marks=Marks(late_us=None, eviction_us=None), batch_time_us=0)


def used(path: Path, n_batches: int = 3) -> str:
    """Leave a checkpoint as a query of one source would after some batches, and return its query id."""
    checkpoint = Checkpoint.open(path)
    for batch_id in range(n_batches):
        checkpoint.offsets.add(plan(batch_id, batch_id))
        checkpoint.commits.add(BatchCommit(batch_id=batch_id, next_watermark_us=None))
    checkpoint.close()
    return checkpoint.query_id


def test_new_checkpoint_has_an_identity_and_empty_logs(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "new")

    assert checkpoint.query_id in (tmp_path / "new" / "metadata").read_text()
    assert checkpoint.offsets.latest() is None
    assert checkpoint.commits.latest() is None
    checkpoint.close()


def test_reopened_checkpoint_goes_on(tmp_path: Path) -> None:
    query_id = used(tmp_path)
    checkpoint = Checkpoint.open(f"file://{tmp_path}", n_sources=1)

    assert checkpoint.query_id == query_id
    assert checkpoint.offsets.latest() == plan(2, 2)
    assert checkpoint.commits.latest() == BatchCommit(batch_id=2, next_watermark_us=None)
    checkpoint.close()


def test_places_are_spark_s(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.source_folder(1).add("0", b"x")
    checkpoint.state_folder.add("1.delta", b"x")
    checkpoint.offsets.add(plan(0, 0))
    checkpoint.commits.add(BatchCommit(batch_id=0, next_watermark_us=None))
    checkpoint.close()

    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()) == [
        ".lock",
        "commits/0",
        "metadata",
        "offsets/0",
        "sources/1/0",
        "state/1.delta",
    ]


def test_facts_outlive_a_run(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.facts() == {}
    checkpoint.note({"operators": {"agg0": {"kind": "aggregate"}}})
    checkpoint.close()

    again = Checkpoint.open(tmp_path)
    assert again.facts() == {"operators": {"agg0": {"kind": "aggregate"}}}
    again.close()


def test_purge_goes_through_both_logs(tmp_path: Path) -> None:
    used(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.purge_below(1)

    assert (checkpoint.offsets.ids(), checkpoint.commits.ids()) == ([1, 2], [1, 2])
    checkpoint.close()


def test_second_run_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    first = Checkpoint.open(tmp_path)
    with pytest.raises(CheckpointInUseError):
        Checkpoint.open(tmp_path)
    first.close()
    first.close()

    Checkpoint.open(tmp_path).close()


def test_folder_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet").touch()
    with pytest.raises(CheckpointMismatchError):
        Checkpoint.open(tmp_path)

    assert [file.name for file in tmp_path.iterdir()] == ["part-0.parquet"]


def test_other_storage_is_refused() -> None:
    with pytest.raises(PlanError, match="memory://"):
        Checkpoint.open("memory://bucket/checkpoint")


@pytest.mark.parametrize("trace", ["offsets/notes.txt", "commits/0", "state/runs/agg0/0/1.arrow"])
def test_traces_of_batches_without_offsets_are_refused(tmp_path: Path, trace: str) -> None:
    Checkpoint.open(tmp_path).close()
    (tmp_path / trace).parent.mkdir(parents=True)
    (tmp_path / trace).write_text("v1\n{}")

    with pytest.raises(
        CheckpointCorruptError,
        match=re.escape(f"no readable entry in offsets, so its query would begin anew, but {tmp_path}/{trace} is there"),
    ):
        Checkpoint.open(tmp_path)


def test_crash_before_the_first_offsets_is_no_trace(tmp_path: Path) -> None:
    Checkpoint.open(tmp_path).close()
    for left in ("offsets/.0.1234.tmp", "sources/0/0"):
        (tmp_path / left).parent.mkdir(parents=True)
        (tmp_path / left).write_text("v1\n")
    (tmp_path / "state" / "runs").mkdir(parents=True)

    Checkpoint.open(tmp_path).close()


def test_lost_identity_is_refused(tmp_path: Path) -> None:
    used(tmp_path)
    (tmp_path / "metadata").unlink()

    with pytest.raises(CheckpointCorruptError, match=re.escape(f"{tmp_path}/metadata is missing, so sinks could not tell")):
        Checkpoint.open(tmp_path)


def test_another_number_of_sources_is_refused(tmp_path: Path) -> None:
    used(tmp_path)

    with pytest.raises(CheckpointMismatchError, match="offsets of 1 sources, the query reads 2"):
        Checkpoint.open(tmp_path, n_sources=2)


@pytest.mark.parametrize(("name", "text"), [("offsets/2", "v1\n{"), ("metadata", ""), ("microbatch.json", '{"format":99}')])
def test_damage_is_refused_and_the_lock_given_back(tmp_path: Path, name: str, text: str) -> None:
    used(tmp_path)
    whole = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else b'{"format":1}'
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointCorruptError, match=re.escape(f"{tmp_path}/{name}")):
        Checkpoint.open(tmp_path)
    (tmp_path / name).write_bytes(whole)

    Checkpoint.open(tmp_path).close()
