"""A run: rows of one table, sorted by (time, hash) and never changed; in memory, or a file mapped by us."""

from __future__ import annotations

import itertools
import mmap
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from microbatch.checkpoint.atomic import error_names, make_folder, sync_folder
from microbatch.checkpoint.state.fence import Fence, open_fence
from microbatch.checkpoint.state.hashing import HASH, TIME, directory, hash_order, order_columns
from microbatch.errors import CheckpointCorruptError
from microbatch.protocols import TableSpec

_uids = itertools.count()
_PIECE_BYTES = 4 << 20
_VERIFIED_BYTES = 16 << 20  # some 10 ms at 2 GB/s


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaRef:
    """Where a batch's rows of one table lie: a stream within a delta file; ``order`` names the hash function they are sorted by."""

    file: str
    offset: int
    length: int
    crc: int
    rows: int
    order: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A run's file, by its path below the state folder; ``order`` names the hash function it is sorted by."""

    file: str
    rows: int
    bytes: int
    crc: int
    order: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Sorted rows with a directory of their times; ``first`` is the first row no watermark has passed.

    It lasts through ``file``, or else through the ``deltas`` it was made of; ``uid`` names the rows whatever is evicted of them.
    """

    frame: pl.DataFrame
    first: int = 0
    file: FileRef | None = None
    deltas: tuple[DeltaRef, ...] = ()
    uid: int = field(default_factory=lambda: next(_uids))
    views: dict[str, Column] = field(default_factory=dict)
    due: dict[int, npt.NDArray[np.generic]] = field(default_factory=dict)
    fence: Fence | None = None

    @property
    def group(self) -> str | int:
        """What the parts of one run have in common."""
        return self.file.file.rpartition("/")[2].split(".")[0] if self.file else self.uid

    @property
    def rows(self) -> int:
        """Rows that are alive here, newer versions in other runs aside."""
        return self.frame.height - self.first

    @property
    def live(self) -> pl.DataFrame:
        """The rows that are alive, without copying."""
        return self.frame[self.first :] if self.first else self.frame

    def piece(self, begin: int, end: int) -> Run:
        """Return some of the rows as a run in memory, without copying."""
        return Run(frame=self.frame[begin:end])

    @property
    def is_hashed(self) -> bool:
        """Return False for logs, which are sorted by time only."""
        return HASH in self.frame.columns

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """The hash column."""
        return self.frame[HASH].to_numpy()

    @cached_property
    def times(self) -> npt.NDArray[np.int64]:
        """The time column."""
        return self.frame[TIME].to_numpy()

    @cached_property
    def segments(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Distinct times, and the row each begins at."""
        return directory(self.times)

    @property
    def first_time(self) -> int:
        """The time of the first row that is alive."""
        times, starts = self.segments
        return int(times[np.searchsorted(starts, self.first)])

    def row_after(self, mark_us: int) -> int:
        """Return the first row whose time is after the mark."""
        return int(np.searchsorted(self.times, mark_us, side="right"))

    def row_of(self, time_us: int, hashed: int | None) -> int:
        """Return the first live row at or behind a place of the order; ``hashed`` None: at or after the time."""
        low = int(np.searchsorted(self.times, time_us))
        if hashed is not None:
            high = int(np.searchsorted(self.times, time_us, side="right"))
            low += int(np.searchsorted(self.hashes[low:high], np.uint64(hashed)))
        return max(low, self.first)

    def places(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Return time and hash (0 in logs) of every ``step``-th live row."""
        times = self.times[self.first :: step]
        return times, self.hashes[self.first :: step] if self.is_hashed else np.zeros(times.size, dtype=np.uint64)

    def without(self, mark_us: int | None) -> Run:
        """Return the run without the rows up to the mark; nothing is copied."""
        if mark_us is None:
            return self
        first = max(self.first, self.row_after(mark_us))
        return self if first == self.first else self._from(first)

    def _from(self, first: int) -> Run:
        if self.file is None and first > self.frame.height // 2:  # a slice would hold the memory of the rows that are gone
            return replace(self, frame=self.frame[np.arange(first, self.frame.height)], first=0, views={}, due={})
        run = replace(self, first=first)
        for name in ("times", "hashes", "segments"):
            if name in self.__dict__:
                run.__dict__[name] = self.__dict__[name]
        return run

    def column(self, name: str) -> Column:
        """Return a fixed-width column as numpy arrays, made once a run."""
        if name not in self.views:
            series = self.frame[name].to_physical()
            valid = series.is_not_null().to_numpy() if series.null_count() else None
            self.views[name] = (series.fill_null(0) if valid is not None else series).to_numpy(), valid
        return self.views[name]

    def overdue(self, expiry: str, mark_us: int) -> int:
        """Return how many live rows have an ``expiry`` the mark has passed: all of them stand at the first live time.

        What is counted is sorted once for each time of the run, so that a batch pays for a binary search.
        """
        if not self.rows:
            return 0
        if self.first not in self.due:
            self.due.clear()
            self.due[self.first] = np.sort(self.column(expiry)[0][self.first : self.row_after(int(self.times[self.first]))])
        return int(np.searchsorted(self.due[self.first], mark_us, side="right"))


Column = tuple[npt.NDArray[np.generic], "npt.NDArray[np.bool_] | None"]
"""Values and, unless all are there, which are there."""


def sorted_rows(rows: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """Return ``__t``, ``__h`` and the table's columns, sorted, in one chunk."""
    ordered = order_columns(rows, spec)
    asked = rows if rows.columns == spec.schema.names() else rows.select(c for c in spec.schema if c in rows.columns or c in spec.keys)
    if HASH not in ordered.columns:
        return ordered.hstack(asked).sort(TIME, maintain_order=True).rechunk()
    times, hashes = ordered[TIME].to_numpy(), ordered[HASH].to_numpy()
    one_time = times.size == 0 or times.min() == times.max()
    order = np.argsort(hashes, kind="stable") if one_time else np.lexsort((hashes, times))
    return ordered.hstack(asked)[order].rechunk()


def write_run(path: Path, name: str, frame: pl.DataFrame) -> FileRef:
    """Write a run's file, one record batch, uncompressed, and make it last. Raises OSError, naming file and way out."""
    with error_names(path):
        make_folder(path.parent)
        with path.open("xb") as out:
            frame.write_ipc(out, compression="uncompressed", record_batch_size=max(frame.height, 1))
            out.flush()
            os.fsync(out.fileno())
        sync_folder(path.parent)
    n_bytes, crc = size_and_crc(path)
    return FileRef(file=name, rows=frame.height, bytes=n_bytes, crc=crc, order=hash_order())


def size_and_crc(path: Path) -> tuple[int, int]:
    """Return bytes and crc32 of a file, read in pieces."""
    n_bytes = crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            n_bytes, crc = n_bytes + len(piece), zlib.crc32(piece, crc)
    return n_bytes, crc


def map_run(root: Path, ref: FileRef, *, verify: bool = False, cold: bool = False) -> Run:
    """Return a run over the mapped file, which outlives the file's name: Polars' own readers copy, so the map is ours.

    A small file is read once for its checksum, a large one only if ``verify`` asks for it: a restart shall not wait for gigabytes.
    ``cold``: it will not stay in memory, so it is searched by its fence. Raises CheckpointCorruptError, naming the file.
    """
    path = root / ref.file
    try:
        if (n_bytes := path.stat().st_size) != ref.bytes:
            raise damaged(path, f"it has {n_bytes} bytes, the manifest says {ref.bytes}")
        if (verify or ref.bytes <= _VERIFIED_BYTES) and size_and_crc(path)[1] != ref.crc:
            raise damaged(path, "its checksum does not fit")
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()
    except FileNotFoundError as cause:
        raise damaged(path, "it is missing") from cause
    except pa.ArrowException as cause:
        raise damaged(path, f"it is no run ({cause})") from cause
    frame = pl.from_arrow(table, rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    by_fence = cold and HASH in frame.columns and frame.height > 0
    return Run(frame=frame, file=ref, fence=open_fence(path, ref.crc, frame[HASH].to_numpy(), mapped) if by_fence else None)


def damaged(path: Path, what: str) -> CheckpointCorruptError:
    """Return the error for a file of the state that is not what the manifest says."""
    return CheckpointCorruptError(f"state file {path} is damaged: {what}; restore the checkpoint from a copy; nothing was changed")


def merged_rows(runs: Sequence[Run], spec: TableSpec, *, has_oldest: bool = True) -> pl.DataFrame:
    """Return the live rows of runs (newest first) as the rows of one: the newest of each key, or a log reduced.

    Removed keys drop out if the table's oldest run is among them; before, they hide rows of runs that are not.
    """
    if len(runs) == 1 and not (spec.removable and has_oldest):
        return runs[0].live
    if spec.reduce is not None:
        rows = pl.concat([run.live for run in reversed(runs)]).select(list(spec.schema))
        return sorted_rows(spec.reduce(rows), spec)
    rows = pl.concat([run.live for run in runs]).sort([TIME, HASH], maintain_order=True)
    newest = rows if spec.expiry else newest_of_each(rows, spec)
    return (with_values(newest, spec) if spec.removable and has_oldest else newest).rechunk()


def with_values(rows: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """Return the rows that have a value: in a removable table the others are keys that were removed, or were never there."""
    return rows.filter(pl.any_horizontal(pl.col(c).is_not_null() for c in spec.schema if c not in spec.keys))


def newest_of_each(rows: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """Return the first row of each key, from rows sorted by (time, hash) in which newer ones stand before older ones."""
    same = np.ones(rows.height, dtype=bool)
    same[:1] = False
    for name in (TIME, HASH):
        values = rows[name].to_numpy()
        same[1:] &= values[1:] == values[:-1]
    if not same.any():
        return rows
    repeats = np.flatnonzero(same)
    keys = list(spec.keys)
    first, second = rows[keys][repeats - 1], rows[keys][repeats]
    equal = pl.select(pl.all_horizontal(first[k].eq_missing(second[k]) for k in keys)).to_series()
    if equal.all():
        return rows.filter(pl.Series(~same))
    # Two keys share a hash: rare, so the plain way will do.
    return rows.unique(subset=[TIME, *keys], keep="first", maintain_order=True)
