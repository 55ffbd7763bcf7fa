"""The state of a query: versioned tables, one delta file a batch, merging and clearing away in the background."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from importlib.metadata import version as installed
from itertools import takewhile
from typing import TypeAlias

import polars as pl

from microbatch.checkpoint.place import CheckpointFolder
from microbatch.checkpoint.state.compaction import Thresholds, merged_parts, split_by_place
from microbatch.checkpoint.state.delta_file import FORMAT, Footer, encode, write_delta
from microbatch.checkpoint.state.fence import available_bytes
from microbatch.checkpoint.state.files import StateFiles, state_files
from microbatch.checkpoint.state.hashing import hash_order
from microbatch.checkpoint.state.manifest import (
    bytes_in,
    check_entry,
    fetch_version,
    files_in,
    folder_of,
    runs_of,
    table_entry,
    with_columns_of,
)
from microbatch.checkpoint.state.retention import Retention
from microbatch.checkpoint.state.run import DeltaRef, Run, map_run, merged_rows, sorted_rows, write_run
from microbatch.checkpoint.state.table import Table, without
from microbatch.clock import new_uuid
from microbatch.errors import CheckpointCorruptError
from microbatch.faults import fault_point
from microbatch.protocols import TableSpec

_SUFFIX = ".delta"
_ENGINE = installed("microbatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDelta:
    """A delta on its way to the disk."""

    name: str
    written: Future[None]

    def result(self) -> str:
        """Wait until the delta lasts and return its name, which the commit log keeps."""
        self.written.result()
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """Runs on their way to be one; what it gives is that run, in parts."""

    inputs: Sequence[Run]
    merged: Future[list[Run]]


MergeJob: TypeAlias = Callable[[Sequence[Run], TableSpec, bool, str], list[Run]]


class StateStore:
    """Tables at one version; the engine's thread reads and changes them, one other thread writes deltas, a third merges.

    What a batch changed counts when the commit log names its delta; a crash before that leaves a file nobody names.
    """

    def __init__(self, files: StateFiles, footer: Footer | None, version: int, retain_versions: int, thresholds: Thresholds) -> None:
        self.version = version
        self._files = files
        self._root = files.root
        self._footer = footer
        self._thresholds = thresholds
        self._tables: dict[str, Table] = {}
        self._merging: dict[str, Merge] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="microbatch-state")
        self._merger = ThreadPoolExecutor(1, thread_name_prefix="microbatch-merge")
        self._retention = Retention(files, retain_versions)

    @classmethod
    def open(
        cls,
        folder: CheckpointFolder,
        *,
        version: int,
        delta_name: str | None,
        retain_versions: int = 100,
        thresholds: Thresholds = Thresholds(),
    ) -> StateStore:
        """Return the state at ``version``.

        Parameters
        ----------
        folder
            The state's own folder.
        version
            Number of batches the state has seen; 0 is empty.
        delta_name
            The delta of batch ``version - 1`` as its commit names it, None if that batch kept no state: the tables are empty then.
            ``only_attempt`` finds it where the commit was lost.
        retain_versions
            How many versions before the newest stay readable.
        thresholds
            When runs are merged.

        Raises
        ------
        CheckpointCorruptError
            The delta, or a file it names, is missing or damaged.
        """
        files = state_files(folder)
        try:
            footer = None if delta_name is None else fetch_version(files, delta_name, version)
        except BaseException:
            files.close()
            raise
        return cls(files, footer, version, retain_versions, thresholds)

    def table(self, name: str, spec: TableSpec) -> Table:
        """Return the table of an operator, as it was at this version; empty if it is new."""
        table = Table(name, spec)
        entry = self._footer["tables"].get(name) if self._footer else None
        if entry is not None:
            check_entry(table, entry)
            runs = [self._ordered(with_columns_of(run, spec), table) for run in runs_of(self._root, entry, cold=self._is_cold())]
            table.keys, table.evicted_to = entry["rows"], entry["evicted_to"]
            table.runs = without(runs, table.evicted_to)
        self._tables[name] = table
        return table

    def _ordered(self, run: Run, table: Table) -> Run:
        """Return a run in the order of this process's hash function; a file is written anew, once, for the next version names it."""
        order = hash_order()
        if not run.is_hashed or all(ref.order == order for ref in (run.file, *run.deltas) if ref is not None):
            return run
        frame = sorted_rows(run.frame, table.spec)
        if run.file is None:
            return replace(run, frame=frame, views={})
        name = self._new_file(table)
        return self._run_in_file(name, frame, cold=self._is_cold())

    def _run_in_file(self, name: str, frame: pl.DataFrame, *, cold: bool) -> Run:
        """Return the rows as a run that lasts in a new file."""
        self._retention.protect(name)
        ref = write_run(self._root / name, name, frame)
        self._files.publish(name)
        return map_run(self._root, ref, cold=cold)

    def _is_cold(self) -> bool:
        """Return True if the run files are more than memory will hold."""
        limit = self._thresholds.memory_bytes
        if limit is None:
            available = available_bytes()
            limit = available // 2 if available is not None else sys.maxsize
        stored = bytes_in(self._footer) if self._footer else 0
        return max(stored, sum(run.file.bytes for table in self._tables.values() for run in table.runs if run.file)) > limit

    def commit(self, version: int, attempt: str) -> PendingDelta:
        """Begin to write what the batch changed as ``version``, and return at once; ``attempt`` is 8 hex digits.

        The tables may not be changed before ``result`` of the pending delta has returned. Raises what a merge in the background raised:
        its runs are unharmed, and are merged again after the next start.
        """
        self._finish_merges()
        name = f"{version - 1:020}-{attempt}{_SUFFIX}"
        changes = {table: table.added for table in self._tables.values()}
        streams, refs = encode(name, {t.name: [run.frame for run in added] for t, added in changes.items()})
        entries = {}
        for table, added in changes.items():
            new = refs.get(table.name, [])
            _note_deltas(table, added, new)
            entries[table.name] = table_entry(table)
            table.added = []
        footer: Footer = {"format": FORMAT, "version": version, "engine": _ENGINE, "polars": pl.__version__, "tables": entries}
        written = self._writer.submit(self._write, name, streams, footer)
        self.version = version
        self._start_merges({run.uid for added in changes.values() for run in added})
        return PendingDelta(name=name, written=written)

    def _write(self, name: str, streams: bytes, footer: Footer) -> None:
        write_delta(self._files, name, streams, footer)
        fault_point("state_written")
        self._retention.note(footer["version"], {name, *files_in(footer)})

    # -- merging ----------------------------------------------------------------------------------------------------------

    def _start_merges(self, fresh: set[int]) -> None:
        """Begin what compaction asks for; runs this batch added are not flushed, for the next one may evict them."""
        for table in self._tables.values():
            self._merge_small(table)
            if table.name not in self._merging:
                self._merge_large(table, fresh)
            if table.name in self._merging and self._thresholds.should_stall(table.runs):
                wait([self._merging[table.name].merged])
                self._finish_merges()

    def _merge_small(self, table: Table) -> None:
        """Merge small new runs here and now, also while older ones are being merged: a fast trigger makes many."""
        busy = {run.uid for run in self._merging[table.name].inputs} if table.name in self._merging else set[int]()
        free = list(takewhile(lambda run: run.file is None and run.uid not in busy, table.runs))
        small = self._thresholds.to_merge(free)
        if small and sum(run.rows for run in small) <= self._thresholds.inline_rows:
            table.replace_runs([run.uid for run in small], merged_in_memory(small, table.spec, _has_oldest(small, table)))

    def _merge_large(self, table: Table, fresh: set[int]) -> None:
        in_memory, in_files = split_by_place(table.runs)
        settled = [run for run in in_memory if run.uid not in fresh]
        if self._thresholds.should_flush(settled):
            self._submit(table, settled, self._merged_in_files)
        elif runs := self._thresholds.to_merge(in_memory):
            self._submit(table, runs, merged_in_memory)
        elif runs := self._thresholds.to_merge(in_files):
            self._submit(table, runs, self._merged_in_files)

    def _submit(self, table: Table, inputs: Sequence[Run], job: MergeJob) -> None:
        # Runs that come meanwhile are newer, so the oldest stays the oldest.
        merged = self._merger.submit(job, inputs, table.spec, _has_oldest(inputs, table), self._new_file(table))
        self._merging[table.name] = Merge(inputs=inputs, merged=merged)

    def _new_file(self, table: Table) -> str:
        """Return a name nobody uses, below the state's folder."""
        return f"{folder_of(table.name)}/{self.version:020}-{new_uuid()[:8]}.arrow"

    def _merged_in_files(self, runs: Sequence[Run], spec: TableSpec, has_oldest: bool, name: str) -> list[Run]:
        parts, cold = list[Run](), self._is_cold()
        for k, rows in enumerate(merged_parts(runs, spec, self._thresholds.part_rows, has_oldest)):
            part = name if k == 0 else name.replace(".arrow", f".{k}.arrow")
            parts.append(self._run_in_file(part, rows, cold=cold))
        return parts

    def _finish_merges(self) -> None:
        """Swap in what was merged since the last batch."""
        for name, merge in list(self._merging.items()):
            if merge.merged.done():
                del self._merging[name]
                self._tables[name].replace_runs([run.uid for run in merge.inputs], merge.merged.result())

    @property
    def merging(self) -> list[Future[list[Run]]]:
        """The merges under way."""
        return [merge.merged for merge in self._merging.values()]

    def close(self) -> None:
        """Wait for the threads; what was being merged is left to be cleared away later."""
        self._writer.shutdown(wait=True, cancel_futures=False)
        self._merger.shutdown(wait=True, cancel_futures=True)
        self._files.close()


