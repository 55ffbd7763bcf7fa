"""The global watermark: from each operator's own value, by policy, never back."""

from __future__ import annotations

import polars as pl
import pytest

from microbatch.engine.watermark import WatermarkTracker, own_watermark_us
from microbatch.operators.watermark import NOTHING_SEEN, EventTimes, ObserveEventTime


def observer(name: str, delay: int, latest: int | None) -> ObserveEventTime:
    operator = ObserveEventTime(name, "t", pl.Datetime("us"), delay)
    operator.seen = NOTHING_SEEN if latest is None else EventTimes(max_us=latest, min_us=0, mean_us=0)
    return operator


def tracker(policy: str = "min", own: dict[str, int] | None = None, global_us: int | None = None) -> WatermarkTracker:
    return WatermarkTracker(policy, ["a", "b"], own or {}, global_us)


def test_min_waits_for_an_input_that_has_seen_nothing() -> None:
    marks = tracker("min")
    marks.advance([observer("a", 10, 100), observer("b", 10, None)])
    assert marks.global_us is None
    marks.advance([observer("a", 10, None), observer("b", 10, 50)])
    assert marks.global_us == 40


def test_max_follows_the_fastest() -> None:
    marks = tracker("max")
    marks.advance([observer("a", 10, 100), observer("b", 10, None)])
    assert marks.global_us == 90


def test_the_watermark_never_moves_back() -> None:
    marks = tracker("max")
    marks.advance([observer("a", 0, 100)])
    marks.advance([observer("a", 0, 60)])
    assert (marks.global_us, marks.own_us["a"]) == (100, 100)


def test_a_restart_goes_on_with_each_inputs_own_value() -> None:
    marks = tracker("min", own={"a": 90, "b": 40}, global_us=40)
    marks.advance([observer("a", 0, None), observer("b", 0, 70)])
    assert marks.global_us == 70


@pytest.mark.parametrize(("latest", "delay", "mark"), [(15, 10, 5), (10, 10, 0), (5, 10, None), (-5, 10, -15)])
def test_a_delay_longer_than_the_time_since_1970_leaves_the_watermark_unset(latest: int, delay: int, mark: int | None) -> None:
    assert own_watermark_us(latest, delay) == mark
