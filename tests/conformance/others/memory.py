"""Steps of the other form on memory streams and a memory sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.errors import MicrobatchError
from microbatch.model import OutputMode
from microbatch.plan.late import late_inputs
from tests.conformance import engine
from tests.conformance.compare import Row, check_equal, check_rows, difference, rows_of
from tests.conformance.others.late import PER_SECOND, LateOutput
from tests.conformance.others.pipeline import AHEAD_MS, FILLER, build, explicit_inputs, output_mode, partitions_watched, port_name
from tests.conformance.others.steps import do_steps
from tests.conformance.ports import MemoryPort
from tests.conformance.relation import Relation
from tests.conformance.report import MismatchError, NotSupportedError
from tests.conformance.sinks import ForeachBatchRecorder
from tests.conformance.subject import Subject

Step = dict[str, Any]


def run(body: dict[str, Any], folder: Path) -> str:
    """Run the case's steps and return remarks."""
    script = Script(body, folder)
    try:
        script.do(body["steps"])
    finally:
        script.subject.close()
    return "; ".join(script.remarks)


def check_kinds(body: dict[str, Any]) -> None:
    """Raise NotSupportedError for inputs other than plain streams."""
    for spec in body["inputs"].values():
        if spec.get("kind", "stream") != "stream":
            msg = f"input of kind {spec['kind']}"
            raise NotSupportedError(msg)
    if body["output_mode"] not in ("append", "update", "upsert") or "_op" in body["output"]:
        msg = "a changelog of the result (output_mode retract, column _op)"
        raise NotSupportedError(msg)


class Script:
    """A case's subject, what was seen of it so far, and what its inputs' watermarks were told."""

    def __init__(self, body: dict[str, Any], folder: Path) -> None:
        _check_operators(body)
        check_kinds(body)
        self.output: list[str] = body["output"]
        self.mode = str(body["output_mode"])
        self.ordered = bool(body.get("ordered"))
        self.explicit = explicit_inputs(body["pipeline"])
        self.partitions = partitions_watched(body)
        self.remarks = [f"each partition of {name} is a stream of its own" for name, count in self.partitions.items() if count > 1]
        self._seen = 0
        self._late = LateOutput(body)
        self._keys = _keys(body)
        ports = {
            port_name(name, partition if self.partitions[name] > 1 else None): MemoryPort(self._columns(name, spec), per_second=PER_SECOND)
            for name, spec in body["inputs"].items()
            for partition in range(self.partitions[name])
        }
        mode = output_mode(body["pipeline"], self.mode)
        self.subject = Subject(
            {"pipeline": body["pipeline"], "inputs": {}, "output_mode": mode},
            folder,
            ports=ports,
            builder=lambda frames: self._build(body["pipeline"], frames),
        )
        if any("sink_fails" in step for step in body["steps"]):
            self.subject.recorder = ForeachBatchRecorder()

    def _build(self, pipeline: list[Step], frames: Mapping[str, Any]) -> Relation:
        relation = build(pipeline, self.output, frames)
        if late_inputs(relation.frame.plan, OutputMode(self.subject.mode)):
            self.subject.more_options = {"late_rows": self._late.sink}
        return relation

    def _columns(self, name: str, spec: dict[str, Any]) -> dict[str, str]:
        return {**spec["schema"], **({FILLER: "bool"} if self.explicit else {})}

    def do(self, steps: list[Step]) -> None:
        """Do the steps in order."""
        do_steps(self, steps, _STEPS)

    def port(self, name: str, partition: int = 0) -> MemoryPort:
        """Return the way in for rows of a partition of an input."""
        port = self.subject.ports[port_name(name, partition if self.partitions[name] > 1 else None)]
        assert isinstance(port, MemoryPort)
        return port

    def rows(self) -> list[Row]:
        """Return all rows of the result so far, in the order they came."""
        self.subject.look()
        relation = self.subject.relation
        if relation is None:
            return []
        return [r for _, frame in self.subject.recorder.batches() for r in rows_of(frame, relation.columns(), per_second=PER_SECOND)]

    def new_rows(self) -> list[Row]:
        """Return the rows since the last look, and look."""
        rows = self.rows()
        fresh = rows[self._seen :]
        self._seen = len(rows)
        return fresh

    def table(self) -> list[Row]:
        """Return what a reader sees: all rows, or the last one per key."""
        rows = self.rows()
        self._seen = len(rows)
        return rows if self.mode == "append" else last_per_key(rows, [self.output.index(k) for k in self._keys])

    def late_rows(self) -> list[Row]:
        """Return the rows that came too late since the last call."""
        self.subject.look()
        return self._late.fresh()


def last_per_key(rows: list[Row], positions: list[int]) -> list[Row]:
    """Return the last row of each key, the key being the values at ``positions``."""
    return list({repr([row[i] for i in positions]): row for row in rows}.values())


def _check_operators(body: dict[str, Any]) -> None:
    """Name the operator first: it says more about what is missing than the kind of its input."""
    from tests.conformance.others.pipeline import _OPERATORS

    for op in body["pipeline"]:
        if op["op"] not in (*_OPERATORS, "watermark", "union", "interval_join"):
            msg = f"operator {op['op']}"
            raise NotSupportedError(msg)


