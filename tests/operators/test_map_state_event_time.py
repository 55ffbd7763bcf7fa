"""Rows of map_state that carry event time: the watermark goes on to the verbs behind it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb

T = pl.Datetime("us")
SCHEMA: dict[str, Any] = {"t": T, "k": pl.String}
OPTIONS: dict[str, Any] = {"state_schema": {"n": pl.Int64}, "output_schema": {"at": T, "n": pl.Int64}, "event_time": "at"}


def at(second: int) -> datetime:
    return datetime(2024, 1, 1) + timedelta(seconds=second)


def one_a_row(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
    return [(row.t, 1) for row in rows]


def hundred_after_seven_seconds(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
    if state.timer_us is not None:
        return (datetime(1970, 1, 1) + timedelta(microseconds=state.timer_us), 100)
    for row in rows:
        state.register_timer(row.t + timedelta(seconds=7))
    return one_a_row(key, rows, state)


class Job:
    """Sums of windows of ten seconds over what a function returns, a run a batch, the watermark being the largest time."""

    def __init__(self, folder: Path, function: Any, **options: Any) -> None:
        self.stream, self.out, self.late = mb.MemoryStream(SCHEMA), mb.MemorySink(), mb.MemorySink()
        machine = self.stream.frame().with_watermark("t", "0s").group_by("k").map_state(function, **OPTIONS, **options)
        sums = machine.group_by(mb.window("at", "10s")).agg(pl.col("n").sum())
        self.query = sums.sink_memory(self.out, checkpoint=folder / "checkpoint", late_rows=self.late)

    def batch(self, *rows: tuple[int, str]) -> list[tuple[Any, ...]]:
        """Return the windows that are over, as start in seconds and sum."""
        before = self.out.rows().height
        self.stream.add(pl.DataFrame([(at(s), k) for s, k in rows], schema=SCHEMA, orient="row"))
        self.query.run()
        fresh = self.out.rows()[before:]
        return [((start - at(0)) // timedelta(seconds=1), n) for start, _, n in fresh.rows()]


def test_a_window_over_the_function_s_time_closes_with_the_watermark(tmp_path: Path) -> None:
    #  [0 ---- 10)[10 ---- 20)
    job = Job(tmp_path, one_a_row)
    assert job.batch((1, "a"), (5, "b")) == []
    assert job.batch((12, "a")) == [(0, 2)]
    assert job.batch((3, "b"), (14, "a")) == []  # 3 is late for the function already
    assert job.batch((25, "a")) == [(10, 2)]
    assert job.late.rows().select("operator", "event_time").rows() == [("map_state-k", at(3))]


def test_a_timer_s_row_counts_in_the_window_of_its_time(tmp_path: Path) -> None:
    # The row at 1 s sets a timer at 8 s: it fires when the watermark comes to 12 s, in the batch that closes [0, 10).
    job = Job(tmp_path, hundred_after_seven_seconds, timers="event_time")
    assert job.batch((1, "a")) == []
    assert job.batch((12, "b")) == [(0, 101)]
    assert job.batch((30, "a")) == [(10, 101)]  # the timer at 19 s


def test_a_timer_at_the_very_watermark_of_the_batch_before_gives_a_late_row(tmp_path: Path) -> None:
    job = Job(tmp_path, hundred_after_seven_seconds, timers="event_time")
    assert job.batch((1, "a"), (8, "b")) == []  # the watermark comes to 8 s, where the timer stands: it fires once it is later
    with pytest.raises(mb.QueryFailedError, match="the watermark had come to 2024-01-01 00:00:08"):
        job.batch((12, "b"))


@pytest.mark.parametrize("second", [2, 5])
def test_a_row_at_or_before_the_watermark_of_the_batch_before_stops_the_query(tmp_path: Path, second: int) -> None:
    def back(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        return (at(second), 1)

    job = Job(tmp_path, back)
    assert job.batch((5, "a")) == []
    with pytest.raises(mb.QueryFailedError) as stopped:
        job.batch((9, "b"))
    assert isinstance(stopped.value.__cause__, mb.DataError)
    wanted = f"returned a row of ('b',) with 'at' = 2024-01-01 00:00:0{second}, but the watermark had come to 2024-01-01 00:00:05: verbs"
    assert wanted in str(stopped.value.__cause__)


def test_a_row_just_after_that_watermark_or_without_a_time_is_taken(tmp_path: Path) -> None:
    def soon(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        return [(at(5) + timedelta(microseconds=1), 1), (None, 7)]

    job = Job(tmp_path, soon)
    assert job.batch((5, "a")) == []
    assert job.batch((12, "b")) == [(0, 2)]


@pytest.mark.parametrize(
    ("watermark", "options", "message"),
    [
        (False, {}, r"event_time='at'\): the rows have no watermark to go on; write .with_watermark"),
        (True, {"timers": "processing_time"}, r'event_time=\'at\'\) with timers="processing_time": their rows would be late'),
        (True, {"timeout": "event_time"}, r'event_time=\'at\'\) with timeout="event_time": their rows would be late'),
        (True, {"event_time": "att"}, r"event_time='att'\) \(did you mean 'at'\?\); output_schema has \['at', 'n'\]"),
        (True, {"event_time": "n"}, r"event_time='n'\): event time must be a Datetime, output_schema has Int64"),
    ],
)
def test_event_time_that_does_not_fit_is_refused(watermark: bool, options: dict[str, Any], message: str) -> None:
    frame = mb.MemoryStream(SCHEMA).frame()
    frame = frame.with_watermark("t", "0s") if watermark else frame
    with pytest.raises(mb.PlanError, match=message):
        frame.group_by("k").map_state(one_a_row, **(OPTIONS | options))


def test_rows_without_event_time_close_no_window() -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "event_time"}
    machine = mb.MemoryStream(SCHEMA).frame().with_watermark("t", "0s").group_by("k").map_state(one_a_row, **options)
    with pytest.raises(mb.PlanError, match="needs event time with a watermark among its keys"):
        machine.group_by(mb.window("at", "10s")).agg(pl.col("n").sum()).sink_memory(mb.MemorySink())
