"""Which state files may go: those that no retained version names and nobody is about to name."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from microbatch.checkpoint.state.delta_file import read_footer
from microbatch.checkpoint.state.files import StateFiles
from microbatch.checkpoint.state.manifest import files_in
from microbatch.errors import CheckpointCorruptError

_EVERY = 16


class Retention:
    """Knows the files of the last versions. Used by the thread that writes deltas; ``protect`` by others, before a file exists.

    ``retain_versions`` are kept before the newest, which its commit may not name yet: the commit log keeps as many batches.

    Where no lock keeps another run away, files younger than that stay, whoever made them: a run that was taken for dead and wakes up must
    not remove what its successor made. Older ones that the successor needs were there before the two parted, so both know them.
    """

    def __init__(self, place: StateFiles, retain_versions: int) -> None:
        self._place = place
        self._retain = retain_versions
        self._files: dict[int, set[str]] | None = None
        self._protected: set[str] = set()
        self._lock = threading.Lock()

    def protect(self, name: str) -> None:
        """Keep a file that no version names yet, as long as this process lives or until a version that named it has gone."""
        with self._lock:
            self._protected.add(name)

    def note(self, version: int, files: Iterable[str]) -> None:
        """Remember what a version is made of, and now and then remove what none needs."""
        if self._files is None:
            self._files = self._recorded()
        self._files[version] = set(files)
        if version % _EVERY == 0:
            self._remove_unneeded(version)

    def _recorded(self) -> dict[int, set[str]]:
        """Return the files named by the deltas that lie here, attempts nobody committed included: they age like the others."""
        files: dict[int, set[str]] = {}
        deltas = [name for name in self._place.names() if name.endswith(".delta")]
        self._place.fetch(deltas)
        for name in deltas:
            try:
                footer = read_footer(self._place.root / name)
            except CheckpointCorruptError:
                continue  # half of an attempt at the moment of a crash: removed below, once it is old
            files.setdefault(footer["version"], set()).update({name, *files_in(footer)})
        return files

    def _remove_unneeded(self, version: int) -> None:
        assert self._files is not None
        # The folder first, then what is needed: what is made meanwhile is not in this list, what is in it was protected before it was made.
        there = self._place.names()
        old = [self._files.pop(v) for v in sorted(self._files) if v < version - self._retain]
        with self._lock:
            self._protected.difference_update(*old)
            needed = self._protected.union(*self._files.values())
        for name in there:
            if name not in needed and (self._place.is_locked or _number(name) < version - self._retain):
                self._place.remove(name)


def _number(name: str) -> int:
    """Return the version a file was begun at, with which its name begins."""
    return int(name.rpartition("/")[2][:20])
