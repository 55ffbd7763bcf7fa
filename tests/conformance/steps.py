"""The steps of a case: one function a step, in a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import polars as pl

from microbatch.errors import MicrobatchError
from tests.conformance import engine
from tests.conformance.compare import Row, check_equal, check_rows, rows_of
from tests.conformance.ports import FilePort, MemoryPort
from tests.conformance.progress import check_progress
from tests.conformance.report import MismatchError, NotSupportedError
from tests.conformance.subject import Subject

Step = dict[str, Any]
Do = Callable[["Script", Any, Step], None]


class Script:
    """A case's subject, and what was seen of it so far."""

    def __init__(self, subject: Subject, body: dict[str, Any], more_steps: Mapping[str, Do] | None = None) -> None:
        self.subject = subject
        self._steps = {**STEPS, **(more_steps or {})}
        self.purge_may_wait = body.get("purge") == "eventual"
        self.remarks: list[str] = []
        self._looked_at = 0
        self._progress_looked_at = 0

    def do(self, steps: Iterable[Step]) -> None:
        """Do the steps in order; MismatchError says at which one the engine went another way."""
        for number, step in enumerate(steps):
            name = next(iter(step))
            if name not in self._steps:
                msg = f"step {name}"
                raise NotSupportedError(msg)
            try:
                self._steps[name](self, step[name], step)
            except MismatchError as mismatch:
                msg = f"step {number} {mismatch}"
                raise MismatchError(msg) from mismatch

    # -- rows -------------------------------------------------------------------------------------------------------------

    def new_batches(self) -> list[list[Row]]:
        """Return the rows of each batch since the last look, and look."""
        self.subject.look()
        batches = self.subject.recorder.batches()
        fresh = batches[self._looked_at :]
        self._looked_at = len(batches)
        return [self.rows(frame) for _, frame in fresh]

    def rows(self, frame: pl.DataFrame) -> list[Row]:
        """Return a batch's rows in the case's order of columns; a window is one value."""
        relation = self.subject.relation
        if relation is None or not set(relation.columns()) <= set(frame.columns):
            return rows_of(frame)
        columns = [pl.col(c) if isinstance(c, str) else pl.struct(c.both()).alias(name) for name, c in relation.visible.items()]
        return rows_of(frame.select(columns))

    def new_rows(self) -> list[Row]:
        """Return the rows since the last look; in complete mode the last table if there was a batch."""
        batches = self.new_batches()
        return batches[-1] if self.subject.mode == "complete" and batches else [row for batch in batches for row in batch]

    def last_rows(self) -> list[Row]:
        """Return the rows of the last batch, and look."""
        self.new_batches()
        batches = self.subject.recorder.batches()
        return self.rows(batches[-1][1]) if batches else []

    def all_rows(self) -> list[Row]:
        """Return all rows since the sink was cleared, and look."""
        if self.subject.mode == "complete":
            return self.last_rows()
        self.new_batches()
        return [row for _, frame in self.subject.recorder.batches() for row in self.rows(frame)]

    def forget_looks(self) -> None:
        """Begin anew: the sink was cleared."""
        self._looked_at = 0

    def new_progress(self) -> list[dict[str, Any]]:
        """Return the figures of the batches since the last call."""
        self.subject.look()
        fresh = self.subject.progress.all[self._progress_looked_at :]
        self._progress_looked_at = len(self.subject.progress.all)
        return fresh


# -- what happens -----------------------------------------------------------------------------------------------------------


def _add(script: Script, value: dict[str, Any], step: Step) -> None:
    for name, rows in value.items():
        port = script.subject.ports[name]
        if not isinstance(port, MemoryPort):
            msg = f"add to the {type(port).__name__} {name}"
            raise NotSupportedError(msg)
        port.add(rows)


def _write_files(script: Script, value: list[dict[str, Any]], step: Step) -> None:
    for file in value:
        port = script.subject.ports[file["input"]]
        assert isinstance(port, FilePort)
        port.write(file["name"], file["lines"], file.get("mtime"))


