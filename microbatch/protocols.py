"""The ports: what the engine asks of sources, sinks, clocks and folders, with the whole contract of each.

A *description* (``Source``, ``Sink``) is an immutable value made when a query is defined; it touches nothing outside, but for
what its docstring allows. ``open`` turns it into a *reader* or *writer*, which belongs to one run of one query and is used by
one thread at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import polars as pl

from microbatch.model import Delivery, Offset, OutputMode


@runtime_checkable
class Clock(Protocol):
    """Where time comes from; nothing else may ask the machine."""

    def now_us(self) -> int:
        """Return microseconds since 1970, UTC."""
        ...

    def wait_until_us(self, when_us: int, wake: threading.Event) -> None:
        """Return when the clock shows ``when_us`` or ``wake`` is set."""
        ...


class Folder(Protocol):
    """A folder of small lasting files; a write is durable when it returns, and is never seen half done."""

    @property
    def path(self) -> str:
        """Where it lies, for messages and for libraries that open files themselves."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file."""
        ...

    def add(self, name: str, data: bytes) -> bool:
        """Write a file that must not exist; False, and nothing changed, if it does. Atomic between processes."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, replacing the one of that name."""
        ...

    def names(self) -> list[str]:
        """Return the names of the files in this folder (not below it), sorted; empty if the folder does not exist."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; no error if it is gone already."""
        ...

    def sync(self) -> None:
        """Let what was removed be removed after a power failure too."""
        ...

    def sub(self, name: str) -> Folder:
        """Return the folder of that name below this one; it is made when first written to."""
        ...


