"""One run of a query, batch by batch: the numbered steps of a micro-batch (Spark: MicroBatchExecution).

 1. choose the end of each source
 2. fix the marks and the batch time
 3. decide: is there anything to do?
 4. log the decision, on a thread                        -> offsets/N
 5. read and evaluate: no effect outside, so it need not wait for 4
 6. wait for 4; tell the sources that batch N-1 is over; purge old entries    fault points ``offsets_logged``, ``rows_read``
 7. write the state of version N+1, on a thread          -> state/N-*.delta   ``state_written``
 8. hand the rows to the sink                                                 ``sink_written``
    and, on a thread, the late rows to theirs, if the query keeps them       ``late_rows_written``
 9. move the watermark
10. log that the batch is done                           -> commits/N         ``batch_committed``

A crash after step 4 leads to step 5 of the same batch with the logged decision (see ``recovery``), one before it to step 1.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import polars as pl

from microbatch.clock import new_uuid
from microbatch.engine.growth import GrowthWatch
from microbatch.engine.opened import Opened
from microbatch.engine.progress import BatchFigures, Phases, Progress, SourceProgress, to_progress
from microbatch.engine.watermark import WatermarkTracker
from microbatch.errors import CheckpointInUseError
from microbatch.faults import fault_point
from microbatch.model import BatchCommit, BatchPlan, Marks, Offset
from microbatch.operators.base import Batch, LateRows, engine_for
from microbatch.operators.late import late_table
from microbatch.plan.late import late_schema
from microbatch.plan.schema import schema_of
from microbatch.protocols import SinkBatch, Source

_log = logging.getLogger("microbatch.engine")


class Execution:
    """Runs batches of one opened query; used by one thread."""

    def __init__(self, opened: Opened, run_id: str) -> None:
        self._opened = opened
        self.run_id = run_id
        position = opened.position
        self._rerun = position.rerun
        self.next_batch_id = position.next_batch_id
        self._start = position.start
        self._previous_mark_us = position.previous_mark_us
        # A clock may be set back; a batch is never earlier than the one before, or timers that fired would be due again.
        self._last_batch_time_us = position.batch_time_us
        self.tracker = WatermarkTracker(
            opened.conf["spark.sql.streaming.multipleWatermarkPolicy"],
            [w.operator_id for w in opened.plan.watermarks],
            position.operator_watermarks_us,
            position.watermark_us,
        )
        self._growth = GrowthWatch(opened.spec, opened.checkpoint.query_id)
        self._last_started_us: int | None = None
        self._last_rows: dict[int, int] = {}
        self.current: BatchPlan | None = None
        # One thread for what may be written while the other goes on: first the offsets, then late rows.
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="microbatch-writing")

    def run_next(self, *, limited: bool = True, may_be_empty: bool = True) -> Progress | None:
        """Run one batch and return its figures, or return None if there was nothing to do.

        ``limited`` False leaves the sources' read limits aside; ``may_be_empty`` False makes no batch without data.
        """
        phases = Phases()
        started_us = self._opened.spec.clock.now_us()
        rerun, self._rerun = self._rerun, None
        plan = rerun or self._decide(phases, started_us, limited=limited, may_be_empty=may_be_empty)
        if plan is None:
            return None
        fault_point("batch_decided")
        self.current = plan
        logged = self._writing.submit(self._log_decision, plan) if rerun is None else None  # 4
        progress = self._run(plan, logged, phases, started_us)
        self.current = None
        return progress

    def freeze(self) -> None:
        """Fix the end of every source at what is there now."""
        for reader in self._opened.readers:
            reader.freeze()

    def _decide(self, phases: Phases, now_us: int, *, limited: bool, may_be_empty: bool) -> BatchPlan | None:
        with phases.phase("latestOffset"):  # 1
            ends = tuple(
                reader.latest_offset(start, limited=limited) for reader, start in zip(self._opened.readers, self._start, strict=True)
            )
        marks, time_us = self._next_marks(), max(now_us, self._last_batch_time_us)  # 2
        if ends == self._start and not (may_be_empty and self._wants_batch_without_data(marks, time_us)):  # 3
            return None
        return BatchPlan(batch_id=self.next_batch_id, offsets=ends, marks=marks, batch_time_us=time_us, conf=self._opened.conf)

    def _wants_batch_without_data(self, marks: Marks, time_us: int) -> bool:
        """Return True if time has moved since the last batch and an operator would close something; also first thing in a run.

        Spark makes none in the first trigger of a run, so what a crash kept open stays open until new data comes; here a restart is
        invisible.
        """
        if not self._opened.spec.no_data_batches or self.next_batch_id == 0:
            return False
        return self._opened.plan.wants_batch(marks, time_us)

    def _next_marks(self) -> Marks:
        return Marks(late_us=self._previous_mark_us, eviction_us=self.tracker.global_us)

    def _log_decision(self, plan: BatchPlan) -> None:
        if not self._opened.checkpoint.offsets.add(plan):
            msg = (
                f"checkpoint {self._opened.checkpoint.folder.path}: another run has logged batch {plan.batch_id} meanwhile; "
                f"this run stops, nothing of its batch was written. Make sure that one query at a time uses a checkpoint"
            )
            raise CheckpointInUseError(msg)

    def _forget_before(self, plan: BatchPlan) -> None:
        for reader, end in zip(self._opened.readers, self._start, strict=True):
            if end is not None:
                reader.commit(end)
        self._opened.checkpoint.purge_below(plan.batch_id - self._opened.spec.retain_batches)

    def _run(self, plan: BatchPlan, logged: Future[None] | None, phases: Phases, started_us: int) -> Progress:
        opened = self._opened
        counted: dict[int, int] = {}
        try:
            with phases.phase("addBatch"):
                rows, late = self._evaluate(plan, phases, counted)  # 5
        finally:
            with phases.phase("walCommit"):
                if logged is not None:
                    logged.result()
        fault_point("offsets_logged")
        self._forget_before(plan)  # 6
        fault_point("rows_read")
        with phases.phase("addBatch"):
            pending = opened.store.commit(plan.batch_id + 1, new_uuid()[:8]) if opened.store else None  # 7
            late_kept = self._writing.submit(self._keep_late_rows, plan, late) if opened.late_writer is not None else None
            opened.writer.write(SinkBatch(batch_id=plan.batch_id, rows=rows, info=self._info(plan)))  # 8
            fault_point("sink_written")
            if late_kept is not None:
                late_kept.result()
                fault_point("late_rows_written")
            state = pending.result() if pending else None
        self.tracker.advance(opened.plan.watermarks)  # 9
        with phases.phase("commitOffsets"):
            self._commit(plan, state)  # 10
        fault_point("batch_committed")
        progress = self._figures(plan, phases, started_us, counted, rows.height)
        self._growth.look(opened.plan.stateful)
        self._move_on(plan, started_us, counted)
        return progress

    def _keep_late_rows(self, plan: BatchPlan, late: Sequence[LateRows]) -> None:
        """Write the batch's late rows, also if there are none: ids without a gap are what a sink may ask for."""
        opened = self._opened
        assert opened.late_writer is not None
        rows = late_table(late, plan.batch_id, late_schema(opened.spec.node, opened.spec.mode))
        opened.late_writer.write(SinkBatch(batch_id=plan.batch_id, rows=rows, info=self._info(plan)))

    def _evaluate(self, plan: BatchPlan, phases: Phases, counted: dict[int, int]) -> tuple[pl.DataFrame, list[LateRows]]:
        """Return the rows for the sink, and those refused as late if the query keeps them."""
        opened = self._opened
        ranges = dict(zip(map(id, opened.sources), zip(self._start, plan.offsets, opened.readers, strict=True), strict=True))
        expected = 0

        def rows_of(source: Source, places: int) -> pl.LazyFrame:
            nonlocal expected
            start, end, reader = ranges[id(source)]
            if start == end:
                counted.setdefault(id(source), 0)
                return pl.LazyFrame(schema=source.schema())
            with phases.phase("getBatch"):
                rows = reader.read(start, end)
                known = reader.row_count(start, end)
            if known is None:
                batch.observe(rows.select(pl.len()), lambda figures: _add(counted, source, places * int(figures.item())))
            else:
                _add(counted, source, places * known)
            expected += known if known is not None else self._last_rows.get(id(source), 0)
            batch.engine = engine_for(expected)
            return rows

        late: list[LateRows] = []
        batch = Batch(
            batch_id=plan.batch_id,
            rows_of=rows_of,
            marks=plan.marks,
            time_us=plan.batch_time_us,
            mode=opened.spec.mode,
            late=late if opened.late_writer is not None else None,
        )
        with phases.phase("queryPlanning"):
            root = opened.plan.root
        rows = batch.collect(root.run(batch))
        return rows.cast(schema_of(opened.spec.node)) if rows.schema != schema_of(opened.spec.node) else rows, late

    def _info(self, plan: BatchPlan) -> Mapping[str, str]:
        ranges = zip(self._opened.sources, self._start, plan.offsets, strict=True)
        return {f"source.{k}": f"{source.description}: {start} to {end}" for k, (source, start, end) in enumerate(ranges)} | {
            "watermark_us": str(plan.marks.eviction_us)
        }

    def _commit(self, plan: BatchPlan, state: str | None) -> None:
        commit = BatchCommit(
            batch_id=plan.batch_id,
            next_watermark_us=self.tracker.global_us,
            operator_watermarks_us=self.tracker.known_us(),
            state=state,
        )
        if not self._opened.checkpoint.commits.add(commit):
            where = self._opened.checkpoint.folder.path
            msg = f"checkpoint {where}: another run has committed batch {plan.batch_id} meanwhile; stop one of them"
            raise CheckpointInUseError(msg)

    def _move_on(self, plan: BatchPlan, started_us: int, counted: dict[int, int]) -> None:
        self._start = plan.offsets
        self._previous_mark_us = plan.marks.eviction_us
        self._last_batch_time_us = plan.batch_time_us
        self.next_batch_id = plan.batch_id + 1
        self._last_started_us = started_us
        self._last_rows.update(counted)

    def _figures(self, plan: BatchPlan, phases: Phases, started_us: int, counted: Mapping[int, int], n_rows: int) -> Progress:
        opened = self._opened
        since = started_us - self._last_started_us if self._last_started_us is not None else None
        return to_progress(
            BatchFigures(
                query_id=opened.checkpoint.query_id,
                run_id=self.run_id,
                name=opened.spec.name,
                batch_id=plan.batch_id,
                started_us=started_us,
                since_last_us=since,
                phases=phases,
                sources=[self._source_figures(k, plan, counted) for k in range(len(opened.sources))],
                event_times=[w.seen for w in opened.plan.watermarks],
                watermark_us=plan.marks.eviction_us,
                stateful=[o.progress() for o in opened.plan.stateful],
                sink=opened.spec.sink.description,
                sink_rows=n_rows,
                sink_metrics=opened.writer.metrics(),
            )
        )

    def _source_figures(self, k: int, plan: BatchPlan, counted: Mapping[int, int]) -> SourceProgress:
        source, start, end = self._opened.sources[k], self._start[k], plan.offsets[k]
        return SourceProgress(
            description=source.description,
            start=start,
            end=end,
            latest=end,
            rows=counted.get(id(source), 0),
            metrics=self._opened.readers[k].metrics() if start != end else {},
        )

    @property
    def query_id(self) -> str:
        """Identity of the query: lives as long as its checkpoint."""
        return self._opened.checkpoint.query_id

    @property
    def offsets(self) -> tuple[Offset, ...]:
        """The end of the last finished batch, per source."""
        return self._start

    def close(self) -> None:
        """Close sources, sink, state and checkpoint."""
        self._writing.shutdown()
        self._opened.close.close()


def _add(counted: dict[int, int], source: Source, rows: int) -> None:
    counted[id(source)] = counted.get(id(source), 0) + rows
