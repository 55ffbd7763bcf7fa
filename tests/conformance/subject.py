"""The query of a case while its steps run: defined, started, stopped, looked at.

Two ways to drive it. *Free*: it runs as fast as it can and ``run`` waits until it is idle; rows wait in their ports until then, so
that what several steps added arrives as one. *Ticking*: its trigger hangs on a manual clock, so it looks at its sources only when the
clock is moved: the only way several files can fall at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.clock import ManualClock
from microbatch.errors import MicrobatchError, QueryFailedError
from tests.conformance import engine
from tests.conformance.pipeline import Inputs, build
from tests.conformance.ports import FilePort, MemoryPort, Port, open_port
from tests.conformance.relation import Relation, Switch
from tests.conformance.report import MismatchError, NotSupportedError
from tests.conformance.sinks import Recorder, recorder_for

_TICK_MS = 1_000
_MOST_TICKS = 200
_PATIENCE_SECONDS = 30.0

_CONF = {"no_data_batches": "no_data_batches", "multiple_watermark_policy": "watermark_policy", "min_batches_to_retain": "retain_batches"}
_CONF_WITHOUT_EFFECT = {"shuffle_partitions", "available_now_wrapper", "stop_active_run_on_restart"}


class ProgressLog:
    """A listener that keeps the figures of every batch of every run."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def on_query_started(self, query_id: str, run_id: str, name: str | None) -> None: ...

    def on_query_progress(self, progress: Any) -> None:
        self.all.append(dict(progress))

    def on_query_idle(self, query_id: str, run_id: str) -> None: ...

    def on_query_terminated(self, query_id: str, run_id: str, error: BaseException | None) -> None: ...


Builder = Callable[[Mapping[str, Any]], Relation]
"""From the frames of the inputs to the relation of the query."""


