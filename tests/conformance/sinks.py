"""Where a case's rows go, batch by batch, through a sink of the engine."""

from __future__ import annotations

from typing import Any, Protocol

import polars as pl

import microbatch as mb
from microbatch.checkpoint.entry_log import open_entry_log
from microbatch.clock import ManualClock
from microbatch.model import OutputMode
from microbatch.protocols import SinkContext
from tests.conformance import engine

Batch = tuple[int, pl.DataFrame]


class Recorder(Protocol):
    """What the steps ask of a sink."""

    def query(self, frame: Any, options: dict[str, Any]) -> Any:
        """Return the query of a frame into this sink."""
        ...

    def batches(self) -> list[Batch]:
        """Return id and rows of each batch since the last ``clear``, batches without rows included."""
        ...

    def clear(self, *, with_ids: bool) -> None:
        """Forget all rows; ``with_ids``: also which batches were there, so that a replay is taken."""
        ...


class MemoryRecorder:
    """The engine's memory sink."""

    def __init__(self) -> None:
        self.sink = engine.feature(mb, "MemorySink")()

    def query(self, frame: Any, options: dict[str, Any]) -> Any:
        return engine.feature(frame, "sink_memory")(self.sink, **options)

    def batches(self) -> list[Batch]:
        batches: list[Batch] = self.sink.batches()
        return batches

    def clear(self, *, with_ids: bool) -> None:
        self.sink.clear(forget_ids=with_ids)


class ForeachBatchRecorder:
    """A user's function that keeps what it is given, and by the id knows what it has."""

    def __init__(self) -> None:
        self.fails_with: str | None = None
        self._batches: list[Batch] = []
        self._last_id = -1

    def query(self, frame: Any, options: dict[str, Any]) -> Any:
        return engine.feature(frame, "sink_foreach_batch")(self._take, **options)

    def _take(self, rows: pl.DataFrame, batch_id: int) -> None:
        if self.fails_with is not None:
            raise RuntimeError(self.fails_with)
        if batch_id > self._last_id:
            self._batches.append((batch_id, rows))
            self._last_id = batch_id

    def batches(self) -> list[Batch]:
        return list(self._batches)

    def clear(self, *, with_ids: bool) -> None:
        self._batches.clear()
        if with_ids:
            self._last_id = -1


def outside_context(query_id: str, mode: str, schema: pl.Schema) -> SinkContext:
    """Return what a run would lend to a sink that is called by hand; all columns are keys in update mode."""
    return SinkContext(
        query_id=query_id,
        query_name=None,
        mode=OutputMode(mode),
        schema=schema,
        keys=tuple(schema) if mode == "update" else (),
        clock=ManualClock(),
        open_log=open_entry_log,
    )


def recorder_for(area: str) -> Recorder:
    """Return the sink that cases of an area are about."""
    return ForeachBatchRecorder() if area == "foreach-batch" else MemoryRecorder()
