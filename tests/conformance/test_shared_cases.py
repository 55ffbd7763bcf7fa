"""Every shared case as a test: what the engine cannot do yet is an expected failure with its reason, never silent."""

from __future__ import annotations

import pytest

from tests.conformance.cases import Case, load, shared_folder
from tests.conformance.execute import execute
from tests.conformance.report import Outcome

_CASES = load(shared_folder()) if shared_folder().is_dir() else []


@pytest.mark.skipif(not _CASES, reason=f"no shared cases at {shared_folder()}; set MICROBATCH_CONFORMANCE")
@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.id)
def test_case(case: Case) -> None:
    result = execute(case)
    if result.outcome is Outcome.NOT_SUPPORTED:
        pytest.xfail(result.reason)
    assert result.outcome is Outcome.PASSED, result.reason
