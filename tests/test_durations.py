"""Durations as users write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from microbatch.durations import duration_us, positive_us
from microbatch.errors import PlanError

S = 1_000_000
DAY = 86_400 * S


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("0s", 0),
        ("1us", 1),
        ("7 microseconds", 7),
        ("250ms", 250_000),
        ("10 MS", 10_000),
        ("1 millisecond", 1_000),
        ("10s", 10 * S),
        ("10 seconds", 10 * S),
        ("1 sec", S),
        ("5m", 300 * S),
        ("5 min", 300 * S),
        ("1 minute", 60 * S),
        ("2h", 7_200 * S),
        ("1h30m", 5_400 * S),
        ("1 hour 30 minutes", 5_400 * S),
        ("3d", 3 * DAY),
        ("2 weeks", 14 * DAY),
        ("1 month", 31 * DAY),
        ("1mo", 31 * DAY),
        ("1y", 372 * DAY),
        ("1 month -3 days", 28 * DAY),
        ("-1h", -3_600 * S),
        ("+1h", 3_600 * S),
        ("interval 10 seconds", 10 * S),
        ("10 SECONDS", 10 * S),
        ("  1h  ", 3_600 * S),
    ],
)
def test_text_is_that_long(text: str, us: int) -> None:
    assert duration_us(text) == us


@pytest.mark.parametrize(
    ("delta", "us"), [(timedelta(0), 0), (timedelta(milliseconds=1), 1_000), (timedelta(days=400, microseconds=1), 400 * DAY + 1)]
)
def test_a_timedelta_is_that_long(delta: timedelta, us: int) -> None:
    assert duration_us(delta) == us


@pytest.mark.parametrize("text", ["", " ", "soon", "10", "s", "10 parsecs", "1.5h", "1h30", "h1", "interval", "1h,30m", "\u0661\u0660x"])
def test_what_is_no_duration_is_refused_with_the_option_and_examples(text: str) -> None:
    with pytest.raises(PlanError, match=r"delay=.* is no duration; write \"10s\""):
        duration_us(text, what="delay")


@pytest.mark.parametrize("value", [10, 1.5, None])
def test_a_bare_number_is_refused_for_its_unit_is_unknown(value: object) -> None:
    with pytest.raises(PlanError, match="is no duration"):
        duration_us(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0s", "-1s", "1s -1s"])
def test_a_length_that_must_be_positive_is(text: str) -> None:
    with pytest.raises(PlanError, match=r"window size=.* must be longer than zero"):
        positive_us(text, what="window size")


def test_a_positive_length_passes() -> None:
    assert positive_us("1us", what="window size") == 1
