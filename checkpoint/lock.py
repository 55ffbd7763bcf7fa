"""One run per checkpoint."""

from __future__ import annotations

import fcntl
import os
import platform
from io import FileIO
from pathlib import Path

from microbatch.checkpoint.atomic import error_names, make_folder
from microbatch.checkpoint.layout import LOCK
from microbatch.errors import CheckpointInUseError


class CheckpointLock:
    """The sole right to use a checkpoint, held from ``acquire`` to ``release``.

    It is an advisory lock of the operating system (flock) on ``<checkpoint>/.lock``, so it ends with its process, however that
    ends. The file stays; what it says (process, host) serves the message of the one who comes second. A process forked while the
    lock is held shares it until that process ends too.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file

    @classmethod
    def acquire(cls, path: Path) -> CheckpointLock:
        """Take the lock of the checkpoint folder at ``path``, making the folder if need be; never waits.

        Raises CheckpointInUseError if another run holds it, be it in this process.
        """
        make_folder(path)
        # Not "wb": that would empty the file before we know that it is ours.
        file = (path / LOCK).open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                file.seek(0)
                holder = file.read(200).decode(errors="replace").strip()
            raise _in_use(path, holder) from error
        lock = cls(file)
        try:
            with error_names(path / LOCK):
                file.truncate(0)
                file.write(_myself().encode())
        except OSError:
            lock.release()
            raise
        return lock

    def release(self) -> None:
        """Give the lock back; nothing to do if that was done."""
        if not self._file.closed:
            # Emptied first: a name left here would be shown as the holder's while the next one writes its own.
            self._file.truncate(0)
            self._file.close()


def _myself() -> str:
    return f"process {os.getpid()} on host {platform.node()}"


def _in_use(path: Path, holder: str) -> CheckpointInUseError:
    if holder == _myself():
        who, way_out = f"another run in this same process ({holder})", "stop that run first"
    else:
        who, way_out = holder or "another process", "stop it or wait for it to end"
    msg = f"the checkpoint {path} is in use by {who}, so {_myself()} cannot use it; {way_out}, or take another checkpoint for another query"
    return CheckpointInUseError(msg)
