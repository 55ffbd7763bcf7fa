"""Session windows. Expected rows from a model that takes one row at a time, from one Polars query over all rows, and by hand."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch as mb
from microbatch.errors import CheckpointMismatchError, PlanError
from microbatch.testing.generate import random_cuts
from tests.operators.session_model import SECOND, Model, Row, Session

BEGIN_US = int(datetime(2024, 3, 31, tzinfo=UTC).timestamp()) * SECOND
COLUMNS = ["window_start", "window_end", "k", "n", "sum", "first", "last", "values"]
AGGS = [
    pl.len().alias("n"),
    pl.col("v").sum().alias("sum"),
    pl.col("v").first().alias("first"),
    pl.col("v").last().alias("last"),
    pl.col("v").implode().list.sort().alias("values"),
]


def arrivals(rng: random.Random, n: int, keys: list[Any], *, jumps: bool) -> list[Row]:
    """Return rows that run forward in time, some far out of order, some without time, some without a gap."""
    rows, now = list[Row](), 0
    for _ in range(n):
        now += rng.choice([0, 1, 2, 3, 7, 40]) if jumps else 1
        time = now + rng.randrange(-25, 10)
        gap = rng.choice([5, 5, 5, 1, 12, 0, -3, None])
        value = rng.choice([None, *range(-9, 10)])
        rows.append(
            Row(
                time=None if rng.random() < 0.03 else BEGIN_US + time * SECOND,
                key=rng.choice(keys),
                gap=None if gap is None else gap * SECOND,
                value=value,
            )
        )
    return rows


def as_frame(rows: list[Row], time: pl.Datetime, key: pl.DataType) -> pl.DataFrame:
    columns = {
        "t": pl.Series([r.time for r in rows], dtype=pl.Int64),
        "k": pl.Series([r.key for r in rows], dtype=key),
        "gap": pl.Series([r.gap for r in rows], dtype=pl.Int64).cast(pl.Duration("us")),
        "v": pl.Series([r.value for r in rows], dtype=pl.Int64),
    }
    return pl.DataFrame(columns).with_columns(pl.col("t").cast(pl.Datetime("us", time.time_zone)).cast(time))


def told(sessions: list[tuple[Any, Session]]) -> list[tuple[Any, ...]]:
    """Return the model's sessions as rows of the result, sorted."""
    rows: list[tuple[Any, ...]] = []
    for key, s in sessions:
        values = [v for _, v in s.rows]
        known = sorted(v for v in values if v is not None)
        rows.append((s.start, s.end, key, len(values), sum(known), values[0], values[-1], [None] * (len(values) - len(known)) + known))
    return sorted(rows, key=repr)


def got(rows: pl.DataFrame) -> list[tuple[Any, ...]]:
    return sorted(rows.with_columns(pl.col("window_start", "window_end").dt.timestamp("us")).select(COLUMNS).rows(), key=repr)


def sessions_of(frame: mb.StreamFrame, delay: int | None, gap: Any) -> mb.StreamFrame:
    marked = frame if delay is None else frame.with_watermark("t", f"{delay}s")
    return marked.group_by(mb.session_window("t", gap), "k").agg(AGGS)


TIMES = [pl.Datetime("us"), pl.Datetime("ms", "Europe/Berlin"), pl.Datetime("ns", "UTC")]
KEYS: list[tuple[list[Any], pl.DataType]] = [
    (["a", "b", None, ""], pl.String()),
    ([1, 2, None], pl.Int32()),
    ([0.5, float("inf"), None], pl.Float64()),
    (["x", "y"], pl.Enum(["y", "x"])),
]


