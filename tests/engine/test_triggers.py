"""When batches start."""

from __future__ import annotations

import threading

import pytest

from microbatch.clock import ManualClock
from microbatch.engine.triggers import ProcessingTime, next_boundary_us, run_triggers


@pytest.mark.parametrize(("now", "boundary"), [(0, 100), (99, 100), (100, 200), (101, 200), (250, 300)])
def test_boundaries_are_multiples_of_the_interval_of_the_clock(now: int, boundary: int) -> None:
    assert next_boundary_us(now, 100) == boundary


@pytest.mark.parametrize("interval", [0, 10])
def test_triggers_end_when_the_batch_says_so(interval: int) -> None:
    clock, runs = ManualClock(), []

    def once() -> bool:
        runs.append(clock.now_us())
        clock.advance_us(interval)
        return len(runs) < 3

    run_triggers(ProcessingTime(interval_us=interval), clock, threading.Event(), once)
    assert runs == [0, interval, 2 * interval]


def test_a_batch_that_overran_is_followed_at_once_and_missed_boundaries_are_skipped() -> None:
    clock, starts = ManualClock(), []
    durations = iter([250, 10, 10])

    def once() -> bool:
        starts.append(clock.now_us())
        clock.advance_us(next(durations))
        if len(starts) > 1:  # the waiting ends when the clock reaches the boundary
            clock.set_us(next_boundary_us(starts[-1], 100))
        return len(starts) < 3

    run_triggers(ProcessingTime(interval_us=100), clock, threading.Event(), once)
    assert starts == [0, 250, 300]


def test_a_stop_ends_the_waiting() -> None:
    stop = threading.Event()

    def once() -> bool:
        stop.set()
        return True

    run_triggers(ProcessingTime(interval_us=1_000_000_000), ManualClock(), stop, once)
    assert stop.is_set()
