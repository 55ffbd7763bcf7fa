"""Fault points: nothing in production, SIGKILL at the pass a test asks for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from microbatch.faults import FAULT_POINTS, arm, fault_point

ROOT = Path(__file__).parents[1]


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The signals sent instead of being sent; the process is unarmed again behind the test."""
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number if pid == os.getpid() else -1))
    yield sent
    arm(None)


def test_an_unarmed_point_does_nothing(deaths: list[int]) -> None:
    arm(None)
    for name in FAULT_POINTS:
        fault_point(name)
    assert deaths == []


def test_the_process_dies_at_the_first_pass_by_default(deaths: list[int]) -> None:
    arm("sink_written")
    fault_point("state_written")
    assert deaths == []
    fault_point("sink_written")
    assert deaths == [signal.SIGKILL]


def test_the_process_dies_at_the_pass_asked_for(deaths: list[int]) -> None:
    arm("rows_read:3")
    for _ in range(2):
        fault_point("rows_read")
    assert deaths == []
    fault_point("rows_read")
    assert deaths == [signal.SIGKILL]


def test_arming_again_counts_anew(deaths: list[int]) -> None:
    arm("rows_read:2")
    fault_point("rows_read")
    arm("rows_read:2")
    fault_point("rows_read")
    assert deaths == []


def test_names_are_distinct() -> None:
    assert len(set(FAULT_POINTS)) == len(FAULT_POINTS)


def test_every_point_is_passed_somewhere_in_the_package() -> None:
    """A name nobody passes would make its row of the crash matrix pass without a crash."""
    package = [f for top in ("microbatch", "sources", "sinks", "checkpoint") for f in (ROOT / top).rglob("*.py") if f.name != "faults.py"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in package)
    assert [name for name in FAULT_POINTS if f'fault_point("{name}")' not in text] == []


def test_the_environment_arms_a_process_at_its_start() -> None:
    # The file alone: importing the package would cost a second.
    program = f"import runpy; runpy.run_path({str(ROOT / 'microbatch' / 'faults.py')!r})['fault_point']('sink_written')"
    died = subprocess.run([sys.executable, "-c", program], env={**os.environ, "MICROBATCH_FAULT": "sink_written:1"}, check=False)
    assert died.returncode == -signal.SIGKILL
    lived = subprocess.run([sys.executable, "-c", program], env={**os.environ, "MICROBATCH_FAULT": "sink_written:2"}, check=False)
    assert lived.returncode == 0
