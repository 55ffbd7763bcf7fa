"""One run's writer to a Delta table: which batches are new, and what to do when others write too."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from microbatch.clock import new_uuid
from microbatch.errors import PlanError, SinkError
from microbatch.faults import fault_point
from microbatch.model import OutputMode
from microbatch.protocols import SinkBatch, SinkContext
from microbatch.sinks.delta_maintenance import DeltaMaintenance
from microbatch.sinks.delta_table import TargetTable
from microbatch.sinks.delta_types import to_delta
from microbatch.sinks.delta_upsert import one_row_per_key

_ATTEMPTS = 10  # each lost to another writer's commit; a compaction and a few appends in between are normal
_METADATA = "microbatch"  # key of what we keep in a commit's metadata
_LOOK_BACK = 1_000  # commits searched for the one that carries a batch, for the error message


class DeltaWriter:
    """Writes the batches of one run; use from one thread.

    A batch is written in these steps:

    1. Skip it if its id is not above the highest this run knows to be in the table.
    2. Take over the handle that maintenance has opened on a newer checkpoint, if there is one.
    3. If the handle is another than at the last commit, refuse the batch if another run of the query has got this far. Through the
       same handle the library finds that out itself: it commits no id behind a commit that changed the query's id.
    4. Write the files and commit them with (query id, batch id).
    5. If the library refuses, open the table again, make sure it is the same one and still fits, and after a conflict with another
       writer's commit go to 3.
    """

    def __init__(self, target: TargetTable, context: SinkContext, *, checkpoint_every: int) -> None:
        self._target = target
        self._query_id = context.query_id
        self._query_name = context.query_name
        self._run_id = new_uuid()
        self._checkpoint_every = checkpoint_every
        self._written_id = -1
        self._table: DeltaTable | None = None
        self._maintenance: DeltaMaintenance | None = None
        self._metrics: Mapping[str, str] = {}
        table = target.load()
        if table is None:
            target.check_free()
        else:
            self._hold(table, PlanError)
            self._written_id = self._recorded_id(table)

    def write(self, batch: SinkBatch) -> None:
        """Commit the batch unless the table has it.

        Raises
        ------
        SinkError
            Another run of this query wrote the batch; the table was removed, replaced or changed so that the rows no longer fit; a value
            does not fit; or (retryable) other writers' commits were in the way ten times, or the storage failed.
        """
        if batch.batch_id <= self._written_id:
            self._metrics = {"skipped": "the table has this batch"}
            return
        rows = to_delta(batch.rows, self._target.schema)
        if self._target.mode is OutputMode.UPDATE:
            rows = one_row_per_key(rows, self._target.keys)
        self._commit(batch, rows)
        self._written_id = batch.batch_id

    def metrics(self) -> Mapping[str, str]:
        """Return ``version`` of the table after the batch, for an upsert the rows and files touched; or ``skipped`` with the reason."""
        return self._metrics

    def close(self) -> None:
        """Wait for background maintenance."""
        if self._maintenance is not None:
            self._maintenance.close()

    def _commit(self, batch: SinkBatch, rows: pl.DataFrame) -> None:
        """Do steps 2 to 5."""
        refusal: DeltaError | None = None
        look = self._take_fresh_handle()
        for _ in range(_ATTEMPTS):
            if look and self._has(batch.batch_id):
                return
            look = True
            fault_point("sink_files_written")  # files and commit are one call of the library: nothing can come between them
            try:
                table, figures = self._target.commit(self._table, rows, self._properties(batch))
            except DeltaError as error:
                refusal = error
                self._look_again(error)
            except OSError as error:
                msg = f"{self._target.uri}: the storage of the Delta table failed: {error}; batch {batch.batch_id} was not written"
                raise SinkError(msg, retryable=True) from error
            else:
                self._committed(table, figures)
                return
        msg = f"{self._target.uri}: commits of other writers were in the way of batch {batch.batch_id} {_ATTEMPTS} times: {refusal}"
        raise SinkError(msg, retryable=True) from refusal

    def _properties(self, batch: SinkBatch) -> CommitProperties:
        return CommitProperties(
            custom_metadata={
                _METADATA: {
                    "queryId": self._query_id,
                    "queryName": self._query_name,
                    "runId": self._run_id,
                    "batchId": batch.batch_id,
                    "info": dict(batch.info),
                }
            },
            app_transactions=[Transaction(self._query_id, batch.batch_id)],
            max_commit_retries=self._target.commit_retries(self._table),
        )

    def _committed(self, table: DeltaTable, figures: Mapping[str, str]) -> None:
        if self._table is None:
            self._hold(table, SinkError)
        self._metrics = {"version": str(table.version()), **figures}
        if self._maintenance is not None:
            self._maintenance.committed(table.version())

    def _look_again(self, refusal: DeltaError) -> None:
        """Open the table again; return if the commit may be tried again, else raise SinkError with what stands in its way."""
        uri = self._target.uri
        table = self._target.load()
        if table is None and self._table is not None:
            msg = f"{uri}: the Delta table was there and is gone; restore it, or start the query with a new checkpoint ({refusal})"
            raise SinkError(msg) from refusal
        appeared = self._table is None and table is not None
        if table is not None:
            self._hold(table, SinkError)
        if not appeared and not isinstance(refusal, CommitFailedError):
            msg = f"{uri}: the Delta table did not take the batch: {refusal}"
            raise SinkError(msg) from refusal

    def _hold(self, table: DeltaTable, misfit: type[PlanError | SinkError]) -> None:
        """Write through this handle from now on, or raise ``misfit``."""
        target = self._target
        if self._table is not None and table.metadata().id != self._table.metadata().id:
            msg = f"{target.uri}: another Delta table was put in its place while the query ran; start the query with a new checkpoint"
            raise SinkError(msg)
        why = target.misfits(table)
        if why:
            msg = f"{target.uri} (version {table.version()}) does not fit the query: {'; '.join(why)}"
            raise misfit(msg)
        self._table = table
        if self._maintenance is None:
            self._maintenance = DeltaMaintenance(target.reload, every=self._checkpoint_every, version=table.version())

    def _take_fresh_handle(self) -> bool:
        """Return True if the handle is another now."""
        fresh = None if self._maintenance is None else self._maintenance.fresh()
        if fresh is None:
            return False
        try:
            fresh.update_incremental()
        except DeltaError as error:
            self._look_again(error)
        else:
            self._hold(fresh, SinkError)
        return True

    def _recorded_id(self, table: DeltaTable) -> int:
        recorded = table.transaction_version(self._query_id)
        return -1 if recorded is None else recorded

    def _has(self, batch_id: int) -> bool:
        """Return True if this run has committed the batch after all (an answer was lost); raise SinkError if another run has."""
        recorded = -1 if self._table is None else self._recorded_id(self._table)
        if self._table is None or recorded < batch_id:
            return False
        kept = ({**(entry.get(_METADATA) or {}), "version": entry["version"]} for entry in self._table.history(_LOOK_BACK))
        ours = (entry for entry in kept if (entry.get("queryId"), entry.get("batchId")) == (self._query_id, recorded))
        commit = next(ours, {"version": "unknown", "runId": "unknown"})
        if commit["runId"] == self._run_id:
            self._metrics = {"version": str(commit["version"])}
            return True
        msg = (
            f"{self._target.uri}: another run of query {self._query_id} has committed batch {recorded} "
            f"(version {commit['version']}, run {commit['runId']}) while this run was to write batch {batch_id}; "
            "stop one of the two; nothing was written twice"
        )
        raise SinkError(msg)
