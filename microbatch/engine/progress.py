"""The numbers of a batch, under Spark's names (ProgressReporter, StreamingQueryProgress), and those who listen to them."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from microbatch.clock import stopwatch_us
from microbatch.model import Json, Offset
from microbatch.operators.base import OperatorProgress
from microbatch.operators.watermark import EventTimes

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Progress(dict[str, Any]):
    """One batch in numbers: a dict with Spark's JSON keys, also readable as ``progress.num_input_rows`` or ``progress.numInputRows``.

    Keys: id, runId, name, timestamp, batchId, batchDuration, durationMs, eventTime, numInputRows, inputRowsPerSecond,
    processedRowsPerSecond, stateOperators, sources, sink, observedMetrics. ``eventTime.watermark`` is the one *used by* this batch.
    """

    def __getattr__(self, name: str) -> Any:
        first, *rest = name.split("_")
        camel = first + "".join(part.title() for part in rest)
        if camel in self:
            return self[camel]
        msg = f"progress has no {name!r}; it has {', '.join(self)}"
        raise AttributeError(msg)

    @property
    def json(self) -> str:
        """The progress as one line of JSON."""
        return json.dumps(self)

    @property
    def pretty_json(self) -> str:
        """The progress as indented JSON."""
        return json.dumps(self, indent=2)


# Spark: ProgressReporter; all of them in every batch, 0 for what it had no need of.
_PHASES: tuple[str, ...] = ("latestOffset", "walCommit", "getBatch", "queryPlanning", "addBatch", "commitOffsets")


class Phases:
    """Milliseconds spent in each phase of one batch."""

    def __init__(self) -> None:
        self._started = stopwatch_us()
        self._spent_us = dict.fromkeys(_PHASES, 0)

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        """Add the time of the block to the phase."""
        started = stopwatch_us()
        try:
            yield
        finally:
            self._spent_us[name] += stopwatch_us() - started

    def total_us(self) -> int:
        """Return microseconds since the batch began."""
        return stopwatch_us() - self._started

    def as_json(self) -> dict[str, Json]:
        """Return milliseconds per phase and for the whole trigger."""
        spent: dict[str, Json] = {name: us // 1_000 for name, us in self._spent_us.items()}
        return spent | {"triggerExecution": self.total_us() // 1_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProgress:
    """What one source gave to a batch."""

    description: str
    start: Offset
    end: Offset
    latest: Offset
    rows: int
    metrics: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFigures:
    """All the figures of one trigger, before they are given Spark's names."""

    query_id: str
    run_id: str
    name: str | None
    batch_id: int
    started_us: int
    since_last_us: int | None
    phases: Phases
    sources: Sequence[SourceProgress]
    event_times: Sequence[EventTimes]
    watermark_us: int | None
    stateful: Sequence[OperatorProgress]
    sink: str
    sink_rows: int
    sink_metrics: Mapping[str, str]


def to_progress(figures: BatchFigures) -> Progress:
    """Return the figures under Spark's names."""
    rows = sum(source.rows for source in figures.sources)
    took_us = max(figures.phases.total_us(), 1_000)
    return Progress(
        id=figures.query_id,
        runId=figures.run_id,
        name=figures.name,
        timestamp=iso_time(figures.started_us),
        batchId=figures.batch_id,
        batchDuration=took_us // 1_000,
        durationMs=figures.phases.as_json(),
        eventTime=_event_time(figures.event_times, figures.watermark_us),
        numInputRows=rows,
        inputRowsPerSecond=_per_second(rows, figures.since_last_us),
        processedRowsPerSecond=_per_second(rows, took_us),
        stateOperators=[_operator(o) for o in reversed(figures.stateful)],
        sources=[_source(s, figures.since_last_us, took_us) for s in figures.sources],
        sink={"description": figures.sink, "numOutputRows": figures.sink_rows, "metrics": dict(figures.sink_metrics)},
        observedMetrics={},
    )


def iso_time(us: int) -> str:
    """Return a time as text with milliseconds, such as ``2013-01-01T05:00:00.000Z``; times outside years 1 to 9999 as microseconds."""
    try:
        return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return f"{us}us"


def _per_second(rows: int, us: int | None) -> float:
    return rows * 1e6 / us if us else 0.0


def _event_time(seen: Sequence[EventTimes], watermark_us: int | None) -> dict[str, str]:
    if not seen:
        return {}
    figures = {"watermark": iso_time(watermark_us or 0)}
    with_rows = [times for times in seen if times.max_us is not None]
    for key, pick in (("max", max), ("min", min)):
        values = [v for times in with_rows if (v := getattr(times, f"{key}_us")) is not None]
        if values:
            figures[key] = iso_time(pick(values))
    means = [times.mean_us for times in with_rows if times.mean_us is not None]
    if means:
        figures["avg"] = iso_time(sum(means) // len(means))
    return figures


def _operator(operator: OperatorProgress) -> dict[str, Json]:
    return {
        "operatorName": operator.name,
        "numRowsTotal": operator.rows_total,
        "numRowsUpdated": operator.rows_updated,
        "numRowsRemoved": operator.rows_removed,
        "allUpdatesTimeMs": operator.update_ms,
        "allRemovalsTimeMs": operator.removal_ms,
        "commitTimeMs": 0,
        "memoryUsedBytes": operator.memory_bytes,
        "numRowsDroppedByWatermark": operator.rows_late,
        "numShufflePartitions": 1,
        "numStateStoreInstances": 1,
        "customMetrics": {},
    }


def _source(source: SourceProgress, since_last_us: int | None, took_us: int) -> dict[str, Json]:
    return {
        "description": source.description,
        "startOffset": source.start,
        "endOffset": source.end,
        "latestOffset": source.latest,
        "numInputRows": source.rows,
        "inputRowsPerSecond": _per_second(source.rows, since_last_us),
        "processedRowsPerSecond": _per_second(source.rows, took_us),
        "metrics": dict(source.metrics),
    }
