"""Steps of the other form on files and a Delta table: nothing of it lives in the process, so the process may be killed.

Every ``run`` opens the query anew and runs it until there is nothing left; one that must crash does so in a child process, killed at
a fault point of the engine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable

import microbatch as mb
from microbatch.clock import ManualClock
from microbatch.errors import MicrobatchError
from microbatch.protocols import SinkBatch
from microbatch.registry import connector
from tests.conformance import engine
from tests.conformance.compare import Row, check_rows, difference, rows_of
from tests.conformance.others.late import PER_SECOND
from tests.conformance.others.memory import check_error, check_kinds
from tests.conformance.others.pipeline import build, explicit_inputs, output_mode, partitions_watched
from tests.conformance.others.steps import do_steps
from tests.conformance.report import MismatchError, NotSupportedError
from tests.conformance.sinks import outside_context

Step = dict[str, Any]

FAULT_POINTS = {
    "before_offset_log": "batch_decided",
    "after_offset_log": "offsets_logged",
    "during_compute": "rows_read",
    "after_state_write": "state_written",
    "sink_files_written": "sink_files_written",
    "sink_committed": "sink_written",
    "after_commit_log": "batch_committed",
}

_CHILD_SECONDS = 50


def run(body: dict[str, Any], folder: Path) -> str:
    """Run the case's steps and return remarks."""
    script = Script(body, folder)
    do_steps(script, body["steps"], _STEPS, where=" with a durable sink")
    return "; ".join(script.remarks)


def define(description: dict[str, Any], **options: Any) -> Any:
    """Return the query of a description, which is all a child process gets."""
    folder = Path(description["folder"])
    frames = {name: _scan(folder / "inputs" / name, spec["schema"], description) for name, spec in description["inputs"].items()}
    relation = build(description["pipeline"], description["output"], frames)
    mode = output_mode(description["pipeline"], description["output_mode"])
    return engine.feature(relation.frame, "sink_delta")(str(folder / "table"), checkpoint=str(folder / "checkpoint"), mode=mode, **options)


def _scan(folder: Path, columns: dict[str, str], description: dict[str, Any]) -> Any:
    limit = description.get("max_files_per_trigger")
    options = {} if limit is None else {"max_files_per_trigger": limit}
    return engine.feature(mb, "scan_files")(f"{folder}/*.parquet", format="parquet", schema=engine.schema(columns), **options)


class Script:
    """A case's query as a description, its folder, and the crash that is due."""

    def __init__(self, body: dict[str, Any], folder: Path) -> None:
        check_kinds(body)
        if any(count > 1 for count in partitions_watched(body).values()):
            msg = "partitions of files"
            raise NotSupportedError(msg)
        if explicit_inputs(body["pipeline"]):
            msg = "an explicit watermark on files"
            raise NotSupportedError(msg)
        self.folder = folder
        self.description: dict[str, Any] = {
            "folder": str(folder),
            **{key: body[key] for key in ("inputs", "pipeline", "output", "output_mode")},
        }
        self.row_a_file = any("max_rows_per_batch" in step.get("option", {}) for step in body["steps"])
        self.crash: str | None = None
        self.remarks: list[str] = []
        self._files = 0

    def add(self, name: str, rows: list[Row]) -> None:
        """Let rows arrive as a file, or as a file each if the case limits rows: then files are counted in their place."""
        folder = self.folder / "inputs" / name
        folder.mkdir(parents=True, exist_ok=True)
        columns = self.description["inputs"][name]["schema"]
        for part in [[row] for row in rows] if self.row_a_file else [rows]:
            self._files += 1
            engine.frame(part, columns, per_second=PER_SECOND).write_parquet(staged := folder / f".{self._files}")
            os.utime(staged, (1_700_000_000 + self._files, 1_700_000_000 + self._files))
            staged.rename(folder / f"{self._files:06}.parquet")

    def table(self) -> list[Row]:
        """Return what a reader of the sink sees."""
        path = str(self.folder / "table")
        if not DeltaTable.is_deltatable(path):
            return []
        return rows_of(pl.read_delta(path), self.description["output"], per_second=PER_SECOND)

    def run_to_crash(self) -> None:
        """Run in a child that is killed at the point that is due."""
        point, self.crash = self.crash, None
        told = self.folder / "description.json"
        told.write_text(json.dumps(self.description))
        child = subprocess.run(
            [sys.executable, "-m", "tests.conformance.others.child", str(told)],
            env={**os.environ, "MICROBATCH_FAULT": str(point)},
            cwd=Path(__file__).resolve().parents[3],
            capture_output=True,
            text=True,
            timeout=_CHILD_SECONDS,
            check=False,
        )
        if child.returncode == 0:
            self.remarks.append(f"the point {point} is not passed by this query: it was not killed")
        elif child.returncode != -signal.SIGKILL:
            msg = f"run: expected a crash at {point}, the child failed: {child.stderr.strip().splitlines()[-1:]}"
            raise MismatchError(msg)