class Subject:
    """One case's query with its inputs, sink, checkpoint and clock.

    ``ports`` and ``builder`` are given by cases of another form; by default they are made of the body's inputs and pipeline.
    """

    def __init__(
        self, body: dict[str, Any], folder: Path, *, ports: Mapping[str, Port] | None = None, builder: Builder | None = None
    ) -> None:
        self.checkpoint = folder / "checkpoint"
        self.clock = ManualClock()
        self.failing = Switch()
        self.mode = str(body.get("output_mode", "append"))
        self.pipeline: list[dict[str, Any]] = body["pipeline"]
        self.trigger: Any = body.get("trigger", "continuous")
        self.conf: dict[str, Any] = dict(body.get("conf") or {})
        self.ports: dict[str, Port] = dict(ports or {name: open_port(name, spec, folder) for name, spec in body["inputs"].items()})
        self._builder = builder or self._build
        self.recorder: Recorder = recorder_for(str(body.get("area")))
        self.progress = ProgressLog()
        self.more_options: dict[str, Any] = {}
        self.relation: Relation | None = None
        self.handle: Any = None
        self.start_error: Exception | None = None
        self._start_is_due = False
        self._expected_failure: QueryFailedError | None = None

    # -- defining ---------------------------------------------------------------------------------------------------------

    def define(self) -> Any:
        """Return the query as it is described now; touches nothing."""
        self.relation = self._builder({name: port.frame() for name, port in self.ports.items()})
        return self.recorder.query(self.relation.frame, {"mode": self.mode, "checkpoint": str(self.checkpoint), **self._options()})

    def _build(self, frames: Mapping[str, Any]) -> Relation:
        columns = {name: port.columns for name, port in self.ports.items()}
        return build(self.pipeline, Inputs(frames=frames, columns=columns, failing=self.failing))

    def _options(self) -> dict[str, Any]:
        unknown = set(self.conf) - set(_CONF) - _CONF_WITHOUT_EFFECT
        if unknown:
            msg = f"conf {min(unknown)}"
            raise NotSupportedError(msg)
        return (
            {ours: self.conf[theirs] for theirs, ours in _CONF.items() if theirs in self.conf} | {"clock": self.clock} | self.more_options
        )

    @property
    def ticking(self) -> bool:
        """True if the trigger hangs on the clock."""
        return isinstance(self.trigger, dict) or (
            self.trigger == "continuous" and any(isinstance(p, FilePort) for p in self.ports.values())
        )

    @property
    def bounded(self) -> bool:
        """True if a start ends by itself."""
        return self.trigger in ("available_now", "once")

    @property
    def active(self) -> bool:
        """True while the query runs."""
        return self.handle is not None and bool(self.handle.is_active)

    # -- running ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the query; a bounded one starts at the next ``run`` or look. An error is kept for ``expect_failure``."""
        if self.bounded:
            self._start_is_due = True
            return
        if self.active and not self.conf.get("stop_active_run_on_restart", True):
            self._start_second()
            return
        self.stop()
        self.let_arrive()
        try:
            self.handle = self.define().start(every=self._every() if self.ticking else None, listeners=[self.progress])
        except (MicrobatchError, pl.exceptions.PolarsError) as error:
            self.start_error = error
            return
        self.settle()

    def _start_second(self) -> None:
        try:
            second = self.define().start(listeners=[self.progress])
        except MicrobatchError as error:
            self.start_error = error
            return
        second.stop()

    def _every(self) -> str:
        return f"{self.tick_ms}ms"

    @property
    def tick_ms(self) -> int:
        """The interval of the trigger, milliseconds."""
        return int(self.trigger["every_ms"]) if isinstance(self.trigger, dict) else _TICK_MS

    def stop(self) -> None:
        """Stop the query if it runs."""
        self._start_is_due = False
        if self.handle is not None:
            self.handle.stop()

    def run(self) -> None:
        """Process everything there is; raises what stopped the query."""
        self._raise_start_error()
        self.let_arrive()
        if self.bounded:
            self._run_bounded()
            return
        if not self.active:
            self.start()
            self._raise_start_error()
        if self.ticking:
            self._tick_until_idle()
        else:
            self.handle.process_all_available()

    def look(self) -> None:
        """Do what must be done before the sink is looked at: a due start, a batch under way."""
        self._raise_start_error()
        if self._start_is_due:
            self.run()
        self.settle()
        self.raise_failure()

    def _run_bounded(self) -> None:
        self._start_is_due = False
        self.handle = self.define().start(
            available_now=self.trigger == "available_now", once=self.trigger == "once", listeners=[self.progress]
        )
        if not self.handle.await_termination(_PATIENCE_SECONDS):
            msg = f"the query did not end within {_PATIENCE_SECONDS} s"
            raise MismatchError(msg)
        self.raise_failure()

    def let_arrive(self) -> None:
        """Let the rows that wait arrive on all streams at once."""
        waiting = {port.stream: rows for port in self.ports.values() if isinstance(port, MemoryPort) and (rows := port.take()) is not None}
        if waiting:
            engine.feature(mb, "MemoryStream").add_together(waiting)

    def set_clock_ms(self, now_ms: int) -> None:
        """Move the clock and wait for the trigger that falls due."""
        self.let_arrive()
        self.clock.set_us(now_ms * 1_000)
        self.settle()

    def settle(self) -> None:
        """Return when a query that hangs on the clock waits for it, or has ended."""
        while self.ticking and self.active and not self.clock.wait_for_sleeper(0.02):
            pass

    def run_triggers(self, count: int) -> None:
        """Run so many triggers; a start is the first one."""
        if not self.ticking:
            msg = "a number of triggers of a query that runs freely"
            raise NotSupportedError(msg)
        left = count
        if not self.active:
            self.start()
            self._raise_start_error()
            left -= 1
        for _ in range(left):
            self._tick()

    def _tick(self) -> None:
        self.set_clock_ms((self.clock.now_us() // 1_000 // self.tick_ms + 1) * self.tick_ms)
        self.raise_failure()

    def _tick_until_idle(self) -> None:
        for _ in range(_MOST_TICKS):
            before = len(self.progress.all)
            self._tick()
            if len(self.progress.all) == before:
                return
        msg = f"the query was still busy after {_MOST_TICKS} triggers"
        raise MismatchError(msg)

    def raise_failure(self) -> None:
        """Raise what stopped the query, if it failed."""
        failure: QueryFailedError | None = None if self.handle is None else self.handle.exception
        if failure is not None and failure is not self._expected_failure:
            raise failure

    def expect_its_failure(self) -> None:
        """Let the failure of now be no news: what lies in the sink can be looked at."""
        self._expected_failure = None if self.handle is None else self.handle.exception

    def _raise_start_error(self) -> None:
        error, self.start_error = self.start_error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Stop whatever runs; for the end of a case."""
        self.stop()