class EntryLog(Protocol):
    """A numbered, write-once log whose entries are lists of lines, compacted so that a million lines stay cheap.

    On disk it is Spark's CompactibleFileStreamLog: ``<id>`` or ``<id>.compact``, first line ``v1``, one JSON text a line.
    """

    def add(self, entry_id: int, lines: Sequence[str]) -> bool:
        """Write entry ``entry_id``; False if it exists. Ids grow by one."""
        ...

    def get(self, entry_id: int) -> list[str] | None:
        """Return the lines added with exactly this id, or None if there is no such entry."""
        ...

    def latest_id(self) -> int | None:
        """Return the highest id, or None for an empty log."""
        ...

    def all_lines(self) -> list[str]:
        """Return the lines of all entries, oldest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """What a table of the state store holds.

    ``schema`` is that of the keys and then the values; ``time_key`` the key column (Datetime or Int64 microseconds) by which rows are
    evicted, None if they never are. ``reduce`` None: one row per key, the newest counts. Otherwise the table is a log that may hold
    several rows per key, older ones first, and ``reduce`` makes fewer of them with the same meaning. From a ``removable`` table single keys
    can be removed; in it a key whose values are all null is not there.

    With ``expiry`` the table holds many rows per key, none of which replaces another, to be found by ``matches``. It names a value column,
    Int64 microseconds: a row is gone when the watermark has reached that time. ``time_key`` is then a time at or behind it, shared by many
    rows, at which the store clears them away: the coarser, the fewer places a look-up visits.
    """

    keys: tuple[str, ...]
    time_key: str | None
    schema: pl.Schema
    reduce: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    removable: bool = False
    expiry: str | None = None


class StateTable(Protocol):
    """A versioned table, spoken to in frames; what a batch changes counts when the engine commits the batch."""

    def prepare(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows (unique keys) in the table's own order, ready for ``lookup`` and ``upsert``; for ``lookup`` keys alone will do."""
        ...

    def lookup(self, prepared: pl.DataFrame) -> pl.DataFrame:
        """Return the value columns found for the prepared rows' keys, aligned with them; all null where a key is not there."""
        ...

    def lookup_latest(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Return the value columns of each key's latest time, aligned with the rows; all null where a key is at no time.

        The rows are unique and hold the keys without ``time_key``, in any order. Costs a look-up for each distinct time of the table.
        """
        ...

    def matches(self, asked: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
        """Return the rows of a table with ``expiry`` that have the asked keys, and for each the row number in ``asked`` of its key."""
        ...

    def upsert(self, prepared: pl.DataFrame, *, known: int | None = None) -> None:
        """Put prepared rows (in the order ``prepare`` gave, values as they shall be) in the place of those with the same keys.

        ``known`` is how many of the keys are there; None: as many as the last ``lookup`` found, whose rows these must be.
        """
        ...

    def remove(self, prepared: pl.DataFrame, *, known: int | None = None) -> None:
        """Remove the keys of prepared rows from a ``removable`` table; ``known`` as for ``upsert``."""
        ...

    def append(self, rows: pl.DataFrame) -> None:
        """Add rows to a log, or to a table with ``expiry``."""
        ...

    def evict(self, mark_us: int) -> pl.DataFrame:
        """Remove the rows with time at or before ``mark_us``, and return them: one per key, or all of a log, older first."""
        ...

    def evict_count(self, mark_us: int) -> int:
        """Remove them and return how many keys that were."""
        ...

    def scan(self) -> pl.DataFrame:
        """Return all rows: O(state)."""
        ...

    def first_time(self) -> int | None:
        """Return the earliest time of the rows, None if there are none: O(runs)."""
        ...

    def times(self) -> list[int]:
        """Return the distinct times of the rows, ascending: O(distinct times)."""
        ...

    @property
    def rows(self) -> int:
        """Keys of a table, rows of a log, rows that are not gone of a table with ``expiry``."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes held, mapped files included."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """What a run lends to a source.

    ``folder`` is the source's own place in the checkpoint (``sources/<k>``); ``open_log`` opens the entry log in a folder, to be compacted
    every so many entries.
    """

    folder: Folder
    clock: Clock
    open_log: Callable[[Folder, int], EntryLog]


class Source(Protocol):
    """Describes rows that arrive; may stand in several queries. One object is one source, however often a plan uses it."""

    @property
    def description(self) -> str:
        """One line for progress and ``explain``, such as ``FileSource[landing/*.csv]``."""
        ...

    def schema(self) -> pl.Schema:
        """Return the columns; may look outside the first time, then always answers the same. Raises SourceError, PlanError."""
        ...

    def open(self, context: SourceContext) -> SourceReader:
        """Return a reader for one run.

        What must not change over the life of a checkpoint (an inferred schema) is pinned in ``context.folder``.
        """
        ...

    def read_all(self) -> pl.LazyFrame:
        """Return all there is now as one bounded frame, with ``schema()``; for ``as_batch``."""
        ...


class SourceReader(Protocol):
    """Replayable rows between two offsets.

    The engine calls, per batch: ``latest_offset``, then (after it logged the offsets) ``read``, then, once the *next* batch's
    offsets are logged, ``commit``. After a restart ``read`` may be called with a logged range before any ``latest_offset``,
    and must give the same rows.
    """

    def latest_offset(self, start: Offset, *, limited: bool) -> Offset:
        """Return the end of the next batch that starts after ``start``; equal to ``start`` if nothing is there.

        ``limited`` False means: leave the read limits aside. Whatever is needed to read up to the answer again after a crash
        (a file list) is durable when this returns. After ``freeze`` it never goes beyond what was there then.
        """
        ...

    def freeze(self) -> None:
        """Fix the end at what is there now: an available-now run begins."""
        ...

    def read(self, start: Offset, end: Offset) -> pl.LazyFrame:
        """Return the rows after ``start`` up to and including ``end``, lazily, with exactly the source's schema.

        The same range gives the same rows in the same order, also after a restart.
        """
        ...

    def row_count(self, start: Offset, end: Offset) -> int | None:
        """Return the number of rows of the range if that costs (almost) nothing, else None: the engine then counts."""
        ...

    def commit(self, end: Offset) -> None:
        """The query will never ask again for rows up to ``end``: clean up if asked to.

        Not promised to be called for the last batches of a run.
        """
        ...

    def metrics(self) -> Mapping[str, str]:
        """Return figures for the progress of the batch just read (such as rows dropped as malformed); may be empty."""
        ...

    def close(self) -> None:
        """Give back what was opened. Not promised after a crash."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkContext:
    """What a run lends to a sink, all of it known before the first batch.

    ``keys`` are the columns by which a row of the result is replaced in update mode, empty if there are none.
    ``open_log`` opens an entry log in the folder at a path.
    """

    query_id: str
    query_name: str | None
    mode: OutputMode
    schema: pl.Schema
    keys: tuple[str, ...]
    clock: Clock
    open_log: Callable[[str, int], EntryLog]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkBatch:
    """One batch for a sink: the same id always carries the same rows (float sums: up to their last bits).

    ``info`` says where the rows came from (offset ranges, watermark), for sinks that can keep it beside the rows.
    """

    batch_id: int
    rows: pl.DataFrame
    info: Mapping[str, str]


@runtime_checkable
class Sink(Protocol):
    """Describes where rows go. Making it has no effect outside."""

    @property
    def description(self) -> str:
        """One line for progress and ``explain``, such as ``DeltaSink[lake/revenue]``."""
        ...

    @property
    def delivery(self) -> Delivery:
        """Return what happens when a batch comes twice."""
        ...

    @property
    def durable(self) -> bool:
        """Return True if its rows outlive the process, so that a checkpoint is compulsory."""
        ...

    def check(self, mode: OutputMode, schema: pl.Schema, keys: tuple[str, ...]) -> None:
        """Raise PlanError, naming mode or column and the way out, unless this sink can take such rows.

        Touches nothing outside. Called when a query is defined.
        """
        ...

    def open(self, context: SinkContext) -> SinkWriter:
        """Return a writer for one run.

        Raises SinkError or PlanError if the outside does not fit (another schema, no access), before any batch is decided.
        """
        ...


class SinkWriter(Protocol):
    """Takes batches in the order of their ids; after a crash the last one may come again with the same id."""

    def write(self, batch: SinkBatch) -> None:
        """Make the batch visible, whole, once. An exactly-once sink that already has ``batch_id`` of this query changes nothing.

        Complete mode replaces the whole result. Raises SinkError, after which nothing of the batch is visible to readers.
        """
        ...

    def metrics(self) -> Mapping[str, str]:
        """Return figures for the progress of the batch just written; may be empty."""
        ...

    def close(self) -> None:
        """Finish background work and give back what was opened. Not promised after a crash."""
        ...
