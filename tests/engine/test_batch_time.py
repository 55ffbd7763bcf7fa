"""The time of a batch: logged, constant over its rows, the same when it runs again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb
from microbatch.clock import ManualClock


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)


def test_every_row_of_a_batch_has_the_batch_s_time(tmp_path: Path) -> None:
    clock, stream, out = ManualClock(5_000_000), mb.MemoryStream({"v": pl.Int64}), mb.MemorySink()
    query = stream.frame().with_columns(at=mb.batch_time()).sink_memory(out, checkpoint=tmp_path / "c", clock=clock)
    stream.add({"v": [1, 2]})
    query.run()
    clock.set_us(9_000_000)
    stream.add({"v": [3]})
    query.run()
    assert out.rows().rows() == [(1, at(5)), (2, at(5)), (3, at(9))]


def test_a_batch_that_runs_again_sees_its_logged_time(tmp_path: Path) -> None:
    clock, stream, out = ManualClock(5_000_000), mb.MemoryStream({"v": pl.Int64}), mb.MemorySink()
    query = stream.frame().select("v", age=mb.batch_time() - at(0)).sink_memory(out, checkpoint=tmp_path / "c", clock=clock)
    stream.add({"v": [1]})
    query.run()
    (tmp_path / "c" / "commits" / "0").unlink()
    out.clear(forget_ids=True)
    clock.set_us(99_000_000)
    query.run()
    assert out.rows()["age"].dt.total_seconds().to_list() == [5]


def test_a_batch_is_never_earlier_than_the_one_before_though_the_clock_is_set_back(tmp_path: Path) -> None:
    clock, stream, out = ManualClock(9_000_000), mb.MemoryStream({"v": pl.Int64}), mb.MemorySink()
    query = stream.frame().with_columns(at=mb.batch_time()).sink_memory(out, checkpoint=tmp_path / "c", clock=clock)
    for now_us in (9_000_000, 4_000_000, 10_000_000):
        clock.set_us(now_us)
        stream.add({"v": [now_us]})
        query.run()  # a run of its own, so the time before is read from the log
    assert out.rows()["at"].to_list() == [at(9), at(9), at(10)]


def test_as_batch_uses_the_time_of_the_call() -> None:
    stream = mb.MemoryStream({"v": pl.Int64})
    stream.add({"v": [1]})
    stamped = stream.frame().with_columns(mb.batch_time()).as_batch().collect()
    assert stamped.schema["batch_time"] == pl.Datetime("us", "UTC")
    assert stamped["batch_time"].item() > datetime(2020, 1, 1, tzinfo=UTC)


def test_event_time_passes_a_function_that_keeps_its_column() -> None:
    stream = mb.MemoryStream({"t": pl.Datetime("us"), "v": pl.Int64}).frame().with_watermark("t", "1m")
    kept = stream.map_batches(lambda rows: rows, row_wise=True, keeps=["t"])
    assert isinstance(kept.group_by(mb.window("t", "1m")).len().sink_memory(mb.MemorySink()), mb.Query)
    with pytest.raises(mb.PlanError, match=r"\['t'\] are not the same columns before and behind"):
        stream.map_batches(lambda rows: rows, row_wise=True, keeps=["t"], schema={"v": pl.Int64})


@pytest.mark.parametrize(
    ("place", "mode", "expected"),
    [
        (lambda f: f.with_columns(mb.window(mb.batch_time(), "4s")), "append", [(1, at(4), at(8)), (2, at(8), at(12))]),
        (
            lambda f: f.with_columns(mb.window(mb.batch_time(), "4s", slide="2s")),
            "append",
            [(1, at(2), at(6)), (1, at(4), at(8)), (2, at(6), at(10)), (2, at(8), at(12))],
        ),
        (
            lambda f: f.group_by(mb.window(mb.batch_time(), "4s", slide="2s")).agg(pl.col("v").sum()).select("v", "window_start"),
            "complete",
            [(1, at(2)), (1, at(4)), (2, at(6)), (2, at(8))],
        ),
        (
            lambda f: f.group_by("v", mb.session_window(mb.batch_time(), "4s")).len().drop("len"),
            "complete",
            [(1, at(5), at(9)), (2, at(9), at(13))],
        ),
        (
            lambda f: f.group_by("v", mb.session_window(pl.lit(at(1)), mb.batch_time() - at(1))).len().drop("len"),
            "complete",
            [(1, at(1), at(5)), (2, at(1), at(9))],
        ),
    ],
    ids=["window", "sliding window", "panes of a sliding window", "session", "gap of a session"],
)
def test_windows_and_sessions_see_the_batch_s_time(place: Any, mode: str, expected: list[Any], tmp_path: Path) -> None:
    clock, stream, out = ManualClock(5_000_000), mb.MemoryStream({"v": pl.Int64}), mb.MemorySink()
    query = place(stream.frame()).sink_memory(out, checkpoint=tmp_path / "c", clock=clock, mode=mode)
    stream.add({"v": [1]})
    query.run()
    clock.set_us(9_000_000)
    stream.add({"v": [2]})
    query.run()
    assert sorted(out.rows().rows()) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"on": "v", "where": pl.col("t") < mb.batch_time()},
        {"left_on": ["v", mb.batch_time()], "right_on": ["v", "t"]},
    ],
)
def test_a_join_of_two_streams_by_the_batch_s_time_is_refused(options: dict[str, Any]) -> None:
    left, right = (mb.MemoryStream({"v": pl.Int64, "t": pl.Datetime("us", "UTC")}).frame() for _ in range(2))
    with pytest.raises(mb.PlanError, match=r"join: mb.batch_time\(\) differs by batch.*before the join, or filter behind it"):
        left.join(right, **options)


def test_an_aggregation_over_the_batch_s_time_is_refused() -> None:
    grouped = mb.MemoryStream({"v": pl.Int64}).frame().group_by("v")
    with pytest.raises(mb.PlanError, match=r"mb.batch_time\(\) differs by batch.*with_columns\(now=mb.batch_time\(\)\) before group_by"):
        grouped.agg(latest=mb.batch_time().max())