def _has_oldest(runs: Sequence[Run], table: Table) -> bool:
    return runs[-1].uid == table.runs[-1].uid


def merged_in_memory(runs: Sequence[Run], spec: TableSpec, has_oldest: bool, name: str = "") -> list[Run]:  # noqa: ARG001
    """Return one run with the rows of several (newest first), lasting through all their deltas."""
    deltas = tuple(ref for run in reversed(runs) for ref in run.deltas)
    return [Run(frame=merged_rows(runs, spec, has_oldest=has_oldest), deltas=deltas)]


def _note_deltas(table: Table, added: Sequence[Run], refs: Sequence[DeltaRef]) -> None:
    """Tell the runs a batch added through which delta they last, also where eviction has cut them since."""
    by_uid = {run.uid: ref for run, ref in zip(added, refs, strict=True)}
    table.runs = tuple(replace(run, deltas=(by_uid[run.uid],)) if run.uid in by_uid else run for run in table.runs)


def only_attempt(folder: CheckpointFolder, version: int) -> str:
    """Return the delta that makes ``version`` when no commit names it; CheckpointCorruptError unless there is just one."""
    found = [name for name in folder.names() if name.startswith(f"{version - 1:020}-") and name.endswith(_SUFFIX)]
    if len(found) != 1:
        msg = (
            f"state {folder.path}: version {version} is needed, no commit names its file, and there are {len(found)} of them "
            f"{found}: restore the checkpoint from a copy"
        )
        raise CheckpointCorruptError(msg)
    return found[0]
