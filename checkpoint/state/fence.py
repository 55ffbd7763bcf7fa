"""Runs larger than memory: a key costs the page it is in, not a page for each step of a bisection.

The *fence* of a run is the hash of every 512th row (4 KB of hashes), kept in memory and in a file beside the run, from which it can be made
again. A search in the fence says which page to look at; all pages of a batch are asked of the disk at once, before they are looked at.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

PAGE_ROWS = 512
_PAGE = mmap.PAGESIZE
_SUFFIX = ".fence"
_HEAD = struct.Struct("<8sIII")  # magic, crc32 of the run, rows of a page, crc32 of the fence
_MAGIC = b"MBFENCE1"
_LARGE_SHARE = 50  # batches of more keys than a fiftieth of the pages read better ahead than page by page (measured, 10 M rows)

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fence:
    """The fence of a mapped run, and the map to ask for pages."""

    firsts: Hashes
    mapped: mmap.mmap
    address: int

    def suits(self, n_keys: int) -> bool:
        """Return True, and tell the system not to read ahead, if so few keys are best found page by page; else that it may."""
        few = n_keys * _LARGE_SHARE <= len(self.mapped) // _PAGE
        self.mapped.madvise(mmap.MADV_RANDOM if few else mmap.MADV_NORMAL)
        return few

    def pages_of(self, sought: Hashes, n_rows: int) -> tuple[Rows, Rows]:
        """Return for each hash begin and end of the rows that hold the first one not smaller; if none of them is, it is the end."""
        page = np.searchsorted(self.firsts, sought).astype(np.int64)
        return np.maximum(page - 1, 0) * PAGE_ROWS, np.minimum(page * PAGE_ROWS, n_rows)

    def fetch_ahead(self, column: npt.NDArray[np.generic], rows: Rows) -> None:
        """Ask the disk for the pages of some rows of a column, all at once; a column that is no part of the map needs none."""
        begin = int(column.__array_interface__["data"][0]) - self.address
        if rows.size == 0 or not 0 <= begin < len(self.mapped):
            return
        pages = np.unique((begin + rows * column.itemsize) // _PAGE)
        breaks = np.flatnonzero(np.diff(pages) != 1) + 1
        for stretch in np.split(pages, breaks):
            self.mapped.madvise(mmap.MADV_WILLNEED, int(stretch[0]) * _PAGE, min(stretch.size * _PAGE, len(self.mapped)))


def open_fence(path: Path, run_crc: int, hashes: Hashes, mapped: mmap.mmap) -> Fence:
    """Return the fence of the run in the file at ``path``: from the file beside it, or made anew if that is missing or of another run."""
    address = int(np.frombuffer(mapped, dtype=np.uint8).__array_interface__["data"][0])
    beside = path.with_suffix(_SUFFIX)
    firsts = _read(beside, run_crc)
    if firsts is None or firsts.size != -(-hashes.size // PAGE_ROWS):
        firsts = hashes[::PAGE_ROWS].copy()
        data = firsts.astype("<u8").tobytes()
        # Derived, so it need not last, and a disk that is full or read-only is no reason to stop.
        with suppress(OSError):
            beside.write_bytes(_HEAD.pack(_MAGIC, run_crc, PAGE_ROWS, zlib.crc32(data)) + data)
    return Fence(firsts=firsts, mapped=mapped, address=address)


def remove_fence(path: Path) -> None:
    """Remove what lies beside a run's file."""
    path.with_suffix(_SUFFIX).unlink(missing_ok=True)


def _read(path: Path, run_crc: int) -> Hashes | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    head, body = data[: _HEAD.size], data[_HEAD.size :]
    if len(head) < _HEAD.size or _HEAD.unpack(head) != (_MAGIC, run_crc, PAGE_ROWS, zlib.crc32(body)) or len(body) % 8:
        return None
    return np.frombuffer(body, dtype="<u8").astype(np.uint64)


def available_bytes() -> int | None:
    """Return the memory the system could give without swapping; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
