"""Killed with SIGKILL at every fault point and at random moments, for every exactly-once sink: table and state equal the batch result."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recovery import jobs
from tests.recovery.state import check

KILLED = -9


class Crasher:
    """Runs a job in a process of its own that may be killed."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.recovery.crash_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def run(self, root: Path, sink: str, *, fault: str | None = None, die_after_ms: float | None = None) -> int:
        """Return the exit code: 0 for done, -9 for killed."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        command = {"root": str(root), "sink": sink, "fault": fault, "die_after_ms": die_after_ms}
        self._server.stdin.write(json.dumps(command) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self._server.communicate()


@pytest.fixture(scope="module")
def crasher() -> Iterator[Crasher]:
    crasher = Crasher()
    yield crasher
    crasher.close()


@pytest.mark.parametrize(("sink", "point"), [(sink, point) for sink in jobs.SINKS for point in jobs.points_of(sink)])
def test_a_batch_killed_at_a_fault_point_counts_once(tmp_path: Path, crasher: Crasher, point: str, sink: str) -> None:
    jobs.make_landing(tmp_path / "landing", 1, sink)
    # The third batch has state before it and closes windows.
    assert crasher.run(tmp_path, sink, fault=f"{point}:3") == KILLED
    assert crasher.run(tmp_path, sink) == 0
    check(tmp_path, sink)


@pytest.mark.parametrize("nth", [5, 6])
def test_a_batch_killed_between_files_and_commit_of_either_table_counts_once(tmp_path: Path, crasher: Crasher, nth: int) -> None:
    jobs.make_landing(tmp_path / "landing", 1, "delta-late")
    # Two tables a batch, written at the same time, so the fifth and sixth pass are those of the third batch.
    assert crasher.run(tmp_path, "delta-late", fault=f"sink_files_written:{nth}") == KILLED
    assert crasher.run(tmp_path, "delta-late") == 0
    check(tmp_path, "delta-late")


@pytest.mark.slow
@pytest.mark.parametrize("sink", jobs.SINKS)
@pytest.mark.parametrize("seed", range(5))
def test_killed_again_and_again_everything_counts_once(tmp_path: Path, crasher: Crasher, sink: str, seed: int) -> None:
    """Twelve deaths a run: at a random fault point or at a random moment."""
    rng = random.Random(seed)
    jobs.make_landing(tmp_path / "landing", seed, sink)
    deaths = 0
    while deaths < 12:
        if rng.random() < 0.5:
            code = crasher.run(tmp_path, sink, fault=f"{rng.choice(jobs.points_of(sink))}:{rng.randrange(1, 3)}")
        else:
            code = crasher.run(tmp_path, sink, die_after_ms=rng.uniform(5, 250))
        assert code in (0, KILLED)
        if code == 0:  # it finished before it died: begin anew, so that later deaths hit something
            check(tmp_path, sink)
            _begin_anew(tmp_path, rng.randrange(1_000_000), sink)
        deaths += code == KILLED
    assert crasher.run(tmp_path, sink) == 0
    check(tmp_path, sink)


def _begin_anew(root: Path, seed: int, sink: str) -> None:
    done = root / f"done-{seed}"
    done.mkdir()
    for name in ("landing", "checkpoint", "out", *(["late"] if sink == "delta-late" else [])):
        (root / name).rename(done / name)
    jobs.make_landing(root / "landing", seed, sink)
