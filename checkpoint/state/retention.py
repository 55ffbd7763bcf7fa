"""Which state files may go: those that no retained version names and nobody is about to name."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from microbatch.checkpoint.state.delta_file import read_footer
from microbatch.checkpoint.state.fence import remove_fence
from microbatch.checkpoint.state.manifest import files_in
from microbatch.errors import CheckpointCorruptError

_EVERY = 16


class Retention:
    """Knows the files of the last versions. Used by the thread that writes deltas; ``protect`` by others, before a file exists.

    ``retain_versions`` are kept before the newest, which its commit may not name yet: the commit log keeps as many batches.
    """

    def __init__(self, root: Path, retain_versions: int) -> None:
        self._root = root
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
        for path in self._root.glob("*.delta"):
            try:
                footer = read_footer(path)
            except CheckpointCorruptError:
                continue  # half of an attempt at the moment of a crash: removed below, once it is old
            files.setdefault(footer["version"], set()).update({path.name, *files_in(footer)})
        return files

    def _remove_unneeded(self, version: int) -> None:
        assert self._files is not None
        # The folder first, then what is needed: what is made meanwhile is not in this list, what is in it was protected before it was made.
        there = [*self._root.glob("*.delta"), *self._root.glob("runs/*/*.arrow")]
        old = [self._files.pop(v) for v in sorted(self._files) if v < version - self._retain]
        with self._lock:
            self._protected.difference_update(*old)
            needed = self._protected.union(*self._files.values())
        for path in there:
            if path.relative_to(self._root).as_posix() not in needed:
                path.unlink(missing_ok=True)
                remove_fence(path)
