"""Every sink against the whole contract. To add one: a function that makes a place in a folder, and a line in PLACES."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from microbatch.model import OutputMode
from microbatch.sinks.files import FileSink, read_file_sink
from microbatch.sinks.foreach_batch import ForeachBatchSink
from microbatch.sinks.memory import MemorySink
from microbatch.testing.assertions import NotOwedError
from microbatch.testing.sink_kit import DEFAULT_SCHEMA, SINK_CHECKS, SinkPlace

APPEND, UPDATE, COMPLETE = OutputMode.APPEND, OutputMode.UPDATE, OutputMode.COMPLETE
EVERY_TYPE = pl.Schema(
    {
        "key": pl.Int64(),
        "i8": pl.Int8(),
        "u64": pl.UInt64(),
        "f32": pl.Float32(),
        "text": pl.String(),
        "date": pl.Date(),
        "at": pl.Datetime("us", "UTC"),
        "category": pl.Categorical(),
    }
)
PARTITIONED = pl.Schema(
    {"key": pl.Int64(), "day": pl.Date(), "hot": pl.Boolean(), "kind": pl.Enum(["a*b", "c/d"]), "at": pl.Datetime("ms")}
)


def memory(folder: Path) -> SinkPlace:
    sink = MemorySink()
    return SinkPlace(make=lambda: sink, read=lambda: rows_or_none(sink.rows(), DEFAULT_SCHEMA), modes=frozenset({APPEND, UPDATE, COMPLETE}))


def foreach_batch(folder: Path) -> SinkPlace:
    taken: list[pl.DataFrame] = []
    sink = ForeachBatchSink(lambda rows, batch_id: taken.append(rows))
    return SinkPlace(
        make=lambda: sink,
        read=lambda: pl.concat([DEFAULT_SCHEMA.to_frame(), *taken]),
        modes=frozenset({APPEND, UPDATE}),
        refused=frozenset(),
    )


def files(folder: Path, *, kind: str, schema: pl.Schema = EVERY_TYPE, partition_by: tuple[str, ...] = (), plain: bool = False) -> SinkPlace:
    out = folder / "out"

    def read() -> pl.DataFrame:
        if plain:
            found = list(out.rglob("*.parquet"))
            hive = {name: schema[name] for name in partition_by} | ({"microbatch_id": pl.Int64()} if partition_by else {})
            pattern = out / ("**/*.parquet" if partition_by else "*.parquet")
            frame = pl.scan_parquet(pattern, hive_partitioning=bool(partition_by), hive_schema=hive or None).select(schema.names())
            return frame.collect() if found else schema.to_frame()
        return read_file_sink(out).collect() if (out / "_spark_metadata").exists() else schema.to_frame()

    return SinkPlace(
        make=lambda: FileSink(out, format=kind, partition_by=partition_by, changelog=True, compact_every=3),
        read=read,
        modes=frozenset({APPEND, UPDATE}),
        schema=schema,
        folder=folder,
        breaking=lambda: without_folder(out),
        extremes=0.0 if kind == "ndjson" else 0.1,
    )


def delta(folder: Path) -> SinkPlace:
    from microbatch.sinks.delta import DeltaSink

    table = folder / "table"
    schema = pl.Schema({"key": pl.Int64(), "name": pl.String(), "amount": pl.Float64(), "at": pl.Datetime("us", "UTC")})
    return SinkPlace(
        make=lambda: DeltaSink(table),
        read=lambda: pl.read_delta(str(table)) if (table / "_delta_log").exists() else schema.to_frame(),
        modes=frozenset({APPEND, UPDATE, COMPLETE}),
        upserts=True,
        schema=schema,
        folder=folder,
        breaking=lambda: without_folder(table),
    )


@contextmanager
def without_folder(out: Path) -> Iterator[None]:
    """Put a file where the folder was: nothing can be written below it, whoever asks."""
    away = out.with_name("away")
    out.rename(away)
    out.write_text("in the way")
    try:
        yield
    finally:
        out.unlink()
        away.rename(out)


def rows_or_none(rows: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    return rows if rows.width else schema.to_frame()


PLACES: dict[str, Callable[[Path], SinkPlace]] = {
    "memory": memory,
    "foreach_batch": foreach_batch,
    **{f"files-{name}": partial(files, kind=name) for name in ("parquet", "csv", "ndjson", "ipc")},
    **{
        f"files-{name}-partitioned": partial(files, kind=name, schema=PARTITIONED, partition_by=("kind", "day", "hot"))
        for name in ("parquet", "ipc")
    },
    "files-plain": partial(files, kind="parquet", plain=True),
    "files-plain-partitioned": partial(files, kind="parquet", schema=PARTITIONED, partition_by=("kind", "day", "hot"), plain=True),
}
if find_spec("microbatch.sinks.delta"):
    PLACES["delta"] = delta


@pytest.mark.parametrize("check", SINK_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("place", PLACES)
def test_sink_keeps_the_contract(place: str, check: Callable[[SinkPlace], None], tmp_path: Path) -> None:
    try:
        check(PLACES[place](tmp_path))
    except NotOwedError as reason:
        pytest.skip(str(reason))
