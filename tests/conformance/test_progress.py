"""Figures of a batch, under the names cases may use."""

from __future__ import annotations

import pytest

from tests.conformance.progress import check_progress
from tests.conformance.report import MismatchError, NotSupportedError

_PROGRESS = {
    "batchId": 3,
    "numInputRows": 2,
    "eventTime": {"max": "1970-01-01T00:00:25.000Z", "avg": "1970-01-01T00:00:12.500Z", "watermark": "1970-01-01T00:00:05.000Z"},
    "sources": [{"numInputRows": 2}],
}


def test_names_may_be_dotted_nested_or_in_another_case() -> None:
    check_progress({"num_input_rows": 2, "event_time.max": 25, "event_time": {"avg": 12.5, "watermark": 5}, "batchId": 3}, _PROGRESS)
    check_progress({"sources": [{"numInputRows": 2}]}, _PROGRESS)


def test_another_figure_is_a_mismatch() -> None:
    with pytest.raises(MismatchError, match="numInputRows"):
        check_progress({"numInputRows": 3}, _PROGRESS)
    with pytest.raises(MismatchError, match=r"event_time\.min"):
        check_progress({"event_time.min": 3}, _PROGRESS)


def test_an_unknown_figure_is_not_supported() -> None:
    with pytest.raises(NotSupportedError, match="moonPhase"):
        check_progress({"moonPhase": 3}, _PROGRESS)
