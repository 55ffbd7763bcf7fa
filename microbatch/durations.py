"""Durations as users write them, in microseconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

from microbatch.errors import PlanError

Duration: TypeAlias = str | timedelta

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
# Spark counts a month as 31 days and a year as 12 months in watermark delays (IntervalUtils.getDuration).
_MONTH = 31 * _DAY
_UNITS = {
    "us": 1, "microsecond": 1, "ms": 1_000, "millisecond": 1_000,
    "s": _SECOND, "sec": _SECOND, "second": _SECOND, "m": 60 * _SECOND, "min": 60 * _SECOND, "minute": 60 * _SECOND,
    "h": 3_600 * _SECOND, "hour": 3_600 * _SECOND, "d": _DAY, "day": _DAY, "w": 7 * _DAY, "week": 7 * _DAY,
    "mo": _MONTH, "month": _MONTH, "y": 12 * _MONTH, "year": 12 * _MONTH,
}  # fmt: skip
_PART = re.compile(r"\s*([+-]?\d+)\s*([a-zA-Zµ]+)\s*")


def duration_us(value: Duration, *, what: str = "duration") -> int:
    """Return the length of ``value`` in microseconds; it may be 0 or negative.

    Parameters
    ----------
    value
        ``"10s"``, ``"1h30m"``, ``"10 seconds"``, ``"1 month -3 days"`` or a ``timedelta``. A month has 31 days, a year 12 months.
    what
        Name of the option, for the error.

    Raises
    ------
    PlanError
        The text is no duration.

    Examples
    --------
    >>> duration_us("1h30m")
    5400000000
    >>> duration_us("10 seconds")
    10000000
    """
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    total, position = 0, 0
    text = str(value).removeprefix("interval ")
    while match := _PART.match(text, position):
        total += int(match[1]) * _unit_us(match[2], value, what)
        position = match.end()
    if not text or position != len(text):
        raise _not_a_duration(value, what)
    return total


def _unit_us(unit: str, value: Duration, what: str) -> int:
    size = _UNITS.get(unit.lower()) or _UNITS.get(unit.lower().removesuffix("s"))
    if size is None:
        raise _not_a_duration(value, what)
    return size


def _not_a_duration(value: object, what: str) -> PlanError:
    return PlanError(f'{what}={value!r} is no duration; write "10s", "1h30m", "10 seconds" or a timedelta')


def positive_us(value: Duration, *, what: str) -> int:
    """Return ``duration_us(value)``, refusing 0 and less."""
    length = duration_us(value, what=what)
    if length <= 0:
        msg = f"{what}={value!r} must be longer than zero"
        raise PlanError(msg)
    return length
