"""A log of lists of lines in which old entries are merged, so that a reader of everything opens few files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.layout import local_path
from microbatch.checkpoint.metadata_log import VERSION_LINE, damaged, decoded, is_entry_id, missing_entries, remove_entry, without_version
from microbatch.errors import CheckpointCorruptError
from microbatch.protocols import Folder

_COMPACT = ".compact"
# The newest two entries must be readable one by one (one planned, one decided), also with ``every`` 1, and telling what
# a compact entry added takes the compact entry before it.
_COMPACTS_KEPT_BEFORE_NEWEST = 2


@dataclass(frozen=True, slots=True)
class _Entries:
    """Which files a log has: ids of plain and of compact entries, each ascending."""

    plain: list[int]
    compact: list[int]

    @property
    def newest(self) -> int | None:
        return max(self.plain[-1:] + self.compact[-1:], default=None)

    @property
    def oldest(self) -> int | None:
        return min(self.plain[:1] + self.compact[:1], default=None)

    def may_have_had(self, entry_id: int) -> bool:
        """Return True if an entry without a file of its own was surely or perhaps added: before a compact entry files are removed."""
        first = 0 if self.compact else self.oldest
        return first is not None and self.newest is not None and first <= entry_id <= self.newest

    def compact_before(self, entry_id: int) -> int | None:
        """Return the newest compact entry before one, or None."""
        return max((compact for compact in self.compact if compact < entry_id), default=None)

    def plain_between(self, after: int | None, before: int) -> list[int]:
        """Return the plain entries after one (None: from the beginning) and before another, both exclusive."""
        return [plain for plain in self.plain if (after is None or plain > after) and plain < before]


class CompactibleLog:
    """Lists of lines by number, on disk as Spark's CompactibleFileStreamLog keeps them.

    Entry ``<id>`` is the line ``v1`` and then its lines; each ``every``-th, those with ``(id + 1) % every == 0``, is ``<id>.compact``
    instead and holds the lines of all entries so far, its own last. Adding a plain entry reads nothing but the folder's
    listing; adding a compact one reads and writes all lines so far. Files from before the third newest compact entry are removed.

    Parameters
    ----------
    folder
        The log's own folder.
    every
        Distance of compact entries, 1 or more. If the folder holds entries of another distance, that one stays (Spark:
        CompactibleFileStreamLog.compactInterval).
    """

    def __init__(self, folder: Folder, every: int = 10) -> None:
        if every < 1:
            msg = f"every={every} must be 1 or more"
            raise ValueError(msg)
        self._folder = folder
        self._every = every
        self._compacted: tuple[int, list[str]] | None = None  # the compact entry this object added last, and its own lines

    def add(self, entry_id: int, lines: Sequence[str]) -> bool:
        """Write entry ``entry_id``; False, and nothing changed, if the log has it or had it. Durable on return.

        The first entry of a log may have any id; then ids grow by one, and a gap raises CheckpointCorruptError. A line is
        not empty and has no line break, else ValueError.
        """
        _check_lines(lines)
        entries = self._entries()
        newest = entries.newest
        if newest is not None and entry_id <= newest:
            return False
        if newest is not None and entry_id > newest + 1:
            raise missing_entries(self._folder, list(range(newest + 1, entry_id)), entries.plain + entries.compact)
        body = "".join(f"\n{line}" for line in lines).encode()
        if (entry_id + 1) % compact_interval(entries.plain, entries.compact, self._every):
            return self._folder.add(str(entry_id), VERSION_LINE.encode() + body)
        return self._add_compact(entry_id, body, list(lines), entries)

    def get(self, entry_id: int) -> list[str] | None:
        """Return the lines added with exactly this id, or None if there is no such entry.

        Cheap for plain entries and for the compact entry this object added; for another compact entry it reads that one and the
        files since the compact entry before. Works for the newest ``2 * every`` entries (but not for a compact entry that began the
        log, has another after it, and is not entry 0) and for some older ones; raises CheckpointCorruptError where the lines of one
        entry are no longer known.
        """
        if self._compacted is not None and self._compacted[0] == entry_id:
            return list(self._compacted[1])
        data = self._folder.read(str(entry_id))
        if data is not None:
            where = self._where(str(entry_id))
            return _lines(without_version(data, where), where)
        entries = self._entries()
        if entry_id in entries.compact:
            return self._added_by(entry_id, entries)
        if not entries.may_have_had(entry_id):
            return None
        raise self._forgotten(entry_id, entries)

    def latest_id(self) -> int | None:
        """Return the highest id, or None for an empty log."""
        return self._entries().newest

    def all_lines(self) -> list[str]:
        """Return the lines of all entries, oldest first. Raises CheckpointCorruptError if an entry is missing."""
        entries = self._entries()
        if entries.newest is None:
            return []
        return _lines(b"".join(self._bodies(entries, entries.newest + 1)), self._folder.path)

    def _add_compact(self, entry_id: int, body: bytes, lines: list[str], entries: _Entries) -> bool:
        # Bytes, not lines: at a million lines decoding and splitting would cost more than the disk.
        data = b"".join([VERSION_LINE.encode(), *self._bodies(entries, entry_id), body])
        if not self._folder.add(f"{entry_id}{_COMPACT}", data):
            return False
        self._compacted = (entry_id, lines)
        self._remove_old(_Entries(entries.plain, [*entries.compact, entry_id]))
        return True

    def _bodies(self, entries: _Entries, before: int) -> list[bytes]:
        """Return everything added before an id: a compact entry and the plain ones after it, without version lines."""
        compact = entries.compact_before(before)
        plain = entries.plain_between(compact, before)
        first = compact + 1 if compact is not None else min(plain, default=before)
        if missing := sorted(set(range(first, before)) - set(plain)):
            raise missing_entries(self._folder, missing, entries.plain + entries.compact)
        names = [] if compact is None else [f"{compact}{_COMPACT}"]
        return [self._body(name) for name in [*names, *map(str, plain)]]

    def _added_by(self, compact_id: int, entries: _Entries) -> list[str]:
        """Return the lines a compact entry added: those it has beyond everything added before it."""
        # With nothing before it, it is the log's first entry or the oldest one kept; only of these two it is sure.
        alone = not entries.plain_between(None, compact_id) and entries.compact_before(compact_id) is None
        if alone and compact_id not in {0, entries.compact[-1]}:
            raise self._forgotten(compact_id, entries)
        n_before = sum(body.count(b"\n") for body in self._bodies(entries, compact_id))
        name = f"{compact_id}{_COMPACT}"
        body = self._body(name)
        n_added = body.count(b"\n") - n_before
        if n_added < 0:
            raise damaged(self._where(name), f"{n_before + n_added} lines", f"the {n_before} lines of the entries before it, and its own")
        own = body.rsplit(b"\n", n_added)[1:] if n_added else []
        return [decoded(line, self._where(name)) for line in own]

    def _remove_old(self, entries: _Entries) -> None:
        """Remove the files from before the third newest compact entry, the newest of them first.

        In this order whatever a crash leaves has a gap above it, so it is never taken for the beginning of the log.
        """
        if len(entries.compact) <= _COMPACTS_KEPT_BEFORE_NEWEST:
            return
        oldest_kept = entries.compact[-1 - _COMPACTS_KEPT_BEFORE_NEWEST]
        old = [(entry_id, str(entry_id)) for entry_id in entries.plain] + [
            (entry_id, f"{entry_id}{_COMPACT}") for entry_id in entries.compact
        ]
        for entry_id, name in sorted(old, reverse=True):
            if entry_id < oldest_kept:
                remove_entry(self._folder, name)

    def _entries(self) -> _Entries:
        names = self._folder.names()
        compact = [name.removesuffix(_COMPACT) for name in names if name.endswith(_COMPACT)]
        return _Entries(sorted(map(int, filter(is_entry_id, names))), sorted(map(int, filter(is_entry_id, compact))))

    def _body(self, name: str) -> bytes:
        data = self._folder.read(name)
        if data is None:
            msg = f"{self._where(name)} vanished while it was read; start again"
            raise CheckpointCorruptError(msg)
        # A line break at the end is an editor's; Spark and we write none.
        return without_version(data, self._where(name)).removesuffix(b"\n")

    def _where(self, name: str) -> str:
        return f"{self._folder.path}/{name}"

    def _forgotten(self, entry_id: int, entries: _Entries) -> CheckpointCorruptError:
        msg = (
            f"the log {self._folder.path} no longer knows which lines entry {entry_id} added: "
            f"it has files {entries.oldest} to {entries.newest}, "
            "older ones were merged and removed; restore the folder from a copy of that time; nothing was changed"
        )
        return CheckpointCorruptError(msg)


def open_entry_log(path: str, every: int) -> CompactibleLog:
    """Return the entry log in the folder at a path or file:// URL, for ``SinkContext.open_log``."""
    return CompactibleLog(LocalFolder(local_path(path)), every)


