"""Which files a source has met: a compact set of path hashes and a mark below which files count as too old."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

_Hashes: TypeAlias = npt.NDArray[np.uint64]
_Times: TypeAlias = npt.NDArray[np.int64]


class SeenFiles:
    """The files met so far, as far as they can still matter (Spark: FileStreamSource.SeenFilesMap).

    A path is kept as a 64-bit hash: 16 bytes a file, 8 once it is older than the mark. The chance that one of a million
    files is taken for another is 3 in 10**8.

    Parameters
    ----------
    max_age_us
        How much older than the newest file met a file may be and still count as new, microseconds; None: any age.

    Examples
    --------
    >>> seen = SeenFiles(max_age_us=10)
    >>> seen.add("a", 20)
    >>> seen.purge()
    0
    >>> seen.is_new("b", 9), seen.is_new("b", 10), seen.is_new("a", 20)
    (False, True, False)
    """

    def __init__(self, *, max_age_us: int | None) -> None:
        self._max_age_us = max_age_us
        self._hashes: _Hashes = np.empty(0, dtype=np.uint64)  # ascending
        self._mtimes_us: _Times = np.empty(0, dtype=np.int64)
        self._purged: _Hashes = np.empty(0, dtype=np.uint64)  # ascending
        self._newest_us: int | None = None
        self._mark_us: int | None = None

    def __len__(self) -> int:
        """How many files are kept; purged ones do not count."""
        return len(self._hashes)

    def add(self, path: str, mtime_us: int) -> None:
        """Note one file; its time replaces the one noted before."""
        self.add_all(pl.DataFrame({"path": [path], "mtime_us": [mtime_us]}))

    def add_all(self, files: pl.DataFrame) -> None:
        """Note files, columns ``path`` and ``mtime_us``; costs a copy of the whole set, so add in bulk."""
        if files.is_empty():
            return
        latest = files.unique("path", keep="last", maintain_order=True) if files.height > 1 else files
        hashes = _hashes(latest["path"])
        order = np.argsort(hashes)
        hashes, mtimes_us = hashes[order], latest["mtime_us"].to_numpy()[order]
        at, known = _find(self._hashes, hashes)
        self._mtimes_us[at[known]] = mtimes_us[known]
        self._hashes = np.insert(self._hashes, at[~known], hashes[~known])
        self._mtimes_us = np.insert(self._mtimes_us, at[~known], mtimes_us[~known])
        newest_us = int(mtimes_us.max())
        self._newest_us = newest_us if self._newest_us is None else max(self._newest_us, newest_us)

    def unknown(self, paths: pl.Series) -> pl.Series:
        """Return True for each path that is not kept; whether it is new is then a matter of its time."""
        return pl.Series(~_find(self._hashes, _hashes(paths))[1])

    def is_new(self, path: str, mtime_us: int) -> bool:
        """Return True if a file is not kept and not older than the mark."""
        return bool(self.unknown(pl.Series([path]))[0]) and (self._mark_us is None or mtime_us >= self._mark_us)

    def new(self, files: pl.DataFrame) -> pl.DataFrame:
        """Return the files that are new, in their order."""
        fresh = files.filter(self.unknown(files["path"]))
        return fresh if self._mark_us is None else fresh.filter(pl.col("mtime_us") >= self._mark_us)

    def aged_out(self, files: pl.DataFrame) -> pl.DataFrame:
        """Return the files that were never met and never will be new, because they are older than the mark."""
        if self._mark_us is None:
            return files.clear()
        old = files.filter(self.unknown(files["path"])).filter(pl.col("mtime_us") < self._mark_us)
        return old.filter(pl.Series(~_find(self._purged, _hashes(old["path"]))[1]))

    def purge(self) -> int:
        """Move the mark to the newest time met less ``max_age_us``, forget the files before it, and return how many those were."""
        if self._max_age_us is None or self._newest_us is None:
            return 0
        self._mark_us = self._newest_us - self._max_age_us
        old = self._mtimes_us < self._mark_us
        if old.any():
            self._purged = np.union1d(self._purged, self._hashes[old])
            self._hashes, self._mtimes_us = self._hashes[~old], self._mtimes_us[~old]
        return int(old.sum())


def _hashes(paths: pl.Series) -> _Hashes:
    # Stable within one version of Polars, which is enough: the set is built anew from the log at each start.
    return paths.cast(pl.String).hash(0).to_numpy().astype(np.uint64)


def _find(within: _Hashes, hashes: _Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Return where each hash stands or would stand in a sorted array, and whether it is there."""
    at = np.searchsorted(within, hashes)
    known = np.zeros(len(hashes), dtype=np.bool_)
    inside = at < len(within)
    known[inside] = within[at[inside]] == hashes[inside]
    return at, known