def _add(script: Script, value: dict[str, list[Row]], step: Step) -> None:
    for name, rows in value.items():
        script.add(name, rows)


def _crash_at(script: Script, value: str, step: Step) -> None:
    if value not in FAULT_POINTS:
        msg = f"crash at {value}"
        raise NotSupportedError(msg)
    script.crash = FAULT_POINTS[value]


def _run(script: Script, value: Any, step: Step) -> None:
    if script.crash is not None:
        script.run_to_crash()
        return
    if value not in (True, "one_batch"):
        msg = f"run {value} of a durable query"
        raise NotSupportedError(msg)
    _check_outcome(script, step, _error_of(_run_one_batch if value == "one_batch" else _run_until_done, script))


def _check_outcome(script: Script, step: Step, error: MicrobatchError | None) -> None:
    if "expect_one_of" in step:
        _check_one_of(script, step["expect_one_of"], error)
    elif "expect_error_contains" in step:
        check_error(step["expect_error_contains"], error or MismatchError("no error"))
    elif error is not None:
        raise error


def _error_of(work: Callable[[Script], None], script: Script) -> MicrobatchError | None:
    try:
        work(script)
    except MicrobatchError as error:
        return error
    return None


def _run_until_done(script: Script) -> None:
    define(script.description).run()


def _run_one_batch(script: Script) -> None:
    with _waiting(script) as handle:
        if handle.exception is not None:
            raise handle.exception


@contextmanager
def _waiting(script: Script) -> Iterator[Any]:
    """Run the query for one batch, and until the end of the block let it wait for its next trigger."""
    clock = ManualClock()
    with define(script.description, clock=clock).start(every="1h") as handle:
        while handle.is_active and not clock.wait_for_sleeper(0.02):
            pass
        yield handle


def _second_instance(script: Script, value: Any, step: Step) -> None:
    """Start the query a second time while it runs; without a word in the step it may be refused, the table tells the rest."""
    with _waiting(script):
        error = _error_of(_run_until_done, script)
    if "expect_one_of" in step or "expect_error_contains" in step:
        _check_outcome(script, step, error)
    elif error is not None:
        script.remarks.append(f"a second instance is refused: {error}")


def _replay(script: Script, value: int, step: Step) -> None:
    """Hand a batch the table has to the sink once more, as a run would whose commit entry was lost."""
    checkpoint, table = script.folder / "checkpoint", str(script.folder / "table")
    query_id = json.loads((checkpoint / "metadata").read_text())["id"]
    rows = pl.read_delta(table)
    mode = output_mode(script.description["pipeline"], script.description["output_mode"])
    writer = connector("sink:delta")(table).open(outside_context(query_id, mode, rows.schema))
    try:
        writer.write(SinkBatch(batch_id=value, rows=rows, info={}))
    finally:
        writer.close()


def _check_one_of(script: Script, outcomes: list[dict[str, Any]], error: MicrobatchError | None) -> None:
    """Raise MismatchError unless the run did one of the allowed things."""
    for outcome in outcomes:
        if "table" in outcome and error is None and difference(outcome["table"], script.table()) is None:
            return
        if "error_contains" in outcome and error is not None:
            try:
                check_error(outcome["error_contains"], error)
            except MismatchError:
                continue
            return
    msg = f"run: expected one of {outcomes}, got table {script.table()}, error {error}"
    raise MismatchError(msg)


def _restart(script: Script, value: Any, step: Step) -> None:
    """Every run opens the query anew."""


def _option(script: Script, value: dict[str, Any], step: Step) -> None:
    for name, setting in value.items():
        if name != "max_rows_per_batch":
            msg = f"option {name}"
            raise NotSupportedError(msg)
        script.description["max_files_per_trigger"] = setting


def _delete_checkpoint(script: Script, value: Any, step: Step) -> None:
    shutil.rmtree(script.folder / "checkpoint")


def _expect_table(script: Script, value: list[Row], step: Step) -> None:
    check_rows("expect_table", value, script.table())


def _never(script: Script, value: dict[str, Any], step: Step) -> None:
    if "table" in value and difference(value["table"], script.table()) is None:
        msg = f"never: the table is {value['table']}"
        raise MismatchError(msg)


_STEPS: dict[str, Callable[[Script, Any, Step], None]] = {
    "add": _add,
    "crash_at": _crash_at,
    "run": _run,
    "restart": _restart,
    "option": _option,
    "delete_checkpoint": _delete_checkpoint,
    "second_instance": _second_instance,
    "replay_commit_of_batch": _replay,
    "expect_table": _expect_table,
    "never": _never,
}
