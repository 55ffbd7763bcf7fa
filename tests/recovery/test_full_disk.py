"""A disk that fills up, really: a small file system of its own for checkpoint, sink and landing."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import microbatch as mb
from tests.recovery import jobs
from tests.recovery.state import check

ROOM_BYTES = 8 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a file system, and not in every container")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, *, free_bytes: int) -> Path:
    """Leave only so much room, in a file of zeros."""
    filler = disk / "filler"
    found = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - free_bytes)
    return filler


@pytest.mark.parametrize("sink", ["delta-append", "delta-update", "files"])
def test_a_full_disk_stops_the_query_and_it_goes_on_when_there_is_room(disk: Path, sink: str) -> None:
    jobs.make_landing(disk / "landing", 3, sink)
    failures = 0
    # A little more room each time, so that it runs out in another place each time.
    for free_bytes in range(0, 40 * 4_096, 3 * 4_096):
        filler = fill(disk, free_bytes=free_bytes)
        try:
            jobs.query(disk, sink).run()
        except mb.MicrobatchError as error:
            told = f"{error} | {error.__cause__}"
            assert os.strerror(errno.ENOSPC) in told, told
            failures += 1
        finally:
            filler.unlink()
    assert failures >= 3
    jobs.query(disk, sink).run()
    check(disk, sink)
    hidden = [f for f in (disk / "checkpoint").rglob("*") if f.is_file() and f.name.startswith(".") and f.name != ".lock"]
    assert hidden == []  # no part of what did not fit
