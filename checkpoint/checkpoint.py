"""A checkpoint folder, opened for one run of one query."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.commit_log import CommitLog
from microbatch.checkpoint.layout import COMMITS, METADATA, OFFSETS, SOURCES, STATE, check_folder, files_below, local_path
from microbatch.checkpoint.lock import CheckpointLock
from microbatch.checkpoint.offset_log import OffsetLog
from microbatch.checkpoint.query_metadata import create_query_id, read_facts, read_query_id, write_facts
from microbatch.errors import CheckpointCorruptError
from microbatch.model import Json


class Checkpoint:
    """All that outlives a run of a query, held by one run at a time; made by ``Checkpoint.open``.

    Attributes
    ----------
    query_id
        Identity of the query, the same at every start on this folder.
    folder
        The checkpoint folder itself.
    offsets, commits
        The two logs.
    """

    def __init__(self, folder: LocalFolder, lock: CheckpointLock, offsets: OffsetLog, query_id: str) -> None:
        self.folder = folder
        self.offsets = offsets
        self.commits = CommitLog(folder.sub(COMMITS))
        self.query_id = query_id
        self._lock = lock

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, n_sources: int | None = None) -> Checkpoint:
        """Return the checkpoint at a local path or file:// URL, locked for this run; a new one if the folder is missing or empty.

        Parameters
        ----------
        path
            The folder.
        n_sources
            How many sources the query has; the offset log then refuses entries of another number.

        Raises
        ------
        PlanError
            The path is a file, empty, or not on this machine.
        CheckpointMismatchError
            The folder holds other files and no checkpoint, or offsets of another number of sources.
        CheckpointInUseError
            Another run holds it.
        CheckpointCorruptError
            It is damaged or was written by a newer version; nothing was changed.
        """
        root = local_path(path)
        check_folder(root)
        lock = CheckpointLock.acquire(root)
        try:
            folder = LocalFolder(root)
            offsets = OffsetLog(folder.sub(OFFSETS), n_sources)
            _check_whole(root, folder, offsets)
            return cls(folder, lock, offsets, create_query_id(folder))
        except BaseException:
            lock.release()
            raise

    def source_folder(self, k: int) -> LocalFolder:
        """Return the place of source ``k``, counted from 0 in plan order."""
        return self.folder.sub(SOURCES).sub(str(k))

    def facts(self) -> dict[str, Json]:
        """Return what ``note`` wrote last, in this run or one before; empty if nothing. Raises CheckpointCorruptError."""
        return read_facts(self.folder)

    def note(self, facts: Mapping[str, Json]) -> None:
        """Replace the facts kept beside Spark's files (fingerprints, pins, engine version). Durable on return."""
        write_facts(self.folder, facts)

    @property
    def state_folder(self) -> LocalFolder:
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
        self._lock.release()


def _check_whole(root: Path, folder: LocalFolder, offsets: OffsetLog) -> None:
    """Raise CheckpointCorruptError if what lies in the folder cannot be continued from."""
    read_facts(folder)
    if offsets.latest() is None:
        _check_unused(root)
    elif read_query_id(folder) is None:
        msg = (
            f"{root}/{METADATA} is missing, so sinks could not tell which batches of this query they have; "
            "restore the file from a copy, or take a new checkpoint; nothing was changed"
        )
        raise CheckpointCorruptError(msg)


def _check_unused(root: Path) -> None:
    """Refuse a folder without offsets that holds traces of batches (Spark: MicroBatchExecution.verifyNewCheckpointDirectory)."""
    for name in (OFFSETS, COMMITS, STATE):
        if files := files_below(root / name):
            msg = (
                f"the checkpoint {root} has no readable entry in {OFFSETS}, so its query would begin anew, but {files[0]} is there; "
                "restore the folder from a copy, or take a new checkpoint; nothing was changed"
            )
            raise CheckpointCorruptError(msg)
