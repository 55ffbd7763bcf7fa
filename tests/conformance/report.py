"""What became of a case, and how a run is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    """The three things that can become of a case."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_SUPPORTED = "not_supported"


class NotSupportedError(Exception):
    """The case needs a feature the engine or this runner lacks; the message names it."""


class MismatchError(AssertionError):
    """The engine ran, and did something else than the case says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Outcome of one case; ``reason`` may also hold a remark on a case that passed."""

    id: str
    area: str
    outcome: Outcome
    reason: str = ""


def summary(results: Sequence[Result]) -> dict[str, object]:
    """Return the counts as a whole and by area, and how often each missing feature was the reason."""
    missing = Counter(r.reason for r in results if r.outcome is Outcome.NOT_SUPPORTED)
    return {
        "total": len(results),
        **{outcome.value: sum(r.outcome is outcome for r in results) for outcome in Outcome},
        "areas": {area: dict(Counter(r.outcome.value for r in results if r.area == area)) for area in sorted({r.area for r in results})},
        "missing": dict(missing.most_common()),
    }


def as_json(results: Sequence[Result]) -> str:
    """Return ``{summary, cases}`` as JSON text."""
    return json.dumps({"summary": summary(results), "cases": [asdict(r) for r in results]}, indent=1, ensure_ascii=False)


def write_json(results: Sequence[Result], path: Path) -> None:
    """Write ``as_json`` to a file, whose folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_json(results) + "\n")


def as_text(results: Sequence[Result]) -> str:
    """Return the failures, the missing features and the counts, one a line."""
    lines = [f"FAILED {r.id} [{r.area}]: {r.reason}" for r in results if r.outcome is Outcome.FAILED]
    lines += [f"not supported {r.id} [{r.area}]: {r.reason}" for r in results if r.outcome is Outcome.NOT_SUPPORTED]
    lines += [f"passed {r.id} [{r.area}], with a remark: {r.reason}" for r in results if r.outcome is Outcome.PASSED and r.reason]
    counts = Counter(r.outcome for r in results)
    total = ", ".join(f"{counts[outcome]} {outcome.value.replace('_', ' ')}" for outcome in Outcome)
    return "\n".join([*lines, f"{len(results)} cases: {total}"])
