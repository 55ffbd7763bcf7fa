"""The errors users meet, one class for each thing a user would do about it."""

from __future__ import annotations


class MicrobatchError(Exception):
    """Any error this package raises on purpose; catch it to catch them all."""


class PlanError(MicrobatchError, ValueError):
    """The query cannot run as written: change the query, its options or its schema."""


class DataError(MicrobatchError, ValueError):
    """A row breaks a rule the query relies on (a malformed file, a sum past 64 bits): repair the input or say how to treat it."""


class _OutsideError(MicrobatchError):
    """An outside system failed; ``retryable`` says whether trying again can help."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class SourceError(_OutsideError):
    """A source could not be read: look at the files, the broker or the table it names."""


class SinkError(_OutsideError):
    """A sink did not take a batch: look at the outside system; the batch is run again at the next start."""


class CheckpointMismatchError(MicrobatchError):
    """The checkpoint belongs to another query: restore the old query, or take a new checkpoint."""


class CheckpointInUseError(MicrobatchError):
    """Another run holds the checkpoint: stop it, or wait for it."""


class CheckpointCorruptError(MicrobatchError):
    """The checkpoint is damaged: restore the folder from a copy; nothing was changed."""


class QueryFailedError(MicrobatchError):
    """A query stopped; the cause is chained. Repair the cause and start again: no row is lost or doubled.

    Attributes
    ----------
    query_id
        Identity of the query, as in ``<checkpoint>/metadata``; empty if the disk did not let it be opened.
    batch_id
        The batch that failed, or None if the query failed between batches.
    """

    def __init__(self, message: str, *, query_id: str, batch_id: int | None) -> None:
        super().__init__(message)
        self.query_id = query_id
        self.batch_id = batch_id
