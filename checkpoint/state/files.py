"""Where the files of the state lie: in a local folder, or in an object store with copies here, for runs are mapped."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.object_folder import ObjectFolder
from microbatch.checkpoint.place import CheckpointFolder
from microbatch.checkpoint.state.fence import remove_fence
from microbatch.clock import new_uuid
from microbatch.errors import CheckpointCorruptError

CACHE = "MICROBATCH_CACHE"
_PATTERNS = ("*.delta", "runs/*/*.arrow")
_NAMES = re.compile(r"(runs/[^/]+/\d{20}-[^/]*\.arrow)|(\d{20}-[^/]*\.delta)")  # what others put beside them is none of ours


class StateFiles(Protocol):
    """The files of the state, by their paths below its folder; each is written once, under a name nobody else takes.

    Attributes
    ----------
    root
        The local folder in which files are read and runs are made.
    is_locked
        True if no other run can write here meanwhile.
    """

    root: Path
    is_locked: bool

    @property
    def path(self) -> str:
        """Where they last, for messages."""
        ...

    def fetch(self, names: Iterable[str]) -> None:
        """Let files be below ``root``. Raises CheckpointCorruptError if one is missing and that is known here."""
        ...

    def add(self, name: str, data: bytes) -> bool:
        """Write a file so that it lasts; False if it exists."""
        ...

    def publish(self, name: str) -> None:
        """Let a file last that was made, durably, below ``root``."""
        ...

    def names(self) -> list[str]:
        """Return all deltas and runs there are."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file and what lies beside it; no error if it is gone."""
        ...

    def close(self) -> None:
        """Give back what was opened; maps stay."""
        ...


def state_files(folder: CheckpointFolder) -> StateFiles:
    """Return the files of the state in a folder."""
    return ObjectFiles(folder) if isinstance(folder, ObjectFolder) else LocalFiles(folder)


class LocalFiles:
    """Files of the state that are used where they lie."""

    is_locked = True

    def __init__(self, folder: LocalFolder) -> None:
        self.root = Path(folder.path)
        self.add = folder.add

    @property
    def path(self) -> str:
        """The folder."""
        return str(self.root)

    def fetch(self, names: Iterable[str]) -> None:
        """Do nothing."""

    def publish(self, name: str) -> None:
        """Do nothing."""

    def names(self) -> list[str]:
        """Return all deltas and runs there are."""
        return _names_in(self.root)

    def remove(self, name: str) -> None:
        """Remove a file and what lies beside it."""
        _remove_from(self.root, name)

    def close(self) -> None:
        """Do nothing."""


class ObjectFiles:
    """Files of the state in an object store; those that are read are copied once into a local folder.

    That folder is one of this checkpoint's own below ``MICROBATCH_CACHE``, which a restart on the same machine finds again, or a temporary
    one. A run made here is uploaded, by the thread that made it, before any delta names it; a delta is one PUT and not copied.
    """

    is_locked = False

    def __init__(self, folder: ObjectFolder) -> None:
        self._folder = folder
        self.add = folder.add
        kept = os.environ.get(CACHE)
        if kept:
            self.root = Path(kept).expanduser().absolute() / hashlib.sha256(folder.path.encode()).hexdigest()[:32]
            self.root.mkdir(parents=True, exist_ok=True)
            self._forget = None
        else:
            self.root = Path(tempfile.mkdtemp(prefix="microbatch-state-"))
            self._forget = weakref.finalize(self, shutil.rmtree, self.root, ignore_errors=True)

    @property
    def path(self) -> str:
        """The URL."""
        return self._folder.path

    def fetch(self, names: Iterable[str]) -> None:
        """Copy the files that are not here yet, many at a time; a copy that is cut short is not seen."""
        wanted = sorted({name for name in names if not (self.root / name).exists()})
        if not wanted:
            return
        arriving = self.root / f".{new_uuid()}"
        try:
            self._folder.download(wanted, arriving)
            for name in wanted:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                _sync(arriving / name)
                (arriving / name).replace(self.root / name)
        except FileNotFoundError as error:
            there = set(self._folder.below())
            missing = next((name for name in wanted if name not in there), str(error))
            msg = f"state file {self.path}/{missing} is missing; restore the checkpoint from a copy; nothing was changed"
            raise CheckpointCorruptError(msg) from error
        finally:
            shutil.rmtree(arriving, ignore_errors=True)

    def publish(self, name: str) -> None:
        """Upload a file."""
        self._folder.upload(name, self.root / name)

    def names(self) -> list[str]:
        """Return all deltas and runs there are, in the store or here."""
        return sorted(name for name in {*self._folder.below(), *_names_in(self.root)} if _NAMES.fullmatch(name))

    def remove(self, name: str) -> None:
        """Remove a file there and here."""
        self._folder.remove(name)
        _remove_from(self.root, name)

    def close(self) -> None:
        """Remove a temporary folder."""
        if self._forget is not None:
            self._forget()


def _names_in(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for pattern in _PATTERNS for path in root.glob(pattern)]


def _remove_from(root: Path, name: str) -> None:
    (root / name).unlink(missing_ok=True)
    remove_fence(root / name)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
