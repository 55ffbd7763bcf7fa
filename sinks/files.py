"""The file sink: one batch, one file (or one folder of partitions), exactly once, also for readers that know nothing of us.

Two kinds of readers are served. *Plain* readers list the folder (``pl.scan_parquet("out/*.parquet")``). *Log* readers
(``read_file_sink``, Spark) go by the list of committed files in ``_spark_metadata``, so files nobody committed are nothing to them.

The life of batch N
-------------------
1. *Seen?* If the log has an entry N or a later one, the batch is in the folder: nothing is done.
2. *Claim.* The first batch writes into ``_microbatch/0`` which query the folder belongs to, and how its files are read.
3. *Stage.* The rows are written under a hidden name no pattern for data files matches, and synced.
4. *Show.* One link, or one rename of a whole folder of partitions, gives them the name that follows from N. Plain readers see the batch.
5. *Log.* Entry N names the files; it is written once and atomically. Log readers see the batch. A batch without rows makes an entry alone.

A process killed between these steps, and the restart, which is given batch N again:

======================  ============================================  =========================================================
killed                  on the disk                                   the restart
======================  ============================================  =========================================================
in or after 1, 2        at most the claim, by the same query          writes the batch
in 3, or before 4       a hidden file or folder, perhaps half         writes the batch; hidden leftovers went when it was opened
after 4, before 5       the whole batch, visible to plain readers     takes the files as they are and logs them (5)
after 5                 the whole batch and its entry                 does nothing (1)
======================  ============================================  =========================================================

The third line takes the old files rather than write new ones: they were synced before they got their name, so they are whole, and they
hold the rows of this batch, for its ranges were logged before it first ran. Float sums may differ in their last bits from the ones just
computed; whoever read the files once reads the same numbers for ever. The other order, log first, would promise files that
do not exist.

A failure that is no crash leaves nothing visible: what was staged is removed, and if the entry cannot be written the files are withdrawn.

One query owns a folder. Its id is looked at when it opens the folder and claimed with its first batch, so that a second query, or the
same one with a new checkpoint, is refused instead of having its batches 0, 1, ... taken for ones already there, as Spark's sink does. A
log begun by Spark can be continued by the query with Spark's checkpoint only, which shows in the id of its first batch; not with
partitions, which Spark lays out as ``<column>=<value>`` alone: so a batch of many files would not appear at once.

``microbatch_id=<N>`` is a partition too, rather than a plain folder, because Spark refuses to read partitions below folders without "=".
Checked with Spark 4.3: it reads both layouts, goes by our log, and we by its log.

Sources: Spark's FileStreamSink, FileStreamSinkLog, ManifestFileCommitProtocol.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from microbatch.errors import MicrobatchError, PlanError, SinkError
from microbatch.faults import fault_point
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import SinkBatch, SinkContext
from microbatch.sinks.file_batches import BatchFiles, check_partitions, check_place, make_folder
from microbatch.sinks.file_formats import format_named
from microbatch.sinks.file_log import COMMITTED, OWNERS, Owner, file_line, local_folder
from microbatch.sinks.file_reader import read_file_sink

__all__ = ["FileSink", "FileWriter", "read_file_sink"]

_OWNER_ENTRY = 0
_OWNERS_COMPACTED_EVERY = 10  # the log of owners has one entry, so never; 1 would name it 0.compact


@dataclass(frozen=True, slots=True)
class FileSink:
    """Rows go to files in a local folder, exactly once; each batch with rows is one file, visible whole or not at all.

    Read them with ``read_file_sink(path)``, with Spark, or with a pattern: ``pl.scan_parquet("out/*.parquet")``. Append mode only, or
    update mode as a changelog. Restarted with other columns the query is refused.

    Parameters
    ----------
    path
        The folder, made if missing; a path or a ``file:`` URL. Relative ones are resolved when the query opens the sink.
    format
        ``"parquet"``, ``"csv"``, ``"ndjson"`` or ``"ipc"`` (files ``*.arrow``). In ndjson NaN and infinities become null; those of columns
        that are numbers are counted in the progress as ``nonfinite_as_null``.
    partition_by
        Columns (text, integer, Boolean, Date, Datetime) that become folders: batch N is
        ``microbatch_id=<N>/<column>=<value>/part-....parquet``. Read them with
        ``pl.scan_parquet("out/**/*.parquet", hive_partitioning=True)``, where ``microbatch_id`` is a column too. Null and the empty
        text are both null, as in Spark. Parquet and ipc only. Each value in a batch costs a file.
    changelog
        Take update mode: each changed row is one more row in the files; nothing is replaced.
    compact_every
        How many log entries are merged into one, 1 or more.
    format_options
        Options of Polars' writer. Parquet: compression, compression_level, statistics, row_group_size, data_page_size. Csv: separator,
        quote_char, null_value (texts equal to it are read as null). Ipc: compression.
    storage_options
        Refused: only local folders are written to.

    Raises
    ------
    PlanError
        An option is unknown or cannot be.
    """

    path: str | os.PathLike[str]
    format: str = field(default="parquet", kw_only=True)
    partition_by: str | Sequence[str] = field(default=(), kw_only=True)
    changelog: bool = field(default=False, kw_only=True)
    compact_every: int = field(default=10, kw_only=True)
    format_options: Mapping[str, Any] | None = field(default=None, kw_only=True)
    storage_options: Mapping[str, str] | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        local_folder(os.fspath(self.path))
        format_named(self.format).check_options(self.format_options or {})
        if self.storage_options is not None:
            msg = "storage_options are for object stores, and the file sink writes to local folders only; use sink_delta for object stores"
            raise PlanError(msg)
        if self.compact_every < 1:
            msg = f"compact_every={self.compact_every} must be 1 or more batches"
            raise PlanError(msg)
        if self._partitions() and not format_named(self.format).partitions:
            msg = f'partition_by needs format="parquet" or "ipc": readers of {self.format} files do not look for columns in folder names'
            raise PlanError(msg)

    @property
    def description(self) -> str:
        """``FileSink[<path>]``."""
        return f"FileSink[{os.fspath(self.path)}]"

    @property
    def delivery(self) -> Delivery:
        """Exactly once, by the ids in the folder's log."""
        return Delivery.EXACTLY_ONCE

    @property
    def durable(self) -> bool:
        """True."""
        return True

    def check(self, mode: OutputMode, schema: pl.Schema, keys: tuple[str, ...]) -> None:  # noqa: ARG002 - files have no keys
        """Raise PlanError for complete mode, update mode without ``changelog``, and columns the format cannot hold."""
        if mode is OutputMode.COMPLETE:
            msg = 'files cannot be replaced under their readers, so the file sink refuses mode="complete"; write to Delta with sink_delta'
            raise PlanError(msg)
        if mode is OutputMode.UPDATE and not self.changelog:
            msg = (
                'files cannot replace rows, so the file sink refuses mode="update"; write to Delta with sink_delta, which replaces rows by '
                'key; or pass changelog=True to keep each changed row as one more row; or use mode="append" with a watermark'
            )
            raise PlanError(msg)
        format_named(self.format).check_schema(schema)
        check_partitions(self._partitions(), schema)

    def open(self, context: SinkContext) -> FileWriter:
        """Return a writer; makes the folder and removes what dead attempts of this query hid in it.

        Raises
        ------
        PlanError
            The folder was begun with other columns, partitions or another format.
        SinkError
            The folder belongs to another query, or cannot be written to.
        """
        self.check(context.mode, context.schema, context.keys)
        folder = local_folder(os.fspath(self.path))
        chosen = format_named(self.format)
        files = BatchFiles(
            folder=folder,
            query_id=context.query_id,
            format=chosen,
            options=dict(self.format_options or {}),
            partition_by=self._partitions(),
        )
        owner = Owner(
            query_id=context.query_id,
            format=chosen.name,
            reading=chosen.reading_options(self.format_options or {}),
            partition_by=self._partitions(),
            schema=context.schema,
        )
        with _errors_named(f"{self.description} cannot be opened"):
            check_place(folder, self._partitions(), context.schema)
            make_folder(folder)
            files.remove_staged()
            return FileWriter(files, owner, context, compact_every=self.compact_every)

    def _partitions(self) -> tuple[str, ...]:
        return (self.partition_by,) if isinstance(self.partition_by, str) else tuple(self.partition_by)


