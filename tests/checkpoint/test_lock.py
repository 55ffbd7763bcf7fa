"""A checkpoint has one run at a time."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from microbatch.checkpoint.lock import CheckpointLock
from microbatch.errors import CheckpointInUseError

HOLDER = """
import sys, pathlib
from microbatch.checkpoint.lock import CheckpointLock
lock = CheckpointLock.acquire(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_lock_makes_the_folder(tmp_path: Path) -> None:
    CheckpointLock.acquire(tmp_path / "new" / "checkpoint").release()

    assert (tmp_path / "new" / "checkpoint").is_dir()


def test_second_run_in_this_process_is_refused(tmp_path: Path) -> None:
    lock = CheckpointLock.acquire(tmp_path)
    said = f"the checkpoint {tmp_path} is in use by another run in this same process (process {os.getpid()} on host {platform.node()})"
    with pytest.raises(CheckpointInUseError, match=re.escape(said)):
        CheckpointLock.acquire(tmp_path)
    lock.release()


def test_second_run_in_another_thread_is_refused(tmp_path: Path) -> None:
    lock = CheckpointLock.acquire(tmp_path)
    refused: list[CheckpointInUseError] = []

    def start() -> None:
        try:
            CheckpointLock.acquire(tmp_path)
        except CheckpointInUseError as error:
            refused.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    lock.release()

    assert len(refused) == 1


def test_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    first = CheckpointLock.acquire(tmp_path)
    first.release()
    first.release()

    CheckpointLock.acquire(tmp_path).release()


def test_refusal_does_not_end_the_lock(tmp_path: Path) -> None:
    lock = CheckpointLock.acquire(tmp_path)
    for _ in range(2):
        with pytest.raises(CheckpointInUseError):
            CheckpointLock.acquire(tmp_path)
    lock.release()


def test_two_checkpoints_do_not_disturb_each_other(tmp_path: Path) -> None:
    locks = [CheckpointLock.acquire(tmp_path / name) for name in "ab"]
    for lock in locks:
        lock.release()


def test_lock_of_another_process_names_it_and_ends_with_it_however_it_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = (
            rf"in use by process {holder.pid} on host .*, so process {os.getpid()} on host .* cannot use it; stop it or wait for it to end"
        )
        with pytest.raises(CheckpointInUseError, match=said):
            CheckpointLock.acquire(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    CheckpointLock.acquire(tmp_path).release()
