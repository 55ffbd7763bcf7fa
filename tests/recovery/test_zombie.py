"""A run that is halted, loses its lock to another run and then goes on must change nothing: real processes, SIGSTOP and SIGCONT."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from microbatch.checkpoint.layout import LOCK
from tests.recovery import jobs
from tests.recovery.state import check

JOB = "import sys, pathlib; from tests.recovery import jobs; jobs.query(pathlib.Path(sys.argv[1]), sys.argv[2]).run()"


def run(root: Path, sink: str, fault: str | None = None) -> subprocess.Popen[str]:
    """Start the job in a process of its own."""
    environment = os.environ if fault is None else {**os.environ, "MICROBATCH_FAULT": fault}
    command = [sys.executable, "-c", JOB, str(root), sink]
    return subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], code: int) -> str:
    """Wait for a run to end with this code, and return what it said."""
    _, told = process.communicate()
    assert process.returncode == code, told
    return told


FAST = {("offsets_logged", "delta-append"), ("sink_files_written", "files"), ("sink_written", "delta-update")}


@pytest.mark.parametrize(
    ("point", "sink"),
    [
        pytest.param(point, sink, marks=[] if (point, sink) in FAST else pytest.mark.slow)
        for sink in jobs.SINKS
        for point in jobs.points_of(sink)
    ],
)
def test_a_halted_run_whose_checkpoint_was_taken_over_changes_nothing(tmp_path: Path, point: str, sink: str) -> None:
    jobs.make_landing(tmp_path / "landing", 2, sink)
    zombie = run(tmp_path, sink, f"{point}:3:SIGSTOP")
    try:
        assert os.WIFSTOPPED(os.waitpid(zombie.pid, os.WUNTRACED)[1])
        (tmp_path / "checkpoint" / LOCK).unlink()  # as a person does who takes the run for dead
        ended(run(tmp_path, sink), 0)
        check(tmp_path, sink)
    finally:
        zombie.send_signal(signal.SIGCONT)
        told = ended(zombie, 1)
    assert "another run" in told
    check(tmp_path, sink)
    ended(run(tmp_path, sink), 0)
    check(tmp_path, sink)
