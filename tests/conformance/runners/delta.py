"""Cases about Delta tables: the sink by queries, and batch writes that carry a transaction id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable

from microbatch.errors import MicrobatchError
from microbatch.protocols import SinkBatch
from microbatch.registry import connector
from tests.conformance import engine
from tests.conformance.compare import check_equal, check_rows
from tests.conformance.ports import snake
from tests.conformance.report import MismatchError, NotSupportedError
from tests.conformance.runners import rows
from tests.conformance.sinks import Batch, outside_context
from tests.conformance.steps import Do, Script, Step


class DeltaRecorder:
    """The engine's Delta sink; its content is read with another library."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options: dict[str, Any] = {}

    def query(self, frame: Any, options: dict[str, Any]) -> Any:
        return engine.feature(frame, "sink_delta")(str(self.folder), **self.options, **options)

    def table(self) -> pl.DataFrame:
        """Return the table's rows now."""
        return pl.read_delta(str(self.folder))

    def batches(self) -> list[Batch]:
        return [(0, self.table())] if DeltaTable.is_deltatable(str(self.folder)) else []

    def clear(self, *, with_ids: bool) -> None:
        engine.feature(self, "clearing a Delta table")


def run(body: dict[str, Any], folder: Path) -> str:
    """Run the case's steps with a Delta sink."""
    return rows.run(body, folder, DeltaRecorder(folder / "table"), _STEPS)


def _recorder(script: Script) -> DeltaRecorder:
    assert isinstance(script.subject.recorder, DeltaRecorder)
    return script.subject.recorder


def _sink_option(script: Script, value: dict[str, Any], step: Step) -> None:
    _recorder(script).options |= {snake(name): option for name, option in value.items()}


def _expect_table(script: Script, value: list[list[Any]], step: Step) -> None:
    script.subject.look()
    check_rows("expect_table", value, script.rows(_recorder(script).table()))


def _expect_table_rows(script: Script, value: int, step: Step) -> None:
    script.subject.look()
    check_equal("expect_table_rows", value, _recorder(script).table().height)


def _expect_txn(script: Script, value: dict[str, Any], step: Step) -> None:
    script.subject.look()
    app = script.subject.handle.id if value["app_id"] == "query id" else value["app_id"]
    check_equal("expect_txn", value["version"], DeltaTable(str(_recorder(script).folder)).transaction_version(app))


def _expect_table_version(script: Script, value: int, step: Step) -> None:
    script.subject.look()
    check_equal("expect_table_version", value, DeltaTable(str(_recorder(script).folder)).version())


def _expect_partition_by(script: Script, value: list[str], step: Step) -> None:
    script.subject.look()
    check_equal("expect_partition_by", value, DeltaTable(str(_recorder(script).folder)).metadata().partition_columns)


def _batch_write(script: Script, value: dict[str, Any], step: Step) -> None:
    """Another query writes one batch to the table, with its own options; columns it partitions by are added to the rows."""
    subject, recorder = script.subject, _recorder(script)
    script.subject.stop()
    base = recorder.table().head(0)
    more = [pl.lit(0, dtype=pl.Int64).alias(c) for c in value.get("partition_by", []) if c not in base.columns]
    second = {**recorder.options, **{k: v for k, v in value.items() if k not in ("verdict", "rows", "message_like")}}
    frame = next(iter(subject.ports.values())).frame()
    frame = frame.with_columns(*more) if more else frame
    try:
        engine.feature(frame, "sink_delta")(str(recorder.folder), checkpoint=str(subject.checkpoint) + "-second", **second).run()
    except MicrobatchError as refusal:
        if value.get("verdict") != "refused":
            msg = f"batch_write: expected to be taken, was refused: {refusal}"
            raise MismatchError(msg) from refusal
        return
    if value.get("verdict") == "refused":
        msg = "batch_write: expected to be refused, was taken"
        raise MismatchError(msg)


def _txn_write(script: Script, value: dict[str, Any], step: Step) -> None:
    """One write outside any query that carries (application, version): one not above the recorded version changes nothing."""
    if not {"app", "version"} <= value.keys():
        msg = "half of a transaction id: the engine's own are whole"
        raise NotSupportedError(msg)
    folder = str(_recorder(script).folder)
    rows = pl.DataFrame({"v": range(value["rows"])}, schema={"v": pl.Int64})
    sink = connector("sink:delta")(folder)
    writer = sink.open(outside_context(value["app"], "complete" if value["mode"] == "overwrite" else "append", rows.schema))
    try:
        writer.write(SinkBatch(batch_id=value["version"], rows=rows, info={}))
    finally:
        writer.close()
    if "then_rows" in step:
        check_equal("rows after txn_write", step["then_rows"], pl.read_delta(folder).height)
    if "then_table_version" in step:
        check_equal("table version after txn_write", step["then_table_version"], DeltaTable(folder).version())


_STEPS: dict[str, Do] = {
    "sink_option": _sink_option,
    "expect_table": _expect_table,
    "expect_table_rows": _expect_table_rows,
    "expect_txn": _expect_txn,
    "expect_table_version": _expect_table_version,
    "expect_partition_by": _expect_partition_by,
    "batch_write": _batch_write,
    "txn_write": _txn_write,
}
