"""Figures under Spark's names."""

from __future__ import annotations

import json

import pytest

from microbatch.engine.progress import BatchFigures, Phases, Progress, SourceProgress, iso_time, to_progress
from microbatch.operators.watermark import NOTHING_SEEN, EventTimes


def figures(*event_times: EventTimes, rows: int = 10) -> Progress:
    source = SourceProgress(description="S", start=None, end=1, latest=1, rows=rows, metrics={"malformedRows": "2"})
    return to_progress(
        BatchFigures(
            query_id="q",
            run_id="r",
            name=None,
            batch_id=3,
            started_us=1_500_000,
            since_last_us=2_000_000,
            phases=Phases(),
            sources=[source],
            event_times=event_times,
            watermark_us=60_000_000,
            stateful=[],
            sink="K",
            sink_rows=4,
            sink_metrics={},
        )
    )


def test_progress_has_sparks_keys() -> None:
    assert list(figures()) == [
        "id", "runId", "name", "timestamp", "batchId", "batchDuration", "durationMs", "eventTime", "numInputRows", "inputRowsPerSecond",
        "processedRowsPerSecond", "stateOperators", "sources", "sink", "observedMetrics",
    ]  # fmt: skip


def test_progress_is_readable_under_both_spellings_and_as_json() -> None:
    progress = figures()
    assert progress.num_input_rows == progress.numInputRows == progress["numInputRows"] == 10
    assert json.loads(progress.json) == progress
    with pytest.raises(AttributeError, match="progress has no 'nope'; it has id, runId"):
        _ = progress.nope


def test_input_rows_a_second_are_counted_since_the_previous_trigger() -> None:
    assert figures()["inputRowsPerSecond"] == 5.0


def test_event_time_is_empty_without_a_watermark_and_has_no_extremes_without_rows() -> None:
    assert figures()["eventTime"] == {}
    assert figures(NOTHING_SEEN)["eventTime"] == {"watermark": "1970-01-01T00:01:00.000Z"}


def test_event_time_spans_all_watermark_operators() -> None:
    seen = [
        EventTimes(max_us=3_000_000, min_us=1_000_000, mean_us=2_000_000),
        EventTimes(max_us=9_000_000, min_us=5_000_000, mean_us=6_000_000),
    ]
    assert figures(*seen)["eventTime"] == {
        "watermark": "1970-01-01T00:01:00.000Z",
        "max": "1970-01-01T00:00:09.000Z",
        "min": "1970-01-01T00:00:01.000Z",
        "avg": "1970-01-01T00:00:04.000Z",
    }


def test_a_time_outside_the_calendar_is_still_a_figure() -> None:
    assert iso_time(2**62) == f"{2**62}us"