def _start(script: Script, value: Any, step: Step) -> None:
    given = {**step, **(value if isinstance(value, dict) else {})}
    subject = script.subject
    subject.conf |= given.get("conf") or {}
    subject.trigger = given.get("trigger", subject.trigger)
    subject.pipeline = given.get("pipeline", subject.pipeline)
    subject.start()


def _stop(script: Script, value: Any, step: Step) -> None:
    script.subject.stop()


def _run(script: Script, value: Any, step: Step) -> None:
    script.subject.run()


def _run_batches(script: Script, value: int, step: Step) -> None:
    script.subject.run_triggers(value)


def _define(script: Script, value: Any, step: Step) -> None:
    script.subject.define()


def _advance_clock(script: Script, value: int, step: Step) -> None:
    script.subject.set_clock_ms(script.subject.clock.now_us() // 1_000 + value)
    script.subject.raise_failure()


def _set_clock(script: Script, value: int, step: Step) -> None:
    script.subject.set_clock_ms(value)
    script.subject.raise_failure()


def _set_fail(script: Script, value: Any, step: Step) -> None:
    script.subject.failing.on = bool(value)


def _set_pipeline(script: Script, value: list[dict[str, Any]], step: Step) -> None:
    script.subject.pipeline = value


def _set_trigger(script: Script, value: Any, step: Step) -> None:
    script.subject.trigger = value


def _sink_clear(script: Script, value: Any, step: Step) -> None:
    script.subject.recorder.clear(with_ids=value == "all")
    script.forget_looks()


def _replace_input(script: Script, value: dict[str, Any], step: Step) -> None:
    """Let the new input hold the history, in as many arrivals as the old one had."""
    port = script.subject.ports[value["new"]]
    assert isinstance(port, MemoryPort)
    for rows in value["history"]:
        port.add(rows)
        script.subject.let_arrive()


def _forget_commits(script: Script, value: Any, step: Step) -> None:
    ids = engine.log_ids(script.subject.checkpoint, "commits")
    for batch_id in ids if value == "all" else ids[len(ids) - int(value) :]:
        (script.subject.checkpoint / "commits" / str(batch_id)).unlink()


def _delete_offset(script: Script, value: int, step: Step) -> None:
    (script.subject.checkpoint / "offsets" / str(value)).unlink()


# -- what is seen -------------------------------------------------------------------------------------------------------------


def _expect_new(script: Script, value: list[Row], step: Step) -> None:
    check_rows("expect_new", value, script.new_rows())


def _expect_new_count(script: Script, value: int, step: Step) -> None:
    check_equal("expect_new_count", value, len(script.new_rows()))


def _expect_last(script: Script, value: list[Row], step: Step) -> None:
    check_rows("expect_last", value, script.last_rows())


def _expect_last_ordered(script: Script, value: list[Row], step: Step) -> None:
    check_rows("expect_last_ordered", value, script.last_rows(), ordered=True)


def _expect_all(script: Script, value: list[Row], step: Step) -> None:
    check_rows("expect_all", value, script.all_rows())


def _expect_batches(script: Script, value: list[list[Row]], step: Step) -> None:
    batches = [batch for batch in script.new_batches() if batch]
    if len(batches) != len(value):
        msg = f"expect_batches: expected {value}, got {batches}"
        raise MismatchError(msg)
    for number, (expected, got) in enumerate(zip(value, batches, strict=True)):
        check_rows(f"expect_batches, batch {number}", expected, got)


def _expect_batch_sizes(script: Script, value: list[int], step: Step) -> None:
    check_equal("expect_batch_sizes", value, [len(batch) for batch in script.new_batches() if batch])


def _expect_watermark(script: Script, value: float, step: Step) -> None:
    script.subject.look()
    check_equal("expect_watermark", value * 1_000, engine.next_watermark_ms(script.subject.checkpoint) or 0)


def _expect_state(script: Script, value: dict[str, Any], step: Step) -> None:
    """Compare the counts; a difference is a remark, for engines count state in their own ways."""
    fresh = script.new_progress()
    operators = [list(reversed(p["stateOperators"])) for p in fresh or script.subject.progress.all[-1:]]
    totals = [o["numRowsTotal"] for o in operators[-1]] if operators else []
    dropped = [sum(column) for column in zip(*([o["numRowsDroppedByWatermark"] for o in batch] for batch in operators), strict=False)]
    for key, got in (("total", totals), ("total_at_most", totals), ("dropped", dropped if fresh else [0] * len(totals))):
        if key in value and not _counts_match(value[key], got, at_most=key == "total_at_most"):
            script.remarks.append(f"state counts differ: {key} {value[key]}, got {got}")


def _counts_match(expected: list[Any], got: list[int], *, at_most: bool) -> bool:
    if len(expected) != len(got):
        return False
    return all(g > 0 if e == ">0" else g <= e if at_most else g == e for e, g in zip(expected, got, strict=True))


def _expect_log(script: Script, value: dict[str, list[int]], step: Step) -> None:
    script.subject.settle()
    for log, expected in value.items():
        got = engine.log_ids(script.subject.checkpoint, log)
        if script.purge_may_wait and expected:
            got = [i for i in got if i >= min(expected)]
        check_equal(f"expect_log {log}", expected, got)


def _expect_progress(script: Script, value: dict[str, Any], step: Step) -> None:
    script.subject.look()
    with_rows = [p for p in script.subject.progress.all if p["numInputRows"]]
    if not with_rows:
        msg = "expect_progress: no batch has read a row"
        raise MismatchError(msg)
    check_progress(value, with_rows[-1])


def _expect_sink_batch(script: Script, value: int, step: Step) -> None:
    script.subject.look()
    batches = script.subject.recorder.batches()
    check_equal("expect_sink_batch", value, batches[-1][0] if batches else None)


def _expect_status(script: Script, value: dict[str, Any], step: Step) -> None:
    script.subject.settle()
    check_progress(value, script.subject.handle.status)


def _expect_failure(script: Script, value: Any, step: Step) -> None:
    """The next run must fail. A text is matched anywhere in the chain of causes; another refusal of the engine's own is a remark."""
    try:
        script.subject.run()
    except (MicrobatchError, pl.exceptions.PolarsError) as error:
        script.subject.expect_its_failure()
        text = " | ".join(map(str, engine.causes(error)))
        if value is True or value == "either" or re.search(str(value), text, re.IGNORECASE):
            return
        if not engine.told_on_purpose(error):
            msg = f"expect_failure: expected {value!r}, failed with {text}"
            raise MismatchError(msg) from error
        script.remarks.append(f"fails as expected, not in the words {value!r} but: {text}")
        return
    if value != "either":
        msg = f"expect_failure: expected {value!r}, the run succeeded"
        raise MismatchError(msg)


STEPS: dict[str, Do] = {
    "add": _add,
    "write_files": _write_files,
    "start": _start,
    "stop": _stop,
    "run": _run,
    "run_batches": _run_batches,
    "define": _define,
    "advance_clock_ms": _advance_clock,
    "set_clock_ms": _set_clock,
    "set_fail": _set_fail,
    "set_pipeline": _set_pipeline,
    "set_trigger": _set_trigger,
    "sink_clear": _sink_clear,
    "replace_input": _replace_input,
    "forget_commits": _forget_commits,
    "delete_offset": _delete_offset,
    "expect_new": _expect_new,
    "expect_new_count": _expect_new_count,
    "expect_last": _expect_last,
    "expect_last_ordered": _expect_last_ordered,
    "expect_all": _expect_all,
    "expect_batches": _expect_batches,
    "expect_batch_sizes": _expect_batch_sizes,
    "expect_watermark": _expect_watermark,
    "expect_state": _expect_state,
    "expect_log": _expect_log,
    "expect_progress": _expect_progress,
    "expect_sink_batch": _expect_sink_batch,
    "expect_status": _expect_status,
    "expect_failure": _expect_failure,
}
