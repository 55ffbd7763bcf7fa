"""Numbered, write-once text files with a version line: what offset log and commit log are made of."""

from __future__ import annotations

import builtins

from microbatch.errors import CheckpointCorruptError
from microbatch.protocols import Folder

VERSION_LINE = "v1"
_SHOWN_CHARACTERS = 60


class MetadataLog:
    """Text entries by number, on disk as Spark's HDFSMetadataLog keeps them: file ``<id>``, first line ``v1``, then the text.

    Folders named by a number and files with other names are none of the log's. Nothing is cached, so two logs on one folder
    see each other's entries.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._oldest: int | None = None

    def add(self, entry_id: int, text: str) -> bool:
        """Write entry ``entry_id`` (0 or more); False, and nothing changed, if it exists. Durable on return."""
        return self._folder.add(str(entry_id), f"{VERSION_LINE}\n{text}".encode())

    def get(self, entry_id: int) -> str | None:
        """Return an entry's text as it was added, or None if there is no such entry. Raises CheckpointCorruptError."""
        data = self._folder.read(str(entry_id))
        if data is None:
            return None
        where = self.where(entry_id)
        return decoded(without_version(data, where), where).removeprefix("\n")

    def latest_id(self) -> int | None:
        """Return the highest id, or None for an empty log."""
        return max(self.ids(), default=None)

    def ids(self) -> list[int]:
        """Return the ids of all entries, ascending."""
        return sorted(int(name) for name in self._folder.names() if is_entry_id(name))

    def range(self, from_id: int | None, to_id: int) -> list[tuple[int, str]]:
        """Return the entries from ``from_id`` (None: the oldest there is) up to and including ``to_id``, ascending, as (id, text).

        Raises CheckpointCorruptError unless every id of the range has an entry (Spark: HDFSMetadataLog.verifyBatchIds).
        """
        ids = self.ids()
        first = min([*ids, to_id]) if from_id is None else from_id
        wanted = builtins.range(first, to_id + 1)
        if missing := sorted(set(wanted) - set(ids)):
            raise missing_entries(self._folder, missing, ids)
        return [(entry_id, self._present(entry_id)) for entry_id in wanted]

    def purge_below(self, entry_id: int) -> None:
        """Remove the entries with ids below ``entry_id``, oldest first, with the checksum files Spark may have put beside them."""
        if self._oldest is None:  # looked up once: listing a folder of entries in each batch would cost more than the batch's own entry
            self._oldest = min(self.ids(), default=None)
        if self._oldest is not None:
            for old in builtins.range(self._oldest, entry_id):
                remove_entry(self._folder, str(old))
            self._oldest = max(self._oldest, entry_id)

    def remove(self, entry_id: int) -> None:
        """Remove one entry, if it is there. Durable on return."""
        remove_entry(self._folder, str(entry_id))
        self._folder.sync()

    def where(self, entry_id: int) -> str:
        """Return where an entry lies or would lie, for messages."""
        return f"{self._folder.path}/{entry_id}"

    def _present(self, entry_id: int) -> str:
        text = self.get(entry_id)
        if text is None:
            raise missing_entries(self._folder, [entry_id], self.ids())
        return text


def is_entry_id(name: str) -> bool:
    """Return True if a file's name is an entry's number: ASCII digits without a leading zero."""
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")


def without_version(data: bytes, where: str) -> bytes:
    r"""Return what follows the version line ``v1``: empty, or ``\n`` and the entry.

    Raises CheckpointCorruptError, naming ``where``, if the file is empty or of another version.
    """
    version = data[: data.find(b"\n")] if b"\n" in data else data
    if version == VERSION_LINE.encode():
        return data[len(version) :]
    if not data:
        raise damaged(where, "nothing, it is empty", f"the line {VERSION_LINE!r} and an entry")
    if version[:1] == b"v" and version[1:].isdigit():
        msg = (
            f"{where} has version {version.decode()}, this program reads {VERSION_LINE}: it was written by a newer version; "
            "run the query with that version, or restore the folder from a copy; nothing was changed"
        )
        raise CheckpointCorruptError(msg)
    raise damaged(where, f"the first line {shown(version.decode(errors='replace'))}", f"the line {VERSION_LINE!r}")


def decoded(data: bytes, where: str) -> str:
    """Return bytes as text; CheckpointCorruptError, naming ``where``, if they are no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise damaged(where, f"bytes that are no text ({error.reason})", "UTF-8") from error


def remove_entry(folder: Folder, name: str) -> None:
    """Remove a file and Spark's checksum of it, which would condemn a later file of that name."""
    folder.remove(name)
    folder.remove(f".{name}.crc")


def missing_entries(folder: Folder, missing: list[int], there: list[int]) -> CheckpointCorruptError:
    """Return the error for entries that should be in a log and are not."""
    have = f"{min(there)} to {max(there)}" if there else "no entry"
    names = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    msg = f"the log {folder.path} has {have}, but not {names}; restore the folder from a copy; nothing was changed"
    return CheckpointCorruptError(msg)


def damaged(where: str, found: str, expected: str) -> CheckpointCorruptError:
    """Return the error for a file that is not what it should be; ``found`` and ``expected`` are phrases."""
    return CheckpointCorruptError(f"{where} holds {found}; expected {expected}; restore the folder from a copy; nothing was changed")


def shown(text: str) -> str:
    """Return a text quoted and short enough for a message."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
