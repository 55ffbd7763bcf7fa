"""Groups and values that are forgotten after a time. Expected rows from a dictionary that takes one row at a time, and by hand."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb
from microbatch.clock import ManualClock
from microbatch.errors import CheckpointMismatchError, PlanError

SECOND = 1_000_000
SCHEMA: dict[str, Any] = {"t": pl.Datetime("us"), "k": pl.String, "v": pl.Int64}
Rows = list[tuple[int | None, str | None, int]]


def at(second: int | None) -> datetime | None:
    return None if second is None else datetime(2024, 1, 1) + timedelta(seconds=second)


def as_frame(rows: Rows) -> pl.DataFrame:
    return pl.DataFrame({"t": [at(s) for s, _, _ in rows], "k": [k for _, k, _ in rows], "v": [v for _, _, v in rows]}, schema=SCHEMA)


def random_rows(rng: random.Random, now: int) -> Rows:
    keys = ["a", "b", "c", None]
    return [
        (None if rng.random() < 0.1 else now + rng.randrange(-20, 5), rng.choice(keys), rng.randrange(9)) for _ in range(rng.randrange(6))
    ]


class Job:
    """Sums per key that are forgotten after 10 s, with a delay of 5 s; each run is a restart."""

    def __init__(self, folder: Path, clock: str, mode: str = "update", on_expiry: str = "forget") -> None:
        self.source, self.out, self.clock = mb.MemoryStream(SCHEMA), mb.MemorySink(), ManualClock(1_000 * SECOND)
        groups = self.source.frame().with_watermark("t", "5s").group_by("k")
        sums = groups.agg(pl.len().alias("n"), pl.col("v").sum(), ttl="10s", ttl_time=clock, on_expiry=on_expiry)
        self.query = sums.sink_memory(self.out, mode=mode, checkpoint=folder / "checkpoint", clock=self.clock)
        self._seen = 0

    def run(self, rows: Rows) -> tuple[list[pl.DataFrame], list[dict[str, Any]]]:
        """Return the batches the rows caused, and the figures of each."""
        self.source.add(as_frame(rows))
        run = self.query.start(available_now=True)
        run.await_termination(timeout=60)
        batches = [frame for _, frame in self.out.batches()][self._seen :]
        self._seen += len(batches)
        return batches, [p["stateOperators"][0] for p in run.recent_progress]


class Model:
    """The groups that are alive, as key -> (n, sum, expiry in seconds or None)."""

    def __init__(self) -> None:
        self.groups: dict[str | None, tuple[int, int, int | None]] = {}

    def forget(self, now: int | None) -> set[tuple[str | None, int, int]]:
        gone = {k for k, (_, _, expiry) in self.groups.items() if expiry is not None and now is not None and expiry <= now}
        return {(k, *self.groups.pop(k)[:2]) for k in gone}

    def add(self, rows: Rows) -> set[tuple[str | None, int, int]]:
        for time, key, value in rows:
            n, total, expiry = self.groups.get(key, (0, 0, None))
            later = [e for e in (expiry, None if time is None else time + 10) if e is not None]
            self.groups[key] = (n + 1, total + value, max(later, default=None))
        return {(k, *self.groups[k][:2]) for _, k, _ in rows}


@pytest.mark.parametrize("seed", range(6))
def test_by_event_time_a_group_begins_anew_when_the_watermark_has_passed_its_last_row_by_the_ttl(tmp_path: Path, seed: int) -> None:
    rng, model, job = random.Random(seed), Model(), Job(tmp_path, "event", on_expiry="emit")
    late_mark: int | None = None
    mark: int | None = None
    now = 0
    for _ in range(8):
        now += rng.choice([0, 1, 5, 12])
        rows = random_rows(rng, now)
        if not rows:
            continue
        batches, figures = job.run(rows)
        on_time = [r for r in rows if r[0] is None or late_mark is None or r[0] + 10 > late_mark]
        assert figures[0]["numRowsDroppedByWatermark"] == len(rows) - len(on_time)
        expired = model.forget(mark)
        updated = model.add(on_time)
        assert set(batches[0].rows()) == {(*r, True) for r in expired} | {(*r, False) for r in updated}
        late_mark, mark = (
            mark,
            max([r[0] - 5 for r in rows if r[0] is not None], default=mark)
            if mark is None
            else max([mark, *(r[0] - 5 for r in rows if r[0] is not None)]),
        )
        if len(batches) == 2:  # a batch without data, because something was due
            assert set(batches[1].rows()) == {(*r, True) for r in model.forget(mark)}
            late_mark = mark
        assert figures[-1]["numRowsTotal"] == len(model.groups)
        assert not model.forget(mark)


@pytest.mark.parametrize("seed", range(4))
def test_by_processing_time_a_group_begins_anew_when_no_batch_had_rows_of_it_for_the_ttl(tmp_path: Path, seed: int) -> None:
    rng, model, job = random.Random(seed), Model(), Job(tmp_path, "processing")
    now = 1_000
    for _ in range(8):
        now += rng.choice([0, 3, 10, 11])
        job.clock.set_us(now * SECOND)
        rows: Rows = [(0, k, v) for _, k, v in random_rows(rng, 0)]
        if rows:
            batches, _ = job.run(rows)
            model.forget(now)
            assert set(batches[0].rows()) == model.add([(now, k, v) for _, k, v in rows])


def test_complete_mode_leaves_expired_groups_out(tmp_path: Path) -> None:
    job = Job(tmp_path, "event", mode="complete")
    job.run([(0, "a", 1), (20, "b", 2)])  # watermark 15
    assert job.out.batches()[-1][1].rows() == [("b", 1, 2)]


def test_a_group_that_is_updated_again_and_again_is_kept_and_its_state_is_one_row(tmp_path: Path) -> None:
    job = Job(tmp_path, "event")
    for second in range(0, 60, 6):
        batches, figures = job.run([(second, "a", 1)])
    assert batches[0].rows() == [("a", 10, 10)]
    assert figures[-1]["numRowsTotal"] == 1


def test_an_idle_stream_makes_one_batch_to_forget_and_then_none(tmp_path: Path) -> None:
    job = Job(tmp_path, "processing", on_expiry="emit")
    job.run([(0, "a", 1), (0, "b", 2)])
    made = []
    for second in (1_005, 1_010, 1_020, 1_030):
        job.clock.set_us(second * SECOND)
        run = job.query.run()
        made.append(run.batches)
    assert made == [0, 1, 0, 0]
    assert sorted(job.out.rows().filter("expired")["k"]) == ["a", "b"]


def test_explain_says_when_groups_are_forgotten() -> None:
    text = frame().group_by("k").agg(pl.len(), ttl="10s").explain()
    assert "forgotten after 10 s of processing time" in text


def test_the_length_may_change_and_the_clock_may_not(tmp_path: Path) -> None:
    source, out = mb.MemoryStream(SCHEMA), mb.MemorySink()

    def query(ttl: str, clock: str) -> mb.Query:
        rows = source.frame().with_watermark("t", "0s").group_by("k").agg(pl.len(), ttl=ttl, ttl_time=clock)
        return rows.sink_memory(out, mode="update", checkpoint=tmp_path / "checkpoint")

    source.add(as_frame([(0, "a", 1)]))
    query("5s", "event").run()
    query("8s", "event").run()
    with pytest.raises(CheckpointMismatchError, match="clock"):
        query("5s", "processing").run()


# -- unique ---------------------------------------------------------------------------------------------------------------------------


def test_unique_by_event_time_forgets_a_value_so_long_after_its_first_row(tmp_path: Path) -> None:
    source, out = mb.MemoryStream(SCHEMA), mb.MemorySink()
    query = source.frame().with_watermark("t", "5s").unique("k", ttl="10s").sink_memory(out, checkpoint=tmp_path / "checkpoint")
    # a expires at 10; the repeat at 8 does not prolong it; the watermark is 10 after the row at 15
    for rows in ([(0, "a", 1), (1, "a", 2)], [(8, "a", 3)], [(14, "b", 4)], [(9, "a", 5), (15, "c", 6)], [(11, "a", 7)]):
        source.add(as_frame(list(rows)))
        query.run()
    assert out.rows()["v"].to_list() == [1, 4, 6, 7]


def test_unique_by_processing_time_forgets_a_value_so_long_after_its_batch(tmp_path: Path) -> None:
    source, out, clock = mb.MemoryStream(SCHEMA), mb.MemorySink(), ManualClock(1_000 * SECOND)
    query = source.frame().unique("k", ttl="10s").sink_memory(out, checkpoint=tmp_path / "checkpoint", clock=clock)
    for second, value in ((1_000, 1), (1_009, 2), (1_010, 3), (1_019, 4), (1_025, 5)):
        clock.set_us(second * SECOND)
        source.add(as_frame([(None, "a", value)]))
        query.run()
    assert out.rows()["v"].to_list() == [1, 3, 5]


# -- refusals -------------------------------------------------------------------------------------------------------------------------


def frame() -> mb.StreamFrame:
    return mb.MemoryStream(SCHEMA).frame()


def test_append_mode_is_refused() -> None:
    rows = frame().group_by("k").agg(pl.len(), ttl="1s")
    with pytest.raises(PlanError, match=r'agg\(ttl=...\) in mode="append" is refused: .*use mode="update", or mb.session_window'):
        rows.sink_memory(mb.MemorySink(), mode="append")


def test_emitting_in_complete_mode_is_refused() -> None:
    rows = frame().group_by("k").agg(pl.len(), ttl="1s", on_expiry="emit")
    with pytest.raises(PlanError, match=r'on_expiry="emit"\) in mode="complete" is refused: .*use mode="update"'):
        rows.sink_memory(mb.MemorySink(), mode="complete")


def test_event_time_without_a_watermark_is_refused() -> None:
    with pytest.raises(PlanError, match=r'ttl_time="event" needs a watermark .*ttl_time="processing"'):
        frame().group_by("k").agg(pl.len(), ttl="1s", ttl_time="event")


def test_a_ttl_of_windows_is_refused() -> None:
    with pytest.raises(PlanError, match=r"the keys \['window_end'\] are closed by the watermark, so nothing is left to forget"):
        frame().with_watermark("t", "1s").group_by(mb.window("t", "5s"), "k").agg(pl.len(), ttl="1s")


def test_a_ttl_of_the_one_group_is_refused() -> None:
    with pytest.raises(PlanError, match="without keys there is one group, so nothing is left to forget"):
        frame().group_by().agg(pl.len(), ttl="1s")


@pytest.mark.parametrize("options", [{"ttl_time": "event"}, {"on_expiry": "emit"}])
def test_how_without_how_long_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="ttl_time and on_expiry say how ttl works; give ttl= too"):
        frame().group_by("k").agg(pl.len(), **options)


def test_other_words_are_refused() -> None:
    with pytest.raises(PlanError, match=r"ttl_time='wall' is no clock"):
        frame().unique("k", ttl="1s", ttl_time="wall")
    with pytest.raises(PlanError, match=r"on_expiry='delete' must be"):
        frame().group_by("k").agg(pl.len(), ttl="1s", on_expiry="delete")


def test_unique_with_two_lengths_is_refused() -> None:
    with pytest.raises(PlanError, match="both say how long a value counts"):
        frame().with_watermark("t", "1s").unique("k", ttl="1s", within_watermark=True)


def test_unique_with_a_ttl_has_no_batch_result() -> None:
    with pytest.raises(PlanError, match=r"unique\(ttl=...\) depend on when rows arrive"):
        frame().unique("k", ttl="1s").as_batch()
