"""A file sink's writer and its folder as readers see it: shared by the tests of the sink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.entry_log import CompactibleLog
from microbatch.clock import ManualClock
from microbatch.model import OutputMode
from microbatch.protocols import EntryLog, SinkBatch, SinkContext
from microbatch.sinks.files import FileSink, FileWriter, read_file_sink

QUERY = "0a1b2c3d-0000-4000-8000-000000000000"
OTHER = "ffffffff-0000-4000-8000-000000000000"
SCHEMA = pl.Schema({"n": pl.Int64(), "kind": pl.String()})


class Killed(BaseException):
    """The process died here."""


def open_log(path: str, every: int) -> EntryLog:
    return CompactibleLog(LocalFolder(path), every)


def writer_of(
    sink: FileSink,
    *,
    query_id: str = QUERY,
    schema: pl.Schema = SCHEMA,
    mode: OutputMode = OutputMode.APPEND,
    log: Callable[[str, int], EntryLog] = open_log,
) -> FileWriter:
    context = SinkContext(query_id=query_id, query_name=None, mode=mode, schema=schema, keys=(), clock=ManualClock(), open_log=log)
    return sink.open(context)


def frame(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame({"n": numbers, "kind": ["even" if n % 2 == 0 else "odd" for n in numbers]}, schema=SCHEMA)


def batch(batch_id: int, *numbers: int) -> SinkBatch:
    return SinkBatch(batch_id=batch_id, rows=frame(*numbers), info={})


def plain(out: Path) -> list[int]:
    """What a reader sees that lists the folder and knows nothing of the log."""
    found = list(out.rglob("*.parquet"))
    return sorted(pl.concat([pl.read_parquet(file, columns=["n"], hive_partitioning=False) for file in found])["n"]) if found else []


def by_log(out: Path) -> list[int]:
    """What a reader sees that goes by the log."""
    return sorted(read_file_sink(out).collect()["n"])


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
