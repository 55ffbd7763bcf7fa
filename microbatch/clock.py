"""Time and identity: the only module that may ask the machine for either."""

from __future__ import annotations

import threading
import time
import uuid


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        """Return microseconds since 1970, UTC."""
        return time.time_ns() // 1_000

    def wait_until_us(self, when_us: int, wake: threading.Event) -> None:
        """Return when the clock shows ``when_us`` or ``wake`` is set, whichever comes first."""
        while not wake.is_set():
            left_us = when_us - self.now_us()
            if left_us <= 0:
                return
            wake.wait(left_us / 1_000_000)


class ManualClock:
    """A clock that moves only when told: for tests.

    Examples
    --------
    >>> clock = ManualClock(5)
    >>> clock.advance_us(10)
    >>> clock.now_us()
    15
    """

    def __init__(self, start_us: int = 0) -> None:
        self._now_us = start_us
        self._waiting_for: dict[int, int] = {}
        self._moved = threading.Condition()

    def now_us(self) -> int:
        """Return the time last set."""
        with self._moved:
            return self._now_us

    def advance_us(self, by_us: int) -> None:
        """Move the clock forward by ``by_us`` microseconds, 0 or more."""
        self.set_us(self.now_us() + by_us)

    def set_us(self, now_us: int) -> None:
        """Set the clock and wake those who wait for it."""
        with self._moved:
            self._now_us = now_us
            self._moved.notify_all()

    def wait_until_us(self, when_us: int, wake: threading.Event) -> None:
        """Return when the clock was moved to ``when_us`` or ``wake`` is set; checks ``wake`` every 5 ms."""
        me = threading.get_ident()
        with self._moved:
            self._waiting_for[me] = when_us
            self._moved.notify_all()
            while self._now_us < when_us and not wake.is_set():
                self._moved.wait(0.005)
            del self._waiting_for[me]

    def wait_for_sleeper(self, timeout_seconds: float = 10.0) -> bool:
        """Return True once some thread waits for a time still to come, False after the timeout."""
        with self._moved:
            return self._moved.wait_for(lambda: any(when > self._now_us for when in self._waiting_for.values()), timeout_seconds)


def stopwatch_us() -> int:
    """Return a reading that only grows, microseconds; differences are durations, the value itself means nothing."""
    return time.perf_counter_ns() // 1_000


def new_uuid() -> str:
    """Return a random UUID as text: identity of a query, a run or one attempt at a batch."""
    return str(uuid.uuid4())
