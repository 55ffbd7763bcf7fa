"""The Delta table a query writes: opening it, comparing it with the query, and one commit to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from microbatch.durations import duration_us
from microbatch.errors import SinkError
from microbatch.model import OutputMode
from microbatch.sinks.delta_types import schema_conflicts
from microbatch.sinks.delta_upsert import same_key

RETENTION = "delta.logRetentionDuration"
_DEFAULT_RETENTION = "interval 30 days"
# Checkpoints and log clean-up are DeltaMaintenance's; inside a commit they would be paid by the batch.
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_MERGE_FIGURES = {
    "rowsInserted": "num_target_rows_inserted",
    "rowsUpdated": "num_target_rows_updated",
    "filesAdded": "num_target_files_added",
    "filesRemoved": "num_target_files_removed",
}


def absolute(table: str) -> str:
    """Return a URI as it is, a local folder as an absolute path, so that a later change of directory does not count."""
    return table if "://" in table else str(Path(table).absolute())


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTable:
    """Where a table is, what it must look like, and how a batch goes into it.

    ``schema`` is the query's, as Delta holds it; ``keys`` are used in update mode only.
    """

    uri: str
    options: dict[str, str]
    schema: pl.Schema
    partition_by: tuple[str, ...]
    properties: Mapping[str, str]
    merge_schema: bool
    mode: OutputMode
    keys: tuple[str, ...]

    def load(self) -> DeltaTable | None:
        """Return a handle on the newest version, or None if there is no table; raises SinkError."""
        try:
            return self.reload()
        except TableNotFoundError:
            return None
        except DeltaError as error:
            msg = f"{self.uri}: the Delta table cannot be opened: {error}; restore _delta_log from a copy, or write to another folder"
            raise SinkError(msg) from error
        except OSError as error:
            msg = f"{self.uri}: the storage of the Delta table failed: {error}"
            raise SinkError(msg, retryable=True) from error

    def reload(self) -> DeltaTable:
        """Return a handle on the newest version; raises the library's errors."""
        return DeltaTable(self.uri, storage_options=self.options)

    def check_free(self) -> None:
        """Raise SinkError unless a table may be created; looks at local folders only.

        A ``_delta_log`` without entries (but perhaps with staged ones, ``...json#1``) is what a crash in the first batch leaves: free.
        """
        folder = self._local_folder()
        if folder is None or not folder.exists():
            return
        log = folder / "_delta_log"
        if any(log.glob("*.json")) or any(log.glob("*.parquet")):
            msg = f"{folder} has a Delta log that cannot be read; restore {log} from a copy, or write to another folder"
            raise SinkError(msg)
        found = None if log.is_dir() else next(folder.iterdir(), None)
        if found is not None:
            msg = f"{folder} is no Delta table and holds other files ({found.name}); write to a new folder, or empty this one"
            raise SinkError(msg)

    def _local_folder(self) -> Path | None:
        if self.uri.startswith("file://"):
            return Path(url2pathname(urlsplit(self.uri).path))
        return None if "://" in self.uri else Path(self.uri)

    def misfits(self, table: DeltaTable) -> list[str]:
        """Return why the query's rows cannot go into the table; empty if they can."""
        held = table.metadata()
        why = schema_conflicts(pl.Schema(table.schema().to_arrow()), self.schema, merge_schema=self.merge_schema)
        if self.partition_by and list(self.partition_by) != held.partition_columns:
            why.append(f"the table is partitioned by {held.partition_columns}, the query by {list(self.partition_by)}")
        for name, wanted in self.properties.items():
            found = held.configuration.get(name, _DEFAULT_RETENTION if name == RETENTION else None)
            if not _is_same_property(name, found, wanted):
                why.append(f"property {name} is {found!r} in the table, {wanted!r} in the query")
        if self.mode is not OutputMode.APPEND and held.configuration.get("delta.appendOnly") == "true":
            why.append(f"the table allows appends only (delta.appendOnly=true), and {self.mode} mode replaces rows")
        return why

    def commit_retries(self, table: DeltaTable | None) -> int | None:
        """How often the library may put a commit behind those of other writers: None, as it likes; 0, never.

        It may with appends: it refuses by itself if another commit has the same query's id, changed the columns or deleted files.
        It must not with a creation, which it would put behind another one unlooked at, nor with overwrites and upserts: put behind a
        compaction, an overwrite removes the files that were compacted, and leaves their rows, in the compacted file, beside its own
        (seen with deltalake 1.6.6).
        """
        return None if self.mode is OutputMode.APPEND and table is not None else 0

    def commit(self, table: DeltaTable | None, rows: pl.DataFrame, properties: CommitProperties) -> tuple[DeltaTable, Mapping[str, str]]:
        """Write the rows and commit them, creating the table if ``table`` is None; return the handle, now on that version, and figures.

        A batch without rows is committed for its id alone (Spark: DeltaSink.addBatch), in update mode as an append of nothing.

        Raises the library's errors: CommitFailedError if another commit is in the way, with nothing written that a reader would see.
        """
        if table is None:
            return self._create(rows, properties), {}
        if self.mode is OutputMode.UPDATE and not rows.is_empty():
            return table, self._merge(table, rows, properties)
        write_deltalake(
            table,
            rows,
            mode="overwrite" if self.mode is OutputMode.COMPLETE else "append",
            schema_mode="merge" if self.merge_schema else None,
            commit_properties=properties,
            post_commithook_properties=_NO_HOOKS,
        )
        return table, {}

    def _create(self, rows: pl.DataFrame, properties: CommitProperties) -> DeltaTable:
        folder = self._local_folder()
        if folder is not None:
            # Before any data file: should the process die now, `check_free` must know the folder again.
            (folder / "_delta_log").mkdir(parents=True, exist_ok=True)
        write_deltalake(
            self.uri,
            rows,
            mode="error",
            partition_by=list(self.partition_by) or None,
            configuration=self.properties,
            storage_options=self.options,
            commit_properties=properties,
            post_commithook_properties=_NO_HOOKS,
        )
        return self.reload()

    def _merge(self, table: DeltaTable, rows: pl.DataFrame, properties: CommitProperties) -> Mapping[str, str]:
        done = (
            table.merge(
                rows,
                same_key(rows, self.keys),
                source_alias="s",
                target_alias="t",
                merge_schema=self.merge_schema,
                streamed_exec=False,  # else the batch's own minima and maxima are not used to skip files
                commit_properties=properties,
                post_commithook_properties=_NO_HOOKS,
            )
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute()
        )
        return {ours: str(done[theirs]) for ours, theirs in _MERGE_FIGURES.items()}


def _is_same_property(name: str, found: str | None, wanted: str) -> bool:
    if name == RETENTION and found is not None:
        return duration_us(found.lower(), what=name) == duration_us(wanted.lower(), what=name)
    return found == wanted
