"""The life of a query: opens it, runs batches at its trigger, tells listeners, closes it. One loop, one thread."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from microbatch.clock import new_uuid
from microbatch.engine.execution import Execution
from microbatch.engine.opened import open_query
from microbatch.engine.progress import Progress
from microbatch.engine.spec import QuerySpec
from microbatch.engine.triggers import AvailableNow, Once, ProcessingTime, Trigger, run_triggers
from microbatch.errors import MicrobatchError, QueryFailedError

_log = logging.getLogger("microbatch.engine")

_KEPT_PROGRESS = 100
_IDLE_SECONDS = (0.005, 0.25)  # an idle query looks again after the first, then twice as long each time up to the second


class Listener(Protocol):
    """Hears of the life of a query; called on the query's thread, so it should be quick. An error in it is logged, not raised."""

    def on_query_started(self, query_id: str, run_id: str, name: str | None) -> None:
        """The query is open and about to run its first batch."""
        ...

    def on_query_progress(self, progress: Progress) -> None:
        """A batch was committed."""
        ...

    def on_query_idle(self, query_id: str, run_id: str) -> None:
        """A trigger found nothing to do, for the first time since the last batch."""
        ...

    def on_query_terminated(self, query_id: str, run_id: str, error: BaseException | None) -> None:
        """The query ended; ``error`` is None if it was stopped or had done all there was."""
        ...


class QueryLoop:
    """Runs one query once. ``run`` blocks; every other method may be called from another thread."""

    def __init__(self, spec: QuerySpec, trigger: Trigger, listeners: Sequence[Listener]) -> None:
        self.spec = spec
        self.run_id = new_uuid()
        self.progress: deque[Progress] = deque(maxlen=_KEPT_PROGRESS)
        self.error: QueryFailedError | None = None
        self.message = "Initializing sources"
        self.batches = 0
        self._trigger = trigger
        self._listeners = listeners
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._state = threading.Condition()
        self._triggers_started = 0
        self._last_idle_trigger = 0
        self._ended = False
        # Opened here, so that a wrong checkpoint, table or schema is told to the caller of start, not to a thread.
        self.execution = _opened(spec, self.run_id)
        self.query_id = self.execution.query_id

    def run(self) -> None:
        """Run until the trigger is done, ``stop`` is called, or a batch fails; QueryFailedError is kept in ``error``, not raised."""
        self._tell("on_query_started", self.query_id, self.run_id, self.spec.name)
        try:
            self._run_trigger()
        except BaseException as cause:
            self.error = self._failure(cause)
            if not isinstance(cause, Exception):
                raise
        finally:
            self._end()

    def _run_trigger(self) -> None:
        match self._trigger:
            case ProcessingTime():
                run_triggers(self._trigger, self.spec.clock, self._stop, self._run_processing_time)
            case AvailableNow():
                self.execution.freeze()
                while not self._stop.is_set() and self._run_batch():
                    pass
            case Once():
                self._run_batch(limited=False, may_be_empty=False)

    def _run_processing_time(self) -> bool:
        if not self._run_batch() and isinstance(self._trigger, ProcessingTime) and not self._trigger.interval_us:
            self._wait_for_data()
        elif self._trigger.interval_us:  # type: ignore[union-attr]
            self.message = "Waiting for next trigger"
        return True

    def _wait_for_data(self) -> None:
        """Sleep a little, longer each time nothing was there, unless somebody wakes us."""
        idle_for = self._triggers_started - self._last_busy
        self._wake.wait(min(_IDLE_SECONDS[0] * 2 ** min(idle_for, 10), _IDLE_SECONDS[1]))
        self._wake.clear()

    _last_busy = 0

    def _run_batch(self, *, limited: bool = True, may_be_empty: bool = True) -> bool:
        with self._state:
            self._triggers_started += 1
            number = self._triggers_started
        self.message = "Processing new data"
        progress = self.execution.run_next(limited=limited, may_be_empty=may_be_empty)
        if progress is None:
            self._note_idle(number)
            return False
        self._last_busy = number
        self.batches += 1
        self.progress.append(progress)
        rows_in, rows_out = progress["numInputRows"], progress["sink"]["numOutputRows"]
        label = self.spec.name or self.query_id
        _log.info(
            "query %s batch %d: %d rows in, %d rows out, %d ms", label, progress["batchId"], rows_in, rows_out, progress["batchDuration"]
        )
        self._tell("on_query_progress", progress)
        return True

    def _note_idle(self, number: int) -> None:
        self.message = "Waiting for data to arrive"
        with self._state:
            first = self._last_idle_trigger <= self._last_busy
            self._last_idle_trigger = number
            self._state.notify_all()
        if first:
            self._tell("on_query_idle", self.query_id, self.run_id)

    def wait_until_idle(self) -> None:
        """Return once a trigger that began after this call found nothing to do, or the query ended."""
        with self._state:
            begun = self._triggers_started
            self._wake.set()
            self._state.wait_for(lambda: self._last_idle_trigger > begun or self._ended)

    def wait_until_ended(self, timeout_seconds: float | None) -> bool:
        """Return True once the query ended, False after the timeout."""
        with self._state:
            return self._state.wait_for(lambda: self._ended, timeout_seconds)

    def stop(self) -> None:
        """Ask the loop to end after the batch it is in."""
        self._stop.set()
        self._wake.set()

    @property
    def is_active(self) -> bool:
        """Return True until the query ended."""
        return not self._ended

    def _failure(self, cause: BaseException) -> QueryFailedError:
        plan = self.execution.current
        where, counts, then = "between batches", "Every batch before counts", ""
        if plan:
            where = f"at batch {plan.batch_id} (offsets {list(self.execution.offsets)} to {list(plan.offsets)})"
            counts, then = "Nothing of the batch counts yet", ": it goes on with this batch"
        kind = "" if isinstance(cause, MicrobatchError) else f"{type(cause).__name__}: "
        msg = (
            f"query {self.spec.name or self.query_id} stopped {where}: {kind}{cause}. {counts}; "
            f"repair the cause and start the query again on the same checkpoint{then}"
        )
        error = QueryFailedError(msg, query_id=self.query_id, batch_id=plan.batch_id if plan else None)
        error.__cause__ = cause
        return error

    def _end(self) -> None:
        try:
            self.execution.close()
        finally:
            self.message = "Stopped" if self.error is None else f"Terminated with exception: {self.error}"
            with self._state:
                self._ended = True
                self._state.notify_all()
            self._tell("on_query_terminated", self.query_id, self.run_id, self.error)

    def _tell(self, event: str, *args: object) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, event)(*args)
            except Exception:  # noqa: BLE001 - a listener is a guest: what it raises must not stop the query
                _log.exception("listener %r failed in %s; the query goes on", listener, event)


def _opened(spec: QuerySpec, run_id: str) -> Execution:
    try:
        return Execution(open_query(spec), run_id)
    except OSError as cause:
        msg = f"query {spec.name or spec.checkpoint} could not be opened: {cause}; no batch was begun: repair the cause and start it again"
        raise QueryFailedError(msg, query_id="", batch_id=None) from cause