class FileWriter:
    """Writes the batches of one run; the steps are those of the module's docstring."""

    def __init__(self, files: BatchFiles, owner: Owner, context: SinkContext, *, compact_every: int) -> None:
        self._files = files
        self._owner = owner
        self._log = context.open_log(str(files.folder / COMMITTED), compact_every)
        self._owners = context.open_log(str(files.folder / OWNERS), _OWNERS_COMPACTED_EVERY)
        self._claimed = self._check_owner()
        self._metrics: dict[str, str] = {}
        if files.partition_by and not self._claimed and self._log.latest_id() is not None:
            msg = (
                f"{files.folder} was begun by another program, such as Spark, whose folders of partitions do not mix with ours; "
                "take a new folder, or leave partition_by out"
            )
            raise PlanError(msg)

    def write(self, batch: SinkBatch) -> None:
        """Make the batch visible, whole, once; a batch whose id the log has or had changes nothing.

        Raises SinkError: the disk refused, ids have a gap, or another query or run writes here too.
        """
        with _errors_named(f"batch {batch.batch_id} was not written to {self._files.folder}, and nothing of it is visible"):
            newest = self._log.latest_id()
            self._claimed = self._claimed or self._check_owner()
            if self._claimed and newest is not None and batch.batch_id <= newest:  # step 1
                self._metrics = {"files": "0", "bytes": "0"}
                return
            self._check_follows(batch.batch_id, newest)
            self._claim()  # step 2
            self._metrics = self._write_new(batch)

    def metrics(self) -> Mapping[str, str]:
        """Return ``files`` and ``bytes`` of the batch just written, 0 if it was there already."""
        return self._metrics

    def close(self) -> None:
        """There is nothing to give back."""

    def _check_owner(self) -> bool:
        """Return True if this query owns the folder, False if nobody does; raise if another does."""
        lines = self._owners.get(_OWNER_ENTRY)
        if lines is None:
            return False
        where = str(self._files.folder / OWNERS / str(_OWNER_ENTRY))
        Owner.from_line("".join(lines), where).check_same(self._owner, self._files.folder)
        return True

    def _check_follows(self, batch_id: int, newest: int | None) -> None:
        if newest is None or batch_id == newest + 1:
            return
        whose = "this query's" if self._claimed else "another program's, such as Spark's,"
        msg = (
            f"the log in {self._files.folder} is {whose} and ends with batch {newest}, so batch {newest + 1} must follow, not {batch_id}; "
            "restore folder and checkpoint to the same moment, or take a new folder"
        )
        raise SinkError(msg)

    def _claim(self) -> None:
        if not self._claimed:
            # Only one add can succeed, so of two queries on a new folder one is told here.
            self._owners.add(_OWNER_ENTRY, [self._owner.to_line()])
            self._claimed = self._check_owner()

    def _write_new(self, batch: SinkBatch) -> dict[str, str]:
        try:
            paths = self._files.publish(batch.batch_id, batch.rows)  # steps 3 and 4
            n_bytes = sum(path.stat().st_size for path in paths)
            lines = [file_line(path) for path in paths]
            fault_point("sink_files_written")
            added = self._log.add(batch.batch_id, lines)  # step 5
        except (OSError, MicrobatchError, pl.exceptions.PolarsError):
            self._withdraw_unless_logged(batch.batch_id)
            raise
        if not added:
            msg = (
                f"batch {batch.batch_id} was written to {self._files.folder} by another run of query {self._owner.query_id} "
                "in the same moment; stop one of the two"
            )
            raise SinkError(msg)
        n_lost = self._files.format.n_lost_numbers(batch.rows)
        return {"files": str(len(paths)), "bytes": str(n_bytes)} | ({"nonfinite_as_null": str(n_lost)} if n_lost else {})

    def _withdraw_unless_logged(self, batch_id: int) -> None:
        # If the folder cannot even be looked at, the files stay; the restart takes them as those of a dead attempt.
        with suppress(OSError, MicrobatchError):
            newest = self._log.latest_id()
            if newest is None or newest < batch_id:
                self._files.withdraw(batch_id)


@contextmanager
def _errors_named(what_failed: str) -> Generator[None, None, None]:
    """Turn errors of disk and writer into SinkError."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        msg = f"{what_failed}: {error}. Look at the disk (space, rights), then start the query again"
        raise SinkError(msg) from error
