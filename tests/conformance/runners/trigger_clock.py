"""Cases about when a trigger fires, on a clock that jumps to whatever is waited for."""

from __future__ import annotations

import threading
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
    """Do the steps; what a step asks is told by its fields."""
    for step in body["steps"]:
        name = next(iter(step))
        value = step[name]
        if "interval_ms" not in value:
            msg = f"step {name}"
            raise NotSupportedError(msg)
        (_stops if "handler_says_stop_after" in value else _next)(value)
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
    """Compare the trigger due after each time; a value or a list of them."""
    now, due = (_listed(value, names) for names in (_NOW, _DUE))
    for at_ms, due_ms in zip(now, due, strict=True):
        check_equal(f"trigger after {at_ms} ms", due_ms * 1_000, next_boundary_us(at_ms * 1_000, value["interval_ms"] * 1_000))


_NOW = ("now_ms", "now", "at_ms", "at", "after")
_DUE = ("next_ms", "next", "due_ms", "due", "is", "answer")


def _listed(value: dict[str, Any], names: tuple[str, ...]) -> list[int]:
    found = next((value[name] for name in names if name in value), None)
    if found is None:
        msg = f"a trigger's step with {sorted(value)}"
        raise NotSupportedError(msg)
    return found if isinstance(found, list) else [found]
