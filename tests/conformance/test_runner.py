"""The runner itself: it tells a right answer from a wrong one and from none, and says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import __main__ as command
from tests.conformance.cases import Case, Form, load
from tests.conformance.execute import execute
from tests.conformance.report import Outcome, Result

Steps = list[dict[str, Any]]

_WINDOWED: Steps = [
    {"op": "source", "input": "a"},
    {"op": "with_columns", "cols": [["t", ["to_ts", "v"]]]},
    {"op": "with_watermark", "col": "t", "delay": "10s"},
    {"op": "group_by", "keys": [["w", ["window", "t", "5 seconds"]]], "aggs": [["n", ["count"]]]},
    {"op": "select", "cols": [["s", ["secs", "w.start"]], ["n", "n"]]},
]


def outcome(steps: Steps, pipeline: Steps | None = None, **more: Any) -> Result:
    body = {
        "id": "t",
        "area": "x",
        "inputs": {"a": {"v": "int"}},
        "pipeline": pipeline or [{"op": "source", "input": "a"}],
        "output_mode": "append",
        "steps": steps,
        **more,
    }
    return execute(Case(form=Form.OTHERS if "time_unit" in more else Form.SHAPE if "verdict" in more else Form.SPARK, body=body))


def test_a_right_answer_passes() -> None:
    result = outcome([{"add": {"a": [[1], [2]]}}, {"run": True}, {"expect_new": [[2], [1]]}, {"expect_new": []}])
    assert result == Result(id="t", area="x", outcome=Outcome.PASSED)


def test_a_wrong_answer_fails_with_its_step_and_both_values() -> None:
    result = outcome([{"add": {"a": [[1]]}}, {"run": True}, {"expect_new": [[2]]}])
    assert result.outcome is Outcome.FAILED
    assert result.reason.startswith("step 2 expect_new: expected [[2]], got [[1]]")


def test_an_unknown_step_is_named() -> None:
    assert outcome([{"expect_full_moon": True}]).reason == "not supported: step expect_full_moon"


def test_an_unknown_operator_is_named() -> None:
    result = outcome([{"run": True}], [{"op": "source", "input": "a"}, {"op": "teleport"}])
    assert (result.outcome, result.reason) == (Outcome.NOT_SUPPORTED, "not supported: operator teleport")


def test_several_adds_before_a_run_arrive_as_one_batch() -> None:
    assert (
        outcome([{"add": {"a": [[1]]}}, {"add": {"a": [[2]]}}, {"run": True}, {"expect_batches": [[[1], [2]]]}]).outcome is Outcome.PASSED
    )


def test_a_watermark_is_seconds_and_the_next_batch_uses_it() -> None:
    steps: Steps = [{"add": {"a": [[12], [40]]}}, {"run": True}, {"expect_watermark": 30}, {"expect_new": [[10, 1]]}]
    assert outcome(steps, _WINDOWED).outcome is Outcome.PASSED
    assert outcome([*steps[:2], {"expect_watermark": 31}], _WINDOWED).outcome is Outcome.FAILED


def test_other_state_counts_are_a_remark() -> None:
    result = outcome([{"add": {"a": [[12]]}}, {"run": True}, {"expect_state": {"total": [7]}}], _WINDOWED)
    assert (result.outcome, result.reason) == (Outcome.PASSED, "state counts differ: total [7], got [1]")


def test_a_run_that_should_fail_and_does_not_is_a_failure() -> None:
    assert outcome([{"add": {"a": [[1]]}}, {"expect_failure": True}]).reason == "step 1 expect_failure: expected True, the run succeeded"


def test_a_lenient_case_may_have_another_answer() -> None:
    result = outcome([{"add": {"a": [[1]]}}, {"run": True}, {"expect_new": []}], lenient=True, note="why not")
    assert result.outcome is Outcome.PASSED
    assert result.reason.startswith("another answer, which the case allows (why not)")


def test_a_manual_clock_fires_the_trigger_that_falls_due() -> None:
    steps: Steps = [
        {"start": True},
        {"add": {"a": [[7]]}},
        {"advance_clock_ms": 999},
        {"expect_new": []},
        {"advance_clock_ms": 1},
        {"expect_new": [[7]]},
    ]
    assert outcome(steps, trigger={"every_ms": 1000}).outcome is Outcome.PASSED


def test_a_window_left_in_the_result_is_one_value() -> None:
    steps: Steps = [{"add": {"a": [[12], [40]]}}, {"run": True}, {"expect_new": [[[10, 15], 1]]}]
    assert outcome(steps, _WINDOWED[:-1]).outcome is Outcome.PASSED


def test_a_shape_accepted_against_its_verdict_fails() -> None:
    assert outcome([], verdict="accept").outcome is Outcome.PASSED
    assert outcome([], verdict="refuse").outcome is Outcome.FAILED
    assert outcome([], output_mode="complete", verdict="refuse").outcome is Outcome.PASSED


@pytest.mark.parametrize(("mark", "rows"), [(9, []), (10, [[0, 10, 2]])])
def test_an_explicit_watermark_closes_a_window_at_its_end_and_not_before(mark: int, rows: list[Any]) -> None:
    window = {"kind": "tumbling", "size_ms": 10, "offset_ms": 0}
    pipeline: Steps = [
        {"op": "watermark", "input": "a", "column": "ts", "explicit": True},
        {"op": "window_agg", "by": [], "window": window, "aggs": {"n": {"fn": "count"}}, "emit": "final"},
    ]
    inputs = {"a": {"kind": "stream", "schema": {"ts": "timestamp"}}}
    steps: Steps = [
        {"add": {"a": [[1], [9], [5_000_000]]}},
        {"watermark": {"a": mark}},
        {"run": True},
        {"expect_new": rows},
        {"expect_watermark": mark},
    ]
    result = outcome(steps, pipeline, inputs=inputs, output=["start", "end", "n"], time_unit="ms")
    assert (result.outcome, result.reason) == (Outcome.PASSED, "")


def test_the_command_reads_a_folder_and_writes_summary_and_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = {
        "id": "c",
        "area": "log",
        "inputs": {},
        "pipeline": [],
        "output_mode": "append",
        "runner": "log",
        "steps": [{"log_latest": None}],
    }
    (tmp_path / "cases.jsonl").write_text(json.dumps(case) + "\n\n")
    assert [c.id for c in load(tmp_path)] == ["c"]
    assert command.main([str(tmp_path), "--json", str(tmp_path / "out" / "o.json")]) == 0
    told = json.loads((tmp_path / "out" / "o.json").read_text())
    assert told["cases"] == [{"id": "c", "area": "log", "outcome": "passed", "reason": ""}]
    assert (told["summary"]["passed"], told["summary"]["failed"], told["summary"]["not_supported"]) == (1, 0, 0)
    assert capsys.readouterr().out == "1 cases: 1 passed, 0 failed, 0 not supported\n"
