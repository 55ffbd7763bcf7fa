"""When the next batch starts (Spark: TriggerExecutor)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from microbatch.protocols import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingTime:
    """At once, and then at multiples of ``interval_us`` of the clock; 0: as fast as possible.

    A batch that overran is followed at once by one batch; boundaries missed are skipped.
    """

    interval_us: int


@dataclass(frozen=True, slots=True)
class AvailableNow:
    """All there is at the start, in batches within the read limits, then stop."""


@dataclass(frozen=True, slots=True)
class Once:
    """One batch of all there is, read limits aside, then stop. Deprecated in Spark; ``AvailableNow`` does it better."""


Trigger = ProcessingTime | AvailableNow | Once


def next_boundary_us(now_us: int, interval_us: int) -> int:
    """Return the first multiple of the interval after ``now_us``.

    Examples
    --------
    >>> [next_boundary_us(now, 100) for now in (0, 99, 100)]
    [100, 100, 200]
    """
    return now_us // interval_us * interval_us + interval_us


def run_triggers(trigger: ProcessingTime, clock: Clock, stop: threading.Event, run_once: Callable[[], bool]) -> None:
    """Call ``run_once`` at each trigger until it answers False or ``stop`` is set."""
    while not stop.is_set():
        due_us = next_boundary_us(clock.now_us(), trigger.interval_us) if trigger.interval_us else 0
        if not run_once():
            return
        if trigger.interval_us:
            clock.wait_until_us(due_us, stop)
