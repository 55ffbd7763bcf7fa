"""The project's own cases, in the form of the shared ones: every operation, function, step and setting of their tables, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.cases import Case, load
from tests.conformance.execute import execute
from tests.conformance.report import Outcome


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    """A crash needs a process of its own: a second each."""
    return [pytest.mark.slow] if any("crash_at" in step for step in case.body.get("steps", [])) else []


CASES = [pytest.param(case, id=case.id, marks=_marks(case)) for case in load(Path(__file__).parent / "own")]


@pytest.mark.parametrize("case", CASES)
def test_case(case: Case) -> None:
    result = execute(case)
    assert result.outcome is Outcome.PASSED, result.reason
