"""A checkpoint folder, opened for one run of one query."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from microbatch.checkpoint.commit_log import CommitLog
from microbatch.checkpoint.layout import COMMITS, METADATA, OFFSETS, SOURCES, STATE, check_entries, check_folder
from microbatch.checkpoint.lock import CheckpointLock
from microbatch.checkpoint.object_folder import ObjectFolder
from microbatch.checkpoint.offset_log import OffsetLog
from microbatch.checkpoint.place import CheckpointFolder, folder_at
from microbatch.checkpoint.query_metadata import create_query_id, read_facts, read_query_id, write_facts
from microbatch.errors import CheckpointCorruptError
from microbatch.model import Json


class Checkpoint:
    """All that outlives a run of a query, held by one run at a time; made by ``Checkpoint.open``.

    An object store has no lock that ends with its holder. There the logs alone keep runs apart: an entry is written once, so of two
    runs that are at the same batch one is told that the other was there, and stops. What the loser wrote meanwhile is a state file nobody
    names, and to the sink the same batch with the same rows.

    Attributes
    ----------
    query_id
        Identity of the query, the same at every start on this folder.
    folder
        The checkpoint folder itself.
    offsets, commits
        The two logs.
    """

    def __init__(self, folder: CheckpointFolder, lock: CheckpointLock | None, offsets: OffsetLog, query_id: str) -> None:
        self.folder = folder
        self.offsets = offsets
        self.commits = CommitLog(folder.sub(COMMITS))
        self.query_id = query_id
        self._lock = lock

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, n_sources: int | None = None) -> Checkpoint:
        """Return the checkpoint at a path or URL, a local one locked for this run; a new one if the folder is missing or empty.

        Parameters
        ----------
        path
            The folder.
        n_sources
            How many sources the query has; the offset log then refuses entries of another number.

        Raises
        ------
        PlanError
            The path is a file or empty, or the URL that of a store in which two runs could log the same batch.
        CheckpointMismatchError
            The folder holds other files and no checkpoint, or offsets of another number of sources.
        CheckpointInUseError
            Another run holds it.
        CheckpointCorruptError
            It is damaged or was written by a newer version; nothing was changed.
        """
        folder = folder_at(path)
        lock = _locked(folder)
        try:
            offsets = OffsetLog(folder.sub(OFFSETS), n_sources)
            _check_whole(folder, offsets)
            return cls(folder, lock, offsets, create_query_id(folder))
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def source_folder(self, k: int) -> CheckpointFolder:
        """Return the place of source ``k``, counted from 0 in plan order."""
        return self.folder.sub(SOURCES).sub(str(k))

    def facts(self) -> dict[str, Json]:
        """Return what ``note`` wrote last, in this run or one before; empty if nothing. Raises CheckpointCorruptError."""
        return read_facts(self.folder)

    def note(self, facts: Mapping[str, Json]) -> None:
        """Replace the facts kept beside Spark's files (fingerprints, pins, engine version). Durable on return."""
        write_facts(self.folder, facts)

    @property
    def state_folder(self) -> CheckpointFolder:
        """The place of the state store."""
        return self.folder.sub(STATE)

    def purge_below(self, batch_id: int) -> None:
        """Remove offsets and commits of the batches below ``batch_id``; a restart needs those of the last two batches."""
        self.offsets.purge_below(batch_id)
        self.commits.purge_below(batch_id)

    def forget_after(self, batch_id: int) -> None:
        """Remove the batches behind ``batch_id``, the newest first, each step durable before the next.

        A batch's commit goes before its offsets: between the two it is a batch to run again, as after a crash. The other way round
        its commit would condemn the batch that gets its number next.
        """
        for newer in sorted({*self.offsets.ids(), *self.commits.ids()}, reverse=True):
            if newer > batch_id:
                self.commits.remove(newer)
                self.offsets.remove(newer)

    def close(self) -> None:
        """Give the lock back; closing twice is no error."""
        if self._lock is not None:
            self._lock.release()


def _locked(folder: CheckpointFolder) -> CheckpointLock | None:
    """Check that the folder is one for a checkpoint, and lock it if it is local."""
    if isinstance(folder, ObjectFolder):
        check_entries(folder.path, folder.entries())
        folder.check_condition()
        return None
    root = Path(folder.path)
    check_folder(root)
    return CheckpointLock.acquire(root)


def _check_whole(folder: CheckpointFolder, offsets: OffsetLog) -> None:
    """Raise CheckpointCorruptError if what lies in the folder cannot be continued from."""
    read_facts(folder)
    if offsets.latest() is None:
        _check_unused(folder)
    elif read_query_id(folder) is None:
        msg = (
            f"{folder.path}/{METADATA} is missing, so sinks could not tell which batches of this query they have; "
            "restore the file from a copy, or take a new checkpoint; nothing was changed"
        )
        raise CheckpointCorruptError(msg)


def _check_unused(folder: CheckpointFolder) -> None:
    """Refuse a folder without offsets that holds traces of batches (Spark: MicroBatchExecution.verifyNewCheckpointDirectory)."""
    for name in (OFFSETS, COMMITS, STATE):
        if files := folder.sub(name).below():
            msg = (
                f"the checkpoint {folder.path} has no readable entry in {OFFSETS}, so its query would begin anew, "
                f"but {folder.path}/{name}/{files[0]} is there; "
                "restore the folder from a copy, or take a new checkpoint; nothing was changed"
            )
            raise CheckpointCorruptError(msg)
