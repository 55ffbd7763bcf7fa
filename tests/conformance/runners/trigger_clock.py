"""Cases about when a trigger fires, on a clock that jumps to whatever is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from microbatch.engine.triggers import ProcessingTime, next_boundary_us, run_triggers
from tests.conformance.compare import check_equal
from tests.conformance.report import NotSupportedError


class JumpingClock:
    """A clock that moves to the time somebody waits for, at once."""

    def __init__(self) -> None:
        self._now_us = 0

    def now_us(self) -> int:
        return self._now_us

    def wait_until_us(self, when_us: int, wake: threading.Event) -> None:
        self._now_us = max(self._now_us, when_us)


def run(body: dict[str, Any], folder: Path) -> str:
    """Do the steps."""
    for step in body["steps"]:
        name = next(iter(step))
        if name not in _STEPS:
            msg = f"step {name}"
            raise NotSupportedError(msg)
        _STEPS[name](step[name])
    return ""


def _stops(value: dict[str, Any]) -> None:
    runs = 0

    def handler() -> bool:
        nonlocal runs
        runs += 1
        return bool(runs < value["handler_says_stop_after"])

    run_triggers(ProcessingTime(interval_us=value["interval_ms"] * 1_000), JumpingClock(), threading.Event(), handler)
    check_equal("trigger_stop", value["runs"], runs)


def _next(value: dict[str, Any]) -> None:
    interval_us = value["interval_ms"] * 1_000
    pairs = value.get("pairs") or [[_first(value, "now_ms", "now", "at"), _first(value, "next_ms", "next", "is")]]
    for now, due in pairs:
        check_equal(f"trigger after {now} ms", due * 1_000, next_boundary_us(now * 1_000, interval_us))


def _first(value: dict[str, Any], *names: str) -> int:
    found = next((value[name] for name in names if name in value), None)
    if found is None:
        msg = f"trigger_next with {sorted(value)}"
        raise NotSupportedError(msg)
    return int(found)


_STEPS: dict[str, Callable[[dict[str, Any]], None]] = {"trigger_stop": _stops, "trigger_next": _next}
