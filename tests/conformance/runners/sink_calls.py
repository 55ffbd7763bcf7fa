"""Batches handed to the memory sink by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.protocols import SinkBatch, SinkWriter
from tests.conformance import engine
from tests.conformance.compare import check_equal, check_rows, rows_of
from tests.conformance.report import NotSupportedError
from tests.conformance.sinks import outside_context

_SCHEMA = pl.Schema({"v": pl.Int64()})


def run(body: dict[str, Any], folder: Path) -> str:
    """Do the calls and look at the table after each."""
    sink = engine.feature(mb, "MemorySink")()
    writer = sink.open(outside_context("conformance", body["output_mode"], _SCHEMA))
    for step in body["steps"]:
        name = next(iter(step))
        if name == "sink_clear":
            sink.clear()
            continue
        if name != "sink_call":
            msg = f"step {name}"
            raise NotSupportedError(msg)
        _call(writer, sink, step[name])
    return ""


def _call(writer: SinkWriter, sink: Any, call: dict[str, Any]) -> None:
    rows = pl.DataFrame(call["rows"], schema=_SCHEMA, orient="row")
    writer.write(SinkBatch(batch_id=call["batch"], rows=rows, info={}))
    if "then_table" in call:
        check_rows(f"table after batch {call['batch']}", call["then_table"], rows_of(sink.rows()))
    if "then_last_batch" in call:
        check_equal("last batch", call["then_last_batch"], sink.last_batch_id)
