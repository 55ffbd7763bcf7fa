"""Steps of the other form on raw texts: lines of files that the engine's file source parses, malformed ones failed, dropped or rescued.

Rescued rows are the dead letters: the sink gets them beside the good ones, with the raw text and the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from microbatch.errors import MicrobatchError
from tests.conformance.compare import Row, check_equal, check_rows, rows_of
from tests.conformance.others.late import PER_SECOND
from tests.conformance.others.memory import check_error
from tests.conformance.others.pipeline import build
from tests.conformance.others.steps import do_steps
from tests.conformance.ports import FilePort
from tests.conformance.report import MismatchError, NotSupportedError
from tests.conformance.subject import Subject

Step = dict[str, Any]

MALFORMED = {"fail": "fail", "drop": "drop", "skip": "drop", "dead_letter": "rescue"}
_AFTER = ("filter", "passthrough", "sink")
_RESCUED = "_rescued"
_FORMATS = ("json", "csv")


def run(body: dict[str, Any], folder: Path) -> str:
    """Run the case's steps and return remarks."""
    script = Script(body, folder)
    try:
        do_steps(script, body["steps"], _STEPS, where=" with raw texts")
    finally:
        script.subject.close()
    return "; ".join(script.remarks)


class Script:
    """A case's subject, and how many good and dead rows were looked at."""

    def __init__(self, body: dict[str, Any], folder: Path) -> None:
        parse, *rest = body["pipeline"]
        _check(body, parse, rest)
        self.output: list[str] = body["output"]
        self.remarks: list[str] = []
        self.ports = {name: _port(spec, parse, folder / name) for name, spec in body["inputs"].items()}
        self._files = self._seen = self._dead_seen = 0
        self.subject = Subject(
            {"pipeline": body["pipeline"], "inputs": {}, "output_mode": "append"},
            folder,
            ports=self.ports,
            builder=lambda frames: build([{"op": "union"}, *rest] if len(frames) > 1 else rest, [*body["output"], *self._kept], frames),
        )
        self._kept = [_RESCUED] if parse.get("on_error") == "dead_letter" else []

    def add(self, name: str, texts: list[str]) -> None:
        """Let texts arrive as the lines of one file."""
        self._files += 1
        self.ports[name].write(f"{self._files:06}", texts, None)

    def all_rows(self) -> pl.DataFrame:
        """Return what the sink has, in order."""
        self.subject.look()
        return pl.concat([pl.DataFrame(), *(frame for _, frame in self.subject.recorder.batches())], how="diagonal")

    def good(self) -> list[Row]:
        """Return all good rows."""
        rows = self.all_rows()
        good = rows.filter(pl.col(_RESCUED).is_null()) if _RESCUED in rows.columns else rows
        return rows_of(good.select(self.output), per_second=PER_SECOND) if good.width else []

    def dead(self) -> list[dict[str, Any]]:
        """Return all dead letters: file, reason, raw."""
        rows = self.all_rows()
        return rows[_RESCUED].drop_nulls().to_list() if _RESCUED in rows.columns else []

    def new_good(self) -> list[Row]:
        """Return the good rows since the last look, and look."""
        rows = self.good()
        fresh, self._seen = rows[self._seen :], len(rows)
        return fresh

    def new_dead(self) -> list[dict[str, Any]]:
        """Return the dead letters since the last look, and look."""
        rows = self.dead()
        fresh, self._dead_seen = rows[self._dead_seen :], len(rows)
        return fresh


def _check(body: dict[str, Any], parse: Step, rest: list[Step]) -> None:
    lacking = [f"operator {op['op']} behind parse" for op in rest if op["op"] not in _AFTER]
    lacking += [f"parse {name}" for name in parse if name not in ("op", "uid", "input", "on_error")]
    lacking += [f"parse on_error {parse['on_error']}"] if parse.get("on_error", "fail") not in MALFORMED else []
    lacking += [f"raw texts of format {s.get('format')}" for s in body["inputs"].values() if s.get("format") not in _FORMATS]
    if lacking:
        raise NotSupportedError(lacking[0])


def _port(spec: dict[str, Any], parse: Step, folder: Path) -> FilePort:
    options = {"malformed": MALFORMED[parse.get("on_error", "fail")]}
    return FilePort({"format": spec["format"], "schema": spec["schema"], "options": options}, folder)


def _add_raw(script: Script, value: dict[str, list[str]], step: Step) -> None:
    for name, texts in value.items():
        script.add(name, texts)


def _run(script: Script, value: Any, step: Step) -> None:
    try:
        script.subject.run()
    except MicrobatchError as error:
        if "expect_error_contains" not in step:
            raise
        script.subject.expect_its_failure()
        check_error(step["expect_error_contains"], error)
        return
    if "expect_error_contains" in step:
        msg = f"run: expected an error with {step['expect_error_contains']}, it succeeded"
        raise MismatchError(msg)


def _restart(script: Script, value: Any, step: Step) -> None:
    script.subject.stop()
    script.subject.start()


def _expect_new(script: Script, value: list[Row], step: Step) -> None:
    check_rows("expect_new", value, script.new_good())


def _expect_table(script: Script, value: list[Row], step: Step) -> None:
    check_rows("expect_table", value, script.good())


def _expect_dead(script: Script, value: list[dict[str, Any]], step: Step) -> None:
    """Compare the raw texts; the words of a reason are each engine's own, so others than expected are a remark."""
    found = script.new_dead()
    check_rows("expect_dead", [[letter["raw"]] for letter in value if "raw" in letter], [[letter["raw"]] for letter in found])
    for wanted, got in zip(value, found, strict=True):
        if wanted.get("reason_contains", "").lower() not in got["reason"].lower():
            script.remarks.append(f"reason in other words than {wanted['reason_contains']!r}: {got['reason']}")


def _expect_dead_count(script: Script, value: int, step: Step) -> None:
    check_equal("expect_dead_count", value, len(script.new_dead()))


def _expect_dead_total(script: Script, value: int, step: Step) -> None:
    check_equal("expect_dead_total", value, len(script.dead()))


_STEPS: dict[str, Callable[[Script, Any, Step], None]] = {
    "add_raw": _add_raw,
    "run": _run,
    "restart": _restart,
    "expect_new": _expect_new,
    "expect_total": _expect_new,
    "expect_table": _expect_table,
    "expect_dead": _expect_dead,
    "expect_dead_count": _expect_dead_count,
    "expect_dead_total": _expect_dead_total,
}