def check_append(folder: Path, seed: int, n_rows: int) -> None:
    """Run rows in pieces, each with a restart, and compare with the model after each."""
    rng = random.Random(seed)
    delay, dynamic = rng.choice([0, 5, 20]), rng.random() < 0.5
    time, (keys, key_type) = TIMES[seed % 3], KEYS[seed % 4]
    no_data_batches = rng.random() < 0.7
    rows = arrivals(rng, n_rows, keys, jumps=rng.random() < 0.7)
    if not dynamic:
        rows = [Row(time=r.time, key=r.key, gap=6 * SECOND, value=r.value) for r in rows]
    model, late_rows = Model(delay=delay * SECOND), 0
    stream, out = mb.MemoryStream(as_frame([], time, key_type).schema), mb.MemorySink()
    query = sessions_of(stream.frame(), delay, pl.col("gap") if dynamic else "6s").sink_memory(
        out, checkpoint=folder / "checkpoint", no_data_batches=no_data_batches
    )
    while rows:
        cut = rng.randrange(1, n_rows // 3)
        piece, rows = rows[:cut], rows[cut:]
        stream.add(as_frame(piece, time, key_type))
        run = query.start(available_now=True)
        run.await_termination(timeout=60)
        model.run(piece, no_data_batches=no_data_batches)
        assert got(out.rows()) == told(model.over)
        figures = [p["stateOperators"][0] for p in run.recent_progress]
        assert figures[-1]["numRowsTotal"] == model.open_count
        late_rows += sum(f["numRowsDroppedByWatermark"] for f in figures)
    assert late_rows == model.late_rows
    assert model.over


@pytest.mark.parametrize("seed", range(8))
def test_append_gives_what_one_row_at_a_time_gives_late_rows_and_restarts_included(tmp_path: Path, seed: int) -> None:
    check_append(tmp_path, seed, 80)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_append_gives_what_one_row_at_a_time_gives_over_many_batches(tmp_path: Path, seed: int) -> None:
    check_append(tmp_path, seed, 400)


@pytest.mark.parametrize("seed", range(4))
def test_complete_gives_every_session_so_far(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows = arrivals(rng, 60, ["a", "b"], jumps=True)
    model = Model(delay=None)
    stream, out = mb.MemoryStream(as_frame([], TIMES[0], pl.String()).schema), mb.MemorySink()
    query = sessions_of(stream.frame(), None, pl.col("gap")).sink_memory(out, mode="complete", checkpoint=tmp_path / "checkpoint")
    for piece in (rows[:20], rows[20:25], rows[25:]):
        stream.add(as_frame(piece, TIMES[0], pl.String()))
        query.run()
        model.run(piece, no_data_batches=True)
        assert got(out.batches()[-1][1]) == told([(key, s) for key, sessions in model.open.items() for s in sessions])


@pytest.mark.parametrize("seed", range(6))
def test_without_late_rows_the_stream_gives_what_the_batch_gives(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows = arrivals(rng, 80, KEYS[seed % 4][0], jumps=True)
    time, key = TIMES[seed % 3], KEYS[seed % 4][1]
    far = Row(time=BEGIN_US + 10**6 * SECOND, key=None, gap=SECOND, value=0)
    stream, out = mb.MemoryStream(as_frame([], time, key).schema), mb.MemorySink()
    frame = sessions_of(stream.frame(), 100, pl.col("gap"))
    query = frame.sink_memory(out, checkpoint=tmp_path / "checkpoint")
    for piece in random_cuts(rng, as_frame(rows, time, key)):
        stream.add(piece)
        query.run()
    stream.add(as_frame([far], time, key))
    query.run()
    wanted = frame.as_batch().collect().filter(pl.col("window_start").dt.timestamp("us") < BEGIN_US + 10**5 * SECOND)
    order = ["window_start", "window_end", "k"]
    assert_frame_equal(out.rows().sort(order), wanted.sort(order))


def at(second: float) -> datetime:
    return datetime(2024, 1, 1) + timedelta(seconds=second)


class Stream:
    """A stream of (second, key, value), and the sessions of 10 s it gives in append mode with a delay of 20 s."""

    def __init__(self, folder: Path, *aggs: pl.Expr) -> None:
        self.source = mb.MemoryStream({"t": pl.Datetime("us"), "k": pl.String, "v": pl.Int64})
        self.out = mb.MemorySink()
        self.frame = self.source.frame().with_watermark("t", "20s").group_by(mb.session_window("t", "10s"), "k").agg(*aggs)
        self.query = self.frame.sink_memory(self.out, checkpoint=folder / "checkpoint")

    def add(self, *rows: tuple[float, str, int]) -> dict[str, Any]:
        """Add rows, run all batches they cause, and return the figures of the operator."""
        self.source.add({"t": [at(s) for s, _, _ in rows], "k": [k for _, k, _ in rows], "v": [v for _, _, v in rows]})
        progress = self.query.run().last_progress
        assert progress is not None
        figures: dict[str, Any] = progress["stateOperators"][0]
        return figures

    def seconds(self) -> list[tuple[Any, ...]]:
        """Return the sessions so far, their bounds in seconds."""
        bounds = (pl.col("window_start", "window_end") - at(0)).dt.total_seconds()
        rows: list[tuple[Any, ...]] = self.out.rows().with_columns(bounds).sort("window_start", "k").rows()
        return rows


def test_a_row_between_two_open_sessions_makes_them_one_and_they_are_gone(tmp_path: Path) -> None:
    stream = Stream(tmp_path, pl.len())
    assert stream.add((0, "a", 1), (18, "a", 1), (0, "b", 1))["numRowsTotal"] == 3
    assert stream.add((9, "a", 1))["numRowsTotal"] == 2
    assert stream.add((100, "end", 1))["numRowsTotal"] == 1
    assert stream.seconds() == [(0, 28, "a", 3), (0, 10, "b", 1)]


def test_first_and_last_go_by_arrival_also_over_bridged_sessions(tmp_path: Path) -> None:
    # 18 arrives before 0, then 1 before 19: the first row of all is in the later session, the last one in the earlier
    stream = Stream(tmp_path, pl.col("v").first().alias("first"), pl.col("v").last().alias("last"))
    stream.add((18, "a", 1), (0, "a", 2))
    stream.add((19, "a", 3), (1, "a", 4))
    stream.add((9.5, "b", 0))
    stream.add((9, "a", 5))
    stream.add((0, "c", 6), (18, "c", 7))
    stream.add((18, "c", 8), (0, "c", 9), (9, "d", 0))
    stream.add((10, "c", 10))
    stream.add((100, "end", 1))
    assert [row for row in stream.seconds() if row[2] in "ac"] == [(0, 29, "a", 1, 5), (0, 28, "c", 6, 10)]


def test_last_is_the_row_that_came_last_to_either_of_two_sessions_bridged_within_a_batch(tmp_path: Path) -> None:
    stream = Stream(tmp_path, pl.col("v").first().alias("first"), pl.col("v").last().alias("last"))
    stream.add((11, "a", 1))
    stream.add((25, "a", 2), (-2, "a", 3), (26, "a", 4), (-1, "a", 5))
    stream.add((18, "a", 6), (8, "a", 7))
    stream.add((100, "end", 1))
    assert stream.seconds() == [(-2, 36, "a", 1, 7)]


def test_sessions_that_touch_merge_and_those_a_microsecond_apart_do_not(tmp_path: Path) -> None:
    stream = Stream(tmp_path, pl.len())
    stream.add((0, "a", 1), (10, "a", 1), (0, "b", 1), (10.000001, "b", 1))
    stream.add((20, "a", 1))
    stream.add((100, "end", 1))
    assert [row[2:] for row in stream.seconds()] == [("a", 3), ("b", 1), ("b", 1)]


def test_a_row_is_late_by_its_own_interval_though_it_would_touch_an_open_session(tmp_path: Path) -> None:
    stream = Stream(tmp_path, pl.len())
    stream.add((20, "a", 1), (45, "b", 1))  # watermark 25
    assert stream.add((15, "a", 1))["numRowsDroppedByWatermark"] == 1
    stream.add((15.000001, "a", 1))
    stream.add((100, "end", 1))
    assert stream.seconds()[0] == (15, 30, "a", 2)


def test_a_session_without_new_rows_is_put_out_when_the_watermark_reaches_its_end_and_not_before(tmp_path: Path) -> None:
    stream = Stream(tmp_path, pl.len())
    stream.add((0, "a", 1), (5, "a", 1))
    stream.add((34.999999, "b", 1))  # watermark 14.999999, the session ends at 15
    assert stream.seconds() == []
    stream.add((35, "b", 1))
    assert stream.seconds() == [(0, 15, "a", 2)]


def test_a_key_with_several_sessions_keeps_those_that_are_not_over(tmp_path: Path) -> None:
    stream = Stream(tmp_path, pl.col("v").sum())
    stream.add((0, "a", 1), (15, "a", 2), (30, "a", 4))
    assert stream.add((33, "b", 1))["numRowsTotal"] == 3
    assert stream.add((50, "b", 1))["numRowsTotal"] == 3  # watermark 30
    assert stream.seconds() == [(0, 10, "a", 1), (15, 25, "a", 2)]
    stream.add((60, "b", 1))
    assert stream.seconds()[2:] == [(30, 40, "a", 4)]


def test_a_session_a_row_may_prolong_for_ever_is_looked_at_again(tmp_path: Path) -> None:
    stream = Stream(tmp_path, pl.len())
    for second in range(0, 200, 8):
        stream.add((second, "a", 1))
    assert stream.seconds() == []
    stream.add((300, "end", 1))
    assert stream.seconds() == [(0, 202, "a", 25)]


def test_sessions_can_be_counted_by_hour_downstream(tmp_path: Path) -> None:
    source, out = mb.MemoryStream({"t": pl.Datetime("us"), "k": pl.String}), mb.MemorySink()
    sessions = source.frame().with_watermark("t", "0s").group_by(mb.session_window("t", "10s"), "k").agg(pl.len().alias("n"))
    hours = sessions.select("n", closed=mb.window_time()).group_by(mb.window("closed", "1h")).agg(pl.len(), pl.col("n").sum())
    query = hours.sink_memory(out, checkpoint=tmp_path / "checkpoint")
    for seconds in ([0, 5], [3_595], [7_000], [20_000], [30_000]):
        source.add({"t": [at(s) for s in seconds], "k": ["a"] * len(seconds)})
        query.run()
    # the second session ends 5 s after the hour, so it is of the hour from 3600
    got = [((start - at(0)).total_seconds(), n, rows) for start, _, n, rows in out.rows().sort("window_start").rows()]
    assert got == [(0, 1, 2), (3_600, 2, 2), (18_000, 1, 1)]


def test_explain_names_sessions_and_when_they_are_over(tmp_path: Path) -> None:
    text = Stream(tmp_path, pl.len()).frame.explain()
    assert "sessions merged, closed when the watermark reaches window_end" in text
    assert 'SESSION window_start, window_end over col("t"): open for 10 s after a row' in text


# -- refusals -------------------------------------------------------------------------------------------------------------------------


def frame() -> mb.StreamFrame:
    return mb.MemoryStream({"t": pl.Datetime("us"), "k": pl.String, "n": pl.Int64, "g": pl.Duration("us")}).frame()


def into_memory(rows: mb.StreamFrame, mode: str) -> mb.Query:
    return rows.sink_memory(mb.MemorySink(), mode=mode)


def test_update_mode_is_refused() -> None:
    rows = frame().with_watermark("t", "1s").group_by(mb.session_window("t", "5s"), "k").agg(pl.len())
    with pytest.raises(PlanError, match=r'session_window in mode="update" is refused: .*use mode="append", .* or "complete"'):
        into_memory(rows, "update")


def test_append_without_a_watermark_is_refused() -> None:
    rows = frame().group_by(mb.session_window("t", "5s"), "k").agg(pl.len())
    with pytest.raises(PlanError, match=r'session_window in mode="append" needs event time .*there is none: write .with_watermark'):
        into_memory(rows, "append")


def test_append_with_the_watermark_on_another_column_is_refused() -> None:
    rows = frame().with_watermark("t", "1s").with_columns(u=pl.col("t") + pl.duration(seconds=1))
    with pytest.raises(PlanError, match=r"the watermark is on \['t'\]"):
        into_memory(rows.group_by(mb.session_window("u", "5s"), "k", "t").agg(pl.len()), "append")


def test_sessions_without_another_key_are_refused() -> None:
    with pytest.raises(PlanError, match=r"needs a key beside session_window: .*pl\.lit\(0\)"):
        frame().group_by(mb.session_window("t", "5s"))


def test_a_gap_of_zero_is_refused() -> None:
    with pytest.raises(PlanError, match=r"session gap='0s' must be longer than zero"):
        mb.session_window("t", "0s")


def test_a_gap_that_is_no_duration_is_refused() -> None:
    with pytest.raises(PlanError, match=r'gap col\("n"\) is Int64, not a Duration; make one of it: pl.duration'):
        frame().group_by(mb.session_window("t", pl.col("n")), "k").agg(pl.len())


def test_a_gap_over_other_rows_is_refused() -> None:
    with pytest.raises(PlanError, match=r"session_window: .* is not row-wise"):
        mb.session_window("t", pl.col("g").max())


def test_sessions_over_a_number_are_refused() -> None:
    with pytest.raises(PlanError, match=r'session_window over col\("n"\) needs a Datetime column, this one is Int64; cast it'):
        frame().group_by(mb.session_window("n", "5s"), "k").agg(pl.len())


def test_a_gap_finer_than_the_time_column_is_refused() -> None:
    rows = frame().cast({"t": pl.Datetime("ms")})
    with pytest.raises(PlanError, match=r"a gap of 1500 us does not fit Datetime"):
        rows.group_by(mb.session_window("t", "1500us"), "k").agg(pl.len())


@pytest.mark.parametrize("verb", ["select", "with_columns"])
def test_a_session_as_a_column_is_refused(verb: str) -> None:
    with pytest.raises(PlanError, match=rf"{verb}: .*session_window belongs into group_by"):
        getattr(frame(), verb)(mb.session_window("t", "5s"))


def test_a_session_and_a_window_are_refused() -> None:
    with pytest.raises(PlanError, match="group_by names a key twice"):
        frame().group_by(mb.session_window("t", "5s"), mb.window("t", "5s"), "k")


def test_a_changed_aggregate_is_a_changed_query_and_a_changed_gap_is_not(tmp_path: Path) -> None:
    source = mb.MemoryStream({"t": pl.Datetime("us"), "k": pl.String, "v": pl.Int64})
    out = mb.MemorySink()

    def query(gap: str, agg: pl.Expr) -> mb.Query:
        rows = source.frame().with_watermark("t", "0s").group_by(mb.session_window("t", gap), "k").agg(agg)
        return rows.sink_memory(out, checkpoint=tmp_path / "checkpoint")

    source.add({"t": [at(0)], "k": ["a"], "v": [1]})
    query("5s", pl.col("v").sum()).run()
    source.add({"t": [at(1)], "k": ["a"], "v": [1]})
    query("8s", pl.col("v").sum()).run()
    with pytest.raises(CheckpointMismatchError, match="session-k"):
        query("5s", pl.col("v").max()).run()
