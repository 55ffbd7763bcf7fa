"""A checkpoint in an object store, on a real S3 server: restarts, deaths and a second run, judged as those in a folder are."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

import microbatch as mb
from tests.recovery import jobs
from tests.recovery.state import check
from tests.recovery.test_crash_matrix import KILLED, Crasher
from tests.recovery.test_zombie import ended, run

SINK = jobs.IN_OBJECTS
POINTS = jobs.points_of(SINK)
FAST = {"state_written"}

pytestmark = pytest.mark.usefixtures("s3")


@pytest.fixture(scope="module")
def crasher(s3: str) -> Iterator[Crasher]:
    crasher = Crasher()
    yield crasher
    crasher.close()


def test_a_run_and_its_restarts_give_what_one_polars_query_gives(tmp_path: Path) -> None:
    jobs.make_landing(tmp_path / "landing", 3, SINK)
    late = sorted((tmp_path / "landing").iterdir())[7:]
    for file in late:
        file.rename(tmp_path / file.name)
    jobs.query(tmp_path, SINK).run()
    for file in late:
        (tmp_path / file.name).rename(file)
        jobs.query(tmp_path, SINK).run()
    assert not (tmp_path / "checkpoint").exists()
    closed = jobs.table(tmp_path, SINK)
    assert closed.height == closed.unique(["window_start", "key"]).height
    check(tmp_path, SINK)


@pytest.mark.parametrize("point", [pytest.param(point, marks=[] if point in FAST else pytest.mark.slow) for point in POINTS])
def test_a_batch_killed_at_a_fault_point_counts_once(tmp_path: Path, crasher: Crasher, point: str) -> None:
    jobs.make_landing(tmp_path / "landing", 1, SINK)
    assert crasher.run(tmp_path, SINK, fault=f"{point}:3") == KILLED
    assert crasher.run(tmp_path, SINK) == 0
    check(tmp_path, SINK)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_halted_run_whose_query_was_started_again_changes_nothing(tmp_path: Path, point: str) -> None:
    jobs.make_landing(tmp_path / "landing", 2, SINK)
    zombie = run(tmp_path, SINK, f"{point}:3:SIGSTOP")
    try:
        assert os.WIFSTOPPED(os.waitpid(zombie.pid, os.WUNTRACED)[1])
        ended(run(tmp_path, SINK), 0)  # no lock stands in its way
        check(tmp_path, SINK)
    finally:
        zombie.send_signal(signal.SIGCONT)
        told = ended(zombie, 1)
    assert "another run" in told
    check(tmp_path, SINK)


class Sums:
    """Sums per key, one batch a row added, on a checkpoint in the store."""

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        self.stream = mb.MemoryStream({"k": pl.Int64, "v": pl.Int64})
        self.seen: dict[int, list[Any]] = {}
        rows = self.stream.frame().group_by("k").agg(pl.col("v").sum())
        self.query = rows.sink_foreach_batch(
            lambda frame, batch_id: self.seen.update({batch_id: sorted(frame.rows())}), mode="update", checkpoint=self.checkpoint
        )

    def feed(self, values: range) -> None:
        for v in values:
            self.stream.add({"k": [v % 3], "v": [v]})
            self.query.run()

    def state(self, version: int | None = None) -> dict[int, int]:
        return dict(mb.read_state(self.checkpoint, version=version).select("k", pl.nth(1)).collect().rows())


def sums(n: int) -> dict[int, int]:
    """Sums of the numbers below n by their remainder."""
    return {k: sum(range(k, n, 3)) for k in range(min(n, 3))}


def test_a_second_query_is_stopped_at_its_first_logged_batch(tmp_path: Path) -> None:
    jobs.make_landing(tmp_path / "landing", 4, SINK)
    later = sorted((tmp_path / "landing").iterdir())[4:]
    for file in later:
        file.rename(tmp_path / file.name)
    first = jobs.query(tmp_path, SINK).start()
    first.process_all_available()
    second = jobs.query(tmp_path, SINK).start()
    for file in later:
        (tmp_path / file.name).rename(file)
    told = [str(error) for started in (first, second) if (error := outcome(started)) is not None]
    assert len(told) == 1
    assert "another run" in told[0]
    check(tmp_path, SINK)


def outcome(started: mb.StreamingQuery) -> mb.QueryFailedError | None:
    """Let a query do all there is, end it, and return what stopped it before that."""
    try:
        started.process_all_available()
    except mb.QueryFailedError as error:
        return error
    started.stop()
    return None


def test_the_state_can_be_read_and_the_query_rolled_back(s3: str, tmp_path: Path) -> None:
    job = Sums(f"{s3}/{tmp_path.name}")
    job.feed(range(4))
    assert job.state() == sums(4)
    assert job.state(version=3) == sums(3)
    changed = mb.read_state_changes(job.checkpoint, None, 2, 4).collect()
    assert changed["_version"].to_list() == [3, 4]
    mb.rollback(job.checkpoint, 1)
    assert job.state() == sums(2)
    job.query.run()
    assert job.state() == sums(4)


def test_no_checkpoint_in_the_store_is_told(s3: str) -> None:
    with pytest.raises(mb.PlanError, match=r"s3://checkpoints/nothing is no checkpoint: it has no file 'metadata'"):
        mb.read_state("s3://checkpoints/nothing")


def test_the_condition_is_what_the_server_keeps(s3: str, tmp_path: Path) -> None:
    files = fsspec.filesystem("s3")
    files.pipe_file(f"{s3}/{tmp_path.name}/x", b"1", mode="create")
    with pytest.raises(FileExistsError):
        files.pipe_file(f"{s3}/{tmp_path.name}/x", b"2", mode="create")
    assert files.cat_file(f"{s3}/{tmp_path.name}/x") == b"1"
