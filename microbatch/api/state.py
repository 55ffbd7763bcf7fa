"""The state of a query as frames, read from its checkpoint, also while it runs."""

from __future__ import annotations

from contextlib import closing
from os import PathLike

import polars as pl

from microbatch.checkpoint.checkpoint import Checkpoint
from microbatch.checkpoint.state.reading import VERSION, StoredState, as_users_know
from microbatch.errors import PlanError


def read_state(
    checkpoint: str | PathLike[str], operator: str | None = None, version: int | None = None, *, verify: bool = False
) -> pl.LazyFrame:
    """Return what an operator keeps, one row per key: the keys, then partial aggregates under the names they are stored by.

    An aggregation in append mode keeps a log: several rows of partial aggregates per key, older first, to be merged when the window closes.
    Keys of a categorical dtype are stored as text. All is read when this is called, O(state); no lock is taken, so the query may run.

    Parameters
    ----------
    checkpoint
        The query's checkpoint folder, a path or URL; from an object store the files of that version are copied here first.
    operator
        Its name: given with ``named``, or derived, such as ``aggregate-country``. A join of two streams has one name a table; what
        helps an operator to find its keys in time has the operator's name and ``/timers`` or ``/expiries``. None: the only operator.
    version
        How many batches the state has seen; None: all that are committed. ``retain_batches`` of the query says how far back one can go.
    verify
        Check the checksum of every file. A query that starts checks those of 16 MB and less, and of what single batches wrote.

    Raises
    ------
    PlanError
        No checkpoint, operator or version of that name; the message lists those there are.
    CheckpointCorruptError
        A file of the state is missing or damaged.
    """
    stored = StoredState.at(str(checkpoint)).version(version, verify=verify)
    return as_users_know(stored.read(stored.entry(operator))).lazy()


def read_state_changes(checkpoint: str | PathLike[str], operator: str | None, from_version: int, to_version: int) -> pl.LazyFrame:
    """Return what changed behind ``from_version`` up to and including ``to_version``, in the order of the versions.

    Columns are those of ``read_state``, then ``_change_type`` ("update": the row as it is from then on, of a log the row added;
    "delete": the row removed, with its last values where the watermark removed it) and ``_version``.

    Raises
    ------
    PlanError, CheckpointCorruptError
        As ``read_state``; every version of the range must be retained.
    """
    if from_version > to_version:
        msg = f"read_state_changes: from_version={from_version} is behind to_version={to_version}; changes run from the older to the newer"
        raise PlanError(msg)
    state = StoredState.at(str(checkpoint))
    newest = state.version(to_version)
    name = newest.name_of(operator)
    pieces = [newest.read(newest.entry(name)).clear().with_columns(_change_type=pl.lit("")).with_columns(pl.lit(0).alias(VERSION))]
    before = {} if from_version == 0 else state.version(from_version).tables
    for number in range(from_version + 1, to_version + 1):
        at = state.version(number)
        if name in at.tables:
            changed = at.changes(at.tables[name], before.get(name))
            pieces.append(changed.with_columns(pl.lit(number).alias(VERSION)))
        before = at.tables
    return as_users_know(pl.concat(pieces, how="diagonal")).lazy()


def rollback(checkpoint: str | PathLike[str], batch_id: int) -> None:
    """Take a stopped query back to where it was when batch ``batch_id`` was done; its next run goes on with the batch after it.

    Newer batches leave the logs, the newest first, so that a rollback that dies on its way leaves the query at one of them; run it again.
    What newer batches wrote outside stays there, and an exactly-once sink takes no batch id twice: take the table back too, or write
    to a new one. Input that is gone meanwhile (cleaned up, expired) does not come back. In an object store nothing tells that the query
    runs: stop it first.

    Raises
    ------
    PlanError
        No checkpoint there, or no such batch; the message says which are retained.
    CheckpointInUseError
        The query is running.
    CheckpointCorruptError
        The state of that batch is damaged; nothing was changed.
    """
    stored = StoredState.at(str(checkpoint))
    with closing(Checkpoint.open(checkpoint)) as opened:
        commit = opened.commits.get(batch_id)
        there = [k for k in opened.commits.ids() if opened.offsets.get(k) is not None]
        if commit is None or batch_id not in there:
            kept = f"{there[0]} to {there[-1]}" if there else "none"
            msg = f"{opened.folder.path}: batch {batch_id} is not one to go back to; finished and retained are {kept}"
            raise PlanError(msg)
        if commit.state is not None:
            stored.version(batch_id + 1).check()
        opened.forget_after(batch_id)