def compact_interval(plain: Sequence[int], compact: Sequence[int], every: int) -> int:
    """Return the distance of compact entries the files of a log imply; ``every`` if they leave it open.

    With two compact entries it is their distance; with one, the smallest divisor of its id + 1 from ``every`` on
    (Spark: CompactibleFileStreamLog.deriveCompactInterval); with none, the smallest multiple of ``every`` at which no plain entry
    would have had to be compact. Both lists ascend.

    Examples
    --------
    >>> compact_interval([2], [1], 5)
    2
    >>> compact_interval([], [9, 19], 5)
    10
    >>> compact_interval([0, 1, 2, 3], [], 2)
    6
    """
    if not compact:
        return next(interval for interval in count(every, every) if all((entry_id + 1) % interval for entry_id in plain))
    n_entries = compact[-1] + 1
    if len(compact) > 1 and n_entries % (compact[-1] - compact[-2]) == 0:
        return compact[-1] - compact[-2]
    return next(interval for interval in count(min(every, n_entries)) if n_entries % interval == 0)


def _check_lines(lines: Sequence[str]) -> None:
    for line in lines:
        if not line or "\n" in line or "\r" in line:
            msg = f"a line of an entry log must be one JSON text in one line, not {line[:60]!r}"
            raise ValueError(msg)


def _lines(body: bytes, where: str) -> list[str]:
    return decoded(body.removesuffix(b"\n"), where).split("\n")[1:]
