"""The steps of a case, one after the other: the same for every harness of the other form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tests.conformance.report import MismatchError, NotSupportedError

S = TypeVar("S")
Step = dict[str, Any]


def do_steps(script: S, steps: Sequence[Step], known: Mapping[str, Callable[[S, Any, Step], None]], where: str = "") -> None:
    """Do the steps in order; NotSupportedError for one that is not known, a mismatch with the number of its step."""
    for number, step in enumerate(steps):
        name = next(iter(step))
        if name not in known:
            msg = f"step {name}{where}"
            raise NotSupportedError(msg)
        try:
            known[name](script, step[name], step)
        except MismatchError as mismatch:
            msg = f"step {number} {mismatch}"
            raise MismatchError(msg) from mismatch