def _keys(body: dict[str, Any]) -> list[str]:
    """Return the names in the output by which a later row replaces an earlier one."""
    keys: list[str] = []
    for op in body["pipeline"]:
        if op["op"] == "window_agg":
            keys = [*op["by"], "start", "end"]
        elif op["op"] == "agg":
            keys = list(op["by"])
        elif op.get("key"):
            keys = list(op["key"])
    return [k for k in keys if k in body["output"]]


def _add(script: Script, value: dict[str, Any], step: Step) -> None:
    more = [False] if script.explicit else []
    for name, rows in value.items():
        script.port(name, step.get("partition", 0)).add([[*row, *more] for row in rows])


def _watermark(script: Script, value: dict[str, Any], step: Step) -> None:
    """Add the filler whose time less the delay is the watermark asked for."""
    for name, told in value.items():
        of_partitions = told if isinstance(told, dict) else dict.fromkeys(range(script.partitions[name]), told)
        for partition, mark in of_partitions.items():
            port = script.port(name, int(partition))
            filler = {FILLER: True, script.explicit[name]: mark + AHEAD_MS}
            port.add([[filler.get(column) for column in port.columns]])


def _run(script: Script, value: Any, step: Step) -> None:
    # Without read limits all that waits is one batch; what expires is cleared in batches, so there is nothing to maintain between them.
    if value not in (True, "one_batch", "maintenance"):
        msg = f"run {value}"
        raise NotSupportedError(msg)
    texts = step.get("expect_error_contains")
    if texts is None:
        script.subject.run()
        return
    try:
        script.subject.run()
    except MicrobatchError as error:
        script.subject.expect_its_failure()
        check_error(texts, error)
        return
    msg = f"run: expected an error with {texts}, it succeeded"
    raise MismatchError(msg)


def check_error(texts: list[str] | str, error: BaseException) -> None:
    """Raise MismatchError unless the error or one of its causes has each of the texts."""
    told = " | ".join(map(str, engine.causes(error)))
    for text in [texts] if isinstance(texts, str) else texts:
        if text.lower() not in told.lower():
            msg = f"expected an error with {text!r}, got {told}"
            raise MismatchError(msg)


def _restart(script: Script, value: Any, step: Step) -> None:
    script.subject.stop()
    script.subject.start()


def _sink_fails(script: Script, value: str | None, step: Step) -> None:
    recorder = script.subject.recorder
    assert isinstance(recorder, ForeachBatchRecorder)
    recorder.fails_with = value


def _clock(script: Script, value: int, step: Step) -> None:
    script.subject.set_clock_ms(value)


def _expect_new(script: Script, value: list[Row], step: Step) -> None:
    rows = script.new_rows()
    optional = step.get("optional", [])
    if optional and difference([*value, *optional], rows) is None:
        return
    check_rows("expect_new", value, rows, ordered=script.ordered)


def _expect_table(script: Script, value: list[Row], step: Step) -> None:
    check_rows("expect_table", value, script.table())


def _expect_table_by(script: Script, value: list[str], step: Step) -> None:
    rows = last_per_key(script.rows(), [script.output.index(k) for k in value])
    check_rows("expect_table_by", step["rows"], rows)


def _ignore_new(script: Script, value: Any, step: Step) -> None:
    script.new_rows()


def _expect_watermark(script: Script, value: int | None, step: Step) -> None:
    script.subject.look()
    check_equal("expect_watermark", value, engine.next_watermark_ms(script.subject.checkpoint))


def _expect_state_rows(script: Script, value: dict[str, Any], step: Step) -> None:
    script.subject.look()
    rows = {o["operatorName"].split()[-1]: o["numRowsTotal"] for o in script.subject.progress.all[-1]["stateOperators"]}
    check_equal("expect_state_rows", value["rows"], rows.get(value["uid"]))


def _expect_late_count(script: Script, value: int, step: Step) -> None:
    check_equal("expect_late_count", value, len(script.late_rows()))


def _expect_late(script: Script, value: Any, step: Step) -> None:
    wanted = [row for rows in value.values() for row in rows] if isinstance(value, dict) else value
    check_rows("expect_late", wanted, script.late_rows())


def _expect_state(script: Script, value: dict[str, Any], step: Step) -> None:
    """Compare the state of a join: a table a side, whose columns are called as the side's."""
    side, *columns = value["columns"]
    if side != "side":
        msg = "the state of an operator that is no join"
        raise NotSupportedError(msg)
    found: list[Row] = []
    for name in ("left", "right"):
        rows = mb.read_state(script.subject.checkpoint, f"{value['uid']}/{name}").collect()
        if script.explicit:
            rows = rows.filter(~pl.col(f"{name}.{FILLER}"))
        found += [[name, *row] for row in rows_of(rows, [f"{name}.{c}" for c in columns], per_second=PER_SECOND)]
    check_rows("expect_state", value["rows"], found)


_STEPS: dict[str, Callable[[Script, Any, Step], None]] = {
    "add": _add,
    "watermark": _watermark,
    "run": _run,
    "restart": _restart,
    "sink_fails": _sink_fails,
    "clock": _clock,
    "expect_new": _expect_new,
    "expect_total": _expect_new,
    "expect_table": _expect_table,
    "expect_table_by": _expect_table_by,
    "ignore_new": _ignore_new,
    "expect_watermark": _expect_watermark,
    "expect_late": _expect_late,
    "expect_state_rows": _expect_state_rows,
    "expect_late_count": _expect_late_count,
    "expect_state": _expect_state,
}
