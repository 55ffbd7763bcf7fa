"""Clocks: the machine's, and the one that moves when told."""

from __future__ import annotations

import threading
import uuid

import pytest

from microbatch.clock import ManualClock, SystemClock, new_uuid, stopwatch_us
from microbatch.protocols import Clock

JANUARY_2024_US = 1_704_067_200_000_000


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock(5)])
def test_both_are_clocks(clock: Clock) -> None:
    assert isinstance(clock.now_us(), int)


def test_the_system_clock_counts_microseconds_since_1970() -> None:
    assert JANUARY_2024_US < SystemClock().now_us() < JANUARY_2024_US * 2


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock(5)])
def test_waiting_for_the_past_returns_at_once(clock: Clock) -> None:
    clock.wait_until_us(clock.now_us() - 1, threading.Event())
    clock.wait_until_us(clock.now_us(), threading.Event())


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock(5)])
def test_who_is_woken_does_not_wait(clock: Clock) -> None:
    wake = threading.Event()
    wake.set()
    clock.wait_until_us(clock.now_us() + 3_600_000_000, wake)


def test_the_system_clock_waits_as_long_as_asked() -> None:
    clock = SystemClock()
    until_us = clock.now_us() + 2_000
    clock.wait_until_us(until_us, threading.Event())
    assert clock.now_us() >= until_us


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(100)
    assert [clock.now_us(), clock.now_us()] == [100, 100]
    clock.advance_us(0)
    assert clock.now_us() == 100
    clock.advance_us(7)
    assert clock.now_us() == 107
    clock.set_us(5)
    assert clock.now_us() == 5


def sleeper(clock: ManualClock, until_us: int, wake: threading.Event) -> threading.Thread:
    """Return a running thread that waits for the clock."""
    thread = threading.Thread(target=clock.wait_until_us, args=(until_us, wake))
    thread.start()
    return thread


def test_moving_the_clock_wakes_who_waits_for_it() -> None:
    clock = ManualClock(0)
    thread = sleeper(clock, 10, threading.Event())
    assert clock.wait_for_sleeper()
    clock.advance_us(9)
    assert clock.wait_for_sleeper(), "one microsecond is left"
    clock.advance_us(1)
    thread.join(10)
    assert not thread.is_alive()


def test_an_event_wakes_who_waits_for_a_manual_clock() -> None:
    clock, wake = ManualClock(0), threading.Event()
    thread = sleeper(clock, 10, wake)
    assert clock.wait_for_sleeper()
    wake.set()
    thread.join(10)
    assert not thread.is_alive()
    assert clock.now_us() == 0


def test_nobody_sleeps_on_a_fresh_clock() -> None:
    assert not ManualClock(0).wait_for_sleeper(timeout_seconds=0)


def test_the_stopwatch_never_goes_back() -> None:
    readings = [stopwatch_us() for _ in range(100)]
    assert readings == sorted(readings)


def test_uuids_are_new_each_time() -> None:
    first, second = new_uuid(), new_uuid()
    assert first != second
    assert str(uuid.UUID(first)) == first
