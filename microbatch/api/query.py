"""Query: what is to be done, described. StreamingQuery: it being done."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from microbatch.durations import Duration, duration_us
from microbatch.engine.loop import Listener, QueryLoop
from microbatch.engine.progress import Progress
from microbatch.engine.spec import QuerySpec
from microbatch.engine.triggers import AvailableNow, Once, ProcessingTime, Trigger
from microbatch.errors import PlanError, QueryFailedError
from microbatch.plan.explain import explain


class StreamingQueryListener:
    """Hears of the life of queries; override what you need. Called on the query's thread: be quick."""

    def on_query_started(self, query_id: str, run_id: str, name: str | None) -> None:
        """The query is open and about to run its first batch."""

    def on_query_progress(self, progress: Progress) -> None:
        """A batch was committed."""

    def on_query_idle(self, query_id: str, run_id: str) -> None:
        """There is nothing to do, for the first time since the last batch."""

    def on_query_terminated(self, query_id: str, run_id: str, error: BaseException | None) -> None:
        """The query ended; ``error`` is None unless it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """What one ``Query.run()`` did.

    Attributes
    ----------
    batches, rows_in, rows_out
        Counts of this run.
    last_progress
        The figures of the last batch, None if there was nothing to do.
    """

    query_id: str
    run_id: str
    batches: int
    rows_in: int
    rows_out: int
    last_progress: Progress | None


class Query:
    """A stream with a sink, ready to run; made by ``StreamFrame.sink_*``. Making it starts nothing and writes nothing."""

    def __init__(self, spec: QuerySpec) -> None:
        self._spec = spec

    @property
    def name(self) -> str | None:
        """The name given to the query."""
        return self._spec.name

    def run(self, *, listeners: Sequence[Listener] = ()) -> QueryResult:
        """Process all there is now, in batches within the read limits, then stop: for scheduled jobs. Blocks.

        Raises
        ------
        QueryFailedError
            A batch failed; nothing of it counts, and the next run begins with it.
        CheckpointInUseError, CheckpointMismatchError, CheckpointCorruptError, PlanError, SourceError, SinkError
            The query could not be opened.
        """
        totals = _Totals()
        loop = QueryLoop(self._spec, AvailableNow(), [totals, *listeners])
        loop.run()
        if loop.error is not None:
            raise loop.error
        last = loop.progress[-1] if loop.progress else None
        return QueryResult(
            query_id=loop.query_id,
            run_id=loop.run_id,
            batches=loop.batches,
            rows_in=totals.rows_in,
            rows_out=totals.rows_out,
            last_progress=last,
        )

    def start(
        self, every: Duration | None = None, *, available_now: bool = False, once: bool = False, listeners: Sequence[Listener] = ()
    ) -> StreamingQuery:
        """Run in the background and return at once, when the query is open.

        Parameters
        ----------
        every
            Trigger at once and then at multiples of this on the clock; None: as fast as there is data.
        available_now
            Stop when all there was at the start is processed.
        once
            One batch of all there is, read limits aside, then stop.
        listeners
            Told of start, progress, idleness and end.
        """
        if sum([every is not None, available_now, once]) > 1:
            msg = "start takes one of every=, available_now=True, once=True"
            raise PlanError(msg)
        trigger: Trigger = AvailableNow() if available_now else Once() if once else ProcessingTime(interval_us=_interval_us(every))
        return StreamingQuery(QueryLoop(self._spec, trigger, listeners))

    def explain(self) -> str:
        """Return sink and plan as text."""
        spec = self._spec
        late = f", late rows to {spec.late_sink.description}" if spec.late_sink else ""
        return f"{spec.sink.description} mode={spec.mode} {spec.sink.delivery}, checkpoint={spec.checkpoint}{late}\n{explain(spec.node, 1)}"

    def __repr__(self) -> str:
        """Return sink and plan as text."""
        return f"Query {self._spec.name or ''}\n{self.explain()}"


def _interval_us(every: Duration | None) -> int:
    interval = 0 if every is None else duration_us(every, what="every")
    if interval < 0:
        msg = f"every={every!r} must not be negative"
        raise PlanError(msg)
    return interval


class _Totals(StreamingQueryListener):
    def __init__(self) -> None:
        self.rows_in = self.rows_out = 0

    def on_query_progress(self, progress: Progress) -> None:
        self.rows_in += progress["numInputRows"]
        self.rows_out += progress["sink"]["numOutputRows"]


class StreamingQuery:
    """A query that runs in the background; made by ``Query.start``. Usable as a context manager that stops it at the end."""

    def __init__(self, loop: QueryLoop) -> None:
        self._loop = loop
        # A daemon, so that a notebook or script that ends is not held up: a killed query is what the logs are for.
        self._thread = threading.Thread(target=loop.run, name=f"microbatch-{loop.spec.name or loop.query_id}", daemon=True)
        self._thread.start()

    @property
    def id(self) -> str:
        """Identity of the query; lives as long as its checkpoint."""
        return self._loop.query_id

    @property
    def run_id(self) -> str:
        """Identity of this run."""
        return self._loop.run_id

    @property
    def name(self) -> str | None:
        """The name given to the query."""
        return self._loop.spec.name

    @property
    def is_active(self) -> bool:
        """True until it stopped or failed."""
        return self._loop.is_active

    @property
    def status(self) -> dict[str, object]:
        """What it does now: message, isTriggerActive, isDataAvailable."""
        message = self._loop.message
        return {
            "message": message,
            "isTriggerActive": message == "Processing new data",
            "isDataAvailable": message == "Processing new data",
        }

    @property
    def last_progress(self) -> Progress | None:
        """Figures of the last batch, None before the first."""
        recent = self.recent_progress
        return recent[-1] if recent else None

    @property
    def recent_progress(self) -> list[Progress]:
        """Figures of the last 100 batches of this run, oldest first."""
        return list(self._loop.progress)

    @property
    def exception(self) -> QueryFailedError | None:
        """Why it failed, None if it did not."""
        return self._loop.error

    def explain(self) -> str:
        """Return the plan as text."""
        return explain(self._loop.spec.node)

    def process_all_available(self) -> None:
        """Return when everything that had arrived before this call is in the sink, batches without data included.

        Raises QueryFailedError if the query failed. Waits for ever if rows keep arriving faster than they are processed.
        """
        self._loop.wait_until_idle()
        self._raise_failure()

    def await_termination(self, timeout: float | None = None) -> bool:
        """Return True when the query has ended, False after ``timeout`` seconds; QueryFailedError if it failed."""
        ended = self._loop.wait_until_ended(timeout)
        if ended:
            self._thread.join()
            self._raise_failure()
        return ended

    def stop(self) -> None:
        """Finish the batch it is in, then end; returns when it has ended. The next start goes on from there."""
        self._loop.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._loop.error is not None:
            raise self._loop.error

    def __enter__(self) -> StreamingQuery:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        """Return name, id and what it does."""
        return f"StreamingQuery(name={self.name!r}, id={self.id!r}, {self._loop.message})"
