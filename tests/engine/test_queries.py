"""The life of a query on a memory stream: batches, marks, modes, restarts. Expected rows by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb
from microbatch.clock import ManualClock

SECONDS = {"v": pl.Int64}


class Clicks:
    """A stream of seconds, counted per 5 s window, watermark 10 s behind."""

    def __init__(self, checkpoint: Path, mode: str = "append", **options: Any) -> None:
        self.stream, self.out = mb.MemoryStream(SECONDS), mb.MemorySink()
        timed = self.stream.frame().with_columns(t=pl.from_epoch("v", time_unit="s").cast(pl.Datetime("us"))).with_watermark("t", "10s")
        counts = timed.group_by(mb.window("t", "5s")).agg(pl.len().alias("n"))
        self.frame = counts.select(pl.col("window_start").dt.epoch("s").alias("start"), "n")
        self.query = self.frame.sink_memory(self.out, mode=mode, checkpoint=checkpoint, **options)

    def run(self, *seconds: int) -> list[tuple[int, ...]]:
        """Add rows, run all there is, return the rows the sink got, in order of start."""
        if seconds:
            self.stream.add({"v": seconds})
        before = len(self.out.batches())
        self.query.run()
        return sorted(row for _, batch in self.out.batches()[before:] for row in batch.rows())


def test_a_window_comes_out_once_when_the_watermark_reaches_its_end(tmp_path: Path) -> None:
    #  [10 ---- 15)[15 ---- 20)[20 ---- 25)[25 ---- 30)
    clicks = Clicks(tmp_path / "c")
    assert clicks.run(10, 11, 12, 13, 14, 15) == []
    assert clicks.run(25) == [(10, 5)]  # watermark 15
    assert clicks.run(10) == []  # late: its window is closed
    assert clicks.run(40) == [(15, 1), (25, 1)]  # watermark 30


def test_a_row_behind_the_watermark_counts_while_its_window_is_open(tmp_path: Path) -> None:
    clicks = Clicks(tmp_path / "c")
    clicks.run(22)  # watermark 12
    assert clicks.run(11) == []
    assert clicks.run(40) == [(10, 1), (20, 1)]


def test_update_mode_gives_every_group_the_batch_touched(tmp_path: Path) -> None:
    clicks = Clicks(tmp_path / "c", mode="update")
    assert clicks.run(10, 15) == [(10, 1), (15, 1)]
    assert clicks.run(11) == [(10, 2)]
    assert clicks.run(50) == [(50, 1)]  # closing a window says nothing
    assert clicks.run(10) == []  # late


def test_complete_mode_gives_all_groups_and_drops_no_row(tmp_path: Path) -> None:
    clicks = Clicks(tmp_path / "c", mode="complete")
    assert clicks.run(10, 50) == [(10, 1), (50, 1)]
    assert clicks.run(11) == [(10, 2), (50, 1)]


def test_late_rows_are_counted(tmp_path: Path) -> None:
    clicks = Clicks(tmp_path / "c")
    clicks.run(10)
    clicks.run(40)  # watermark 30 from the next batch on
    clicks.stream.add({"v": [10, 11, 39]})
    progress = clicks.query.run().last_progress
    assert progress is not None
    assert progress["stateOperators"][0]["numRowsDroppedByWatermark"] == 2


def test_without_no_data_batches_a_closed_window_waits_for_data(tmp_path: Path) -> None:
    clicks = Clicks(tmp_path / "c", no_data_batches=False)
    assert clicks.run(10) == []
    assert clicks.run(40) == []
    assert clicks.run(41) == [(10, 1)]


def test_a_restart_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    clicks = Clicks(tmp_path / "c")
    with clicks.query.start() as first:
        clicks.stream.add({"v": [10, 11]})
        first.process_all_available()
    with clicks.query.start() as second:
        clicks.stream.add({"v": [40]})
        second.process_all_available()
        assert clicks.out.rows().rows() == [(10, 2)]
    assert first.id == second.id
    assert first.run_id != second.run_id


def test_nothing_to_do_makes_no_batch(tmp_path: Path) -> None:
    clicks = Clicks(tmp_path / "c")
    assert clicks.query.run().batches == 0
    assert not list((tmp_path / "c" / "offsets").glob("*"))


def test_two_runs_on_one_checkpoint_are_refused(tmp_path: Path) -> None:
    clicks = Clicks(tmp_path / "c")
    with clicks.query.start(), pytest.raises(mb.CheckpointInUseError):
        clicks.query.start()


def test_a_failing_function_stops_the_query_and_the_batch_runs_again(tmp_path: Path) -> None:
    failing = True

    def guard(rows: pl.DataFrame) -> pl.DataFrame:
        if failing:
            msg = "no service"
            raise RuntimeError(msg)
        return rows

    stream, out = mb.MemoryStream(SECONDS), mb.MemorySink()
    query = stream.frame().map_batches(guard, row_wise=True).sink_memory(out, checkpoint=tmp_path / "c", name="clicks")
    stream.add({"v": [1, 2]})
    with pytest.raises(mb.QueryFailedError, match=r"query clicks stopped at batch 0 .*no service.*start the query again") as failure:
        query.run()
    assert failure.value.batch_id == 0
    stream.add({"v": [3]})
    failing = False
    query.run()
    assert [(batch_id, rows["v"].to_list()) for batch_id, rows in out.batches()] == [(0, [1, 2]), (1, [3])]


def test_a_changed_query_on_an_old_checkpoint_is_refused_with_a_table(tmp_path: Path) -> None:
    stream = mb.MemoryStream({"k": pl.String, "v": pl.Int64})
    stream.add({"k": ["a"], "v": [1]})
    stream.frame().group_by("k").len().sink_memory(mb.MemorySink(), mode="update", checkpoint=tmp_path / "c").run()
    for changed in (stream.frame().group_by("k").agg(pl.col("v").sum()), stream.frame().group_by("v").len(), stream.frame()):
        with pytest.raises(mb.CheckpointMismatchError, match=r"(?s)holds the state of another query:\n .*aggregate-k"):
            changed.sink_memory(mb.MemorySink(), mode="update" if changed is not None else "append", checkpoint=tmp_path / "c").run()


def test_a_stateless_part_may_change(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream({"k": pl.String, "v": pl.Int64}), mb.MemorySink()
    stream.add({"k": ["a"], "v": [1]})
    stream.frame().group_by("k").len().sink_memory(out, mode="update", checkpoint=tmp_path / "c").run()
    stream.add({"k": ["a", "a"], "v": [1, -1]})
    stream.frame().filter(pl.col("v") > 0).group_by("k").len().sink_memory(out, mode="update", checkpoint=tmp_path / "c").run()
    assert out.batches()[-1][1].rows() == [("a", 2)]


def test_intervals_trigger_on_multiples_of_the_clock(tmp_path: Path) -> None:
    clock = ManualClock(250_000_000)
    stream, out = mb.MemoryStream(SECONDS), mb.MemorySink()
    stream.add({"v": [1]})
    query = stream.frame().sink_memory(out, checkpoint=tmp_path / "c", clock=clock).start(every="100s")
    assert clock.wait_for_sleeper()
    stream.add({"v": [2]})
    clock.set_us(299_999_999)
    assert clock.wait_for_sleeper()
    assert len(out.batches()) == 1
    clock.set_us(300_000_000)
    assert clock.wait_for_sleeper()
    assert len(out.batches()) == 2
    query.stop()


def test_the_union_of_a_source_with_itself_reads_one_offset(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream(SECONDS), mb.MemorySink()
    stream.add({"v": [1]})
    stream.frame().union(stream.frame()).sink_memory(out, checkpoint=tmp_path / "c").run()
    assert out.rows()["v"].to_list() == [1, 1]
    assert (tmp_path / "c" / "offsets" / "0").read_text().count("\n") == 2


def test_chained_windows_get_every_row_of_the_first(tmp_path: Path) -> None:
    # Counts per 5 s, then their maximum per 10 s: the row of [5, 10) has time 10 s - 1 us and reaches [0, 10) as both close.
    stream, out = mb.MemoryStream(SECONDS), mb.MemorySink()
    timed = stream.frame().with_columns(t=pl.from_epoch("v", time_unit="s").cast(pl.Datetime("us"))).with_watermark("t", "0s")
    counts = timed.group_by(mb.window("t", "5s")).agg(pl.len().alias("n"))
    tops = counts.group_by(mb.window(mb.window_time(), "10s")).agg(pl.col("n").max().alias("top"))
    query = tops.select(pl.col("window_start").dt.epoch("s"), "top").sink_memory(out, checkpoint=tmp_path / "c")
    for seconds in ([1, 2, 7], [8, 9], [12], [30]):
        stream.add({"v": seconds})
        query.run()
    assert sorted(out.rows().rows()) == [(0, 3), (10, 1)]


def test_listeners_hear_the_life_of_a_query_and_cannot_break_it(tmp_path: Path) -> None:
    heard: list[str] = []

    class Listener(mb.StreamingQueryListener):
        def on_query_started(self, query_id: str, run_id: str, name: str | None) -> None:
            heard.append(f"started {name}")

        def on_query_progress(self, progress: mb.Progress) -> None:
            heard.append(f"progress {progress.batch_id} {progress.num_input_rows}")
            msg = "a listener's own trouble"
            raise RuntimeError(msg)

        def on_query_terminated(self, query_id: str, run_id: str, error: BaseException | None) -> None:
            heard.append(f"terminated {error}")

    stream = mb.MemoryStream(SECONDS)
    stream.add({"v": [1, 2]})
    stream.frame().sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c", name="q").run(listeners=[Listener()])
    assert heard == ["started q", "progress 0 2", "terminated None"]


def test_status_and_progress_are_readable_while_it_runs(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(rows: pl.DataFrame, batch_id: int) -> None:
        entered.set()
        leave.wait(10)

    stream = mb.MemoryStream(SECONDS)
    stream.add({"v": [1]})
    query = stream.frame().sink_foreach_batch(hold, checkpoint=tmp_path / "c").start()
    assert entered.wait(10)
    assert query.is_active
    assert query.status["isTriggerActive"] is True
    assert query.last_progress is None
    assert query.await_termination(timeout=0) is False
    leave.set()
    query.process_all_available()
    query.stop()
    assert query.status["message"] == "Stopped"
    assert query.exception is None
    assert query.await_termination() is True


def test_a_query_without_checkpoint_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stream, out = mb.MemoryStream(SECONDS), mb.MemorySink()
    stream.add({"v": [1]})
    stream.frame().sink_memory(out).run()
    assert out.rows()["v"].to_list() == [1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"every": "1s", "once": True}, {"once": True, "available_now": True}])
def test_start_takes_one_trigger(options: dict[str, Any]) -> None:
    query = mb.MemoryStream(SECONDS).frame().sink_memory(mb.MemorySink())
    with pytest.raises(mb.PlanError, match="takes one of every"):
        query.start(**options)


def _key_of_a_day(frame: mb.StreamFrame) -> mb.StreamFrame:
    return frame.group_by((pl.col("v") % 2).alias("v")).agg(pl.col("v").sum().alias("total"))


def _filtered(frame: mb.StreamFrame) -> mb.StreamFrame:
    return frame.group_by().agg(pl.col("v").filter(pl.col("v") > 1).sum().alias("total"), pl.len())


@pytest.mark.parametrize(
    ("grouped", "expected"),
    [(_key_of_a_day, [(0, 6), (1, 4)]), (_filtered, [(9, 4)])],
)
def test_keys_and_inputs_may_be_expressions(
    grouped: Callable[[mb.StreamFrame], mb.StreamFrame], expected: list[tuple[int, ...]], tmp_path: Path
) -> None:
    stream, out = mb.MemoryStream(SECONDS), mb.MemorySink()
    query = grouped(stream.frame()).sink_memory(out, mode="complete", checkpoint=tmp_path / "c")
    for rows in ([1, 2], [3, 4]):
        stream.add({"v": rows})
        query.run()
    assert sorted(out.batches()[-1][1].rows()) == expected


def test_event_times_may_be_null_negative_and_far_in_the_future(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream({"t": pl.Datetime("us")}), mb.MemorySink()
    query = stream.frame().with_watermark("t", "1h").group_by(mb.window("t", "1d")).len().sink_memory(out, checkpoint=tmp_path / "c")
    stream.add({"t": [None, datetime(1950, 5, 5, 12), datetime(1950, 5, 5, 13)]})
    query.run()
    assert out.rows().is_empty()
    stream.add({"t": [datetime(9999, 1, 1)]})
    query.run()
    assert out.rows().rows() == [(datetime(1950, 5, 5), datetime(1950, 5, 5) + timedelta(days=1), 2)]
