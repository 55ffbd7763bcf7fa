"""A Delta sink's writer and a table to look at: shared by the tests of the sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from microbatch.clock import ManualClock
from microbatch.model import OutputMode
from microbatch.protocols import EntryLog, SinkBatch, SinkContext
from microbatch.sinks.delta import DeltaSink
from microbatch.sinks.delta_writer import DeltaWriter

APPEND, UPDATE, COMPLETE = OutputMode.APPEND, OutputMode.UPDATE, OutputMode.COMPLETE
ROWS = pl.DataFrame({"k": ["a", "b"], "v": [1, 2]})


def no_log(path: str, every: int) -> EntryLog:
    raise AssertionError((path, every))


def context(mode: OutputMode, schema: pl.Schema, query_id: str = "q", keys: Sequence[str] = ("k",)) -> SinkContext:
    return SinkContext(
        query_id=query_id,
        query_name="orders",
        mode=mode,
        schema=schema,
        keys=tuple(keys) if mode is UPDATE else (),
        clock=ManualClock(),
        open_log=no_log,
    )


def opened(
    table: Path, mode: OutputMode = APPEND, like: pl.DataFrame = ROWS, query_id: str = "q", keys: Sequence[str] = ("k",), **options: Any
) -> DeltaWriter:
    return DeltaSink(table, **options).open(context(mode, like.schema, query_id, keys))


def put(writer: DeltaWriter, batch_id: int, rows: pl.DataFrame, info: Mapping[str, str] | None = None) -> None:
    writer.write(SinkBatch(batch_id=batch_id, rows=rows, info=info or {}))


def version(table: Path) -> int:
    return DeltaTable(table).version()


def recorded(table: Path, query_id: str = "q") -> int | None:
    return DeltaTable(table).transaction_version(query_id)


def assert_table(table: Path, expected: pl.DataFrame) -> None:
    assert_frame_equal(pl.read_delta(str(table)), expected, check_row_order=False)


def frame(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns)
