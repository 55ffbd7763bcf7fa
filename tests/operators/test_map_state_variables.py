"""What a function over per-key state may keep, for how long, and what is refused. Expected rows by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch as mb
from microbatch.clock import ManualClock

SECOND = 1_000_000
SCHEMA: dict[str, Any] = {"k": pl.String, "v": pl.Int64}
N: dict[str, Any] = {"n": pl.Int64}


class Job:
    """A map_state over a memory stream, by a clock that is moved."""

    def __init__(
        self, folder: Path, function: Any, *, schema: dict[str, Any] | None = None, watermark: str | None = None, **options: Any
    ) -> None:
        self.stream, self.out, self.clock = mb.MemoryStream(schema or SCHEMA), mb.MemorySink(), ManualClock(100 * SECOND)
        frame = self.stream.frame().with_watermark(watermark, "0s") if watermark else self.stream.frame()
        options = {"state_schema": N, "output_schema": {"out": pl.Int64}} | options
        self.frame = frame.group_by("k").map_state(function, **options)
        self._work = self.frame.sink_memory(self.out, checkpoint=folder / "checkpoint", mode="update", clock=self.clock)
        self._seen = 0
        self.keys: int | None = None

    def run(self, *rows: Any, seconds: int = 0) -> list[Any]:
        """Move the clock, add the rows, run the query anew, and return what it put out."""
        self.clock.advance_us(seconds * SECOND)
        if rows:
            self.stream.add(pl.DataFrame(list(rows), schema=self.stream.frame().collect_schema(), orient="row"))
        progress = self._work.run().last_progress
        if progress is not None:
            self.keys = progress["stateOperators"][0]["numRowsTotal"]
        new: list[Any] = self.out.rows().rows()[self._seen :]
        self._seen += len(new)
        return new


def count(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
    state["n"].update(state["n"].get(0) + len(rows))
    return (state["n"].get(),)


def test_values_lists_and_maps_are_kept_between_runs(tmp_path: Path) -> None:
    def keep(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        for row in rows:
            state["last"].update(row.v)
            state["all"].append(row.v)
            state["times"].update(row.v, state["times"].get(row.v, 0) + 1)
        return (state["last"].get(), state["all"].get(), state["times"].items())

    output = {"last": pl.Int64, "all": pl.List(pl.Int64), "times": pl.Map(pl.Int64, pl.UInt8)}
    job = Job(tmp_path, keep, state_schema=output, output_schema=output)
    assert job.run(("a", 1), ("b", 5), ("a", 1)) == [("a", 1, [1, 1], {1: 2}), ("b", 5, [5], {5: 1})]
    assert job.run(("a", 7)) == [("a", 7, [1, 1, 7], {1: 2, 7: 1})]


def test_variables_can_be_cleared_and_asked_for(tmp_path: Path) -> None:
    def act(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        told = (state.exists, state["list"].exists, len(state["list"]), "x" in state["map"], len(state["map"]), state["value"].get(-1))
        if rows[0].v == 0:
            state["list"].extend([1, 2])
            state["map"].update("x", 1)
            state["map"].update("y", 2)
            state["value"].update(9)
        elif rows[0].v == 1:
            state["list"].update([])
            state["map"].remove("x")
            state["value"].clear()
        else:
            state.remove()
        return told

    schema = {"list": pl.List(pl.Int64), "map": pl.Map(pl.String, pl.Int64), "value": pl.Int64}
    output = {"a": pl.Boolean, "b": pl.Boolean, "c": pl.Int64, "d": pl.Boolean, "e": pl.Int64, "f": pl.Int64}
    job = Job(tmp_path, act, state_schema=schema, output_schema=output)
    assert job.run(("a", 0)) == [("a", False, False, 0, False, 0, -1)]
    assert job.run(("a", 1)) == [("a", True, True, 2, True, 2, 9)]
    assert job.run(("a", 2)) == [("a", True, True, 0, False, 1, -1)]
    assert job.keys == 0
    assert job.run(("a", 0)) == [("a", False, False, 0, False, 0, -1)]


def test_a_list_that_was_got_is_a_copy(tmp_path: Path) -> None:
    def act(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        state["list"].get().append(1)
        state["map"].items()["x"] = 1
        return (len(state["list"]) + len(state["map"]),)

    job = Job(tmp_path, act, state_schema={"list": pl.List(pl.Int64), "map": pl.Map(pl.String, pl.Int64)})
    assert job.run(("a", 0)) == [("a", 0)]


def test_a_variable_expires_its_time_to_live_after_it_was_last_written(tmp_path: Path) -> None:
    #  written at 100, 150; lives 60 s: seen at 159 and 209, gone at 210 (batch time >= write + ttl)
    def act(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        if rows[0].v:
            state["short"].update(rows[0].v)
            state["long"].update(rows[0].v)
        return (state["short"].get(-1), state["long"].get(-1))

    both = {"short": pl.Int64, "long": pl.Int64}
    job = Job(tmp_path, act, state_schema=both, output_schema=both, ttl={"short": "60s"})
    assert job.run(("a", 1)) == [("a", 1, 1)]
    assert job.run(("a", 2), seconds=50) == [("a", 2, 2)]
    assert job.run(("a", 0), seconds=9) == [("a", 2, 2)]
    assert job.run(("a", 0), seconds=50) == [("a", 2, 2)]
    assert job.run(("a", 0), seconds=1) == [("a", -1, 2)]


def test_what_has_expired_leaves_the_state_without_being_asked_for(tmp_path: Path) -> None:
    job = Job(tmp_path, count, ttl="60s")
    job.run(*((f"k{i}", i) for i in range(50)))
    assert job.keys == 50
    job.run(("k7", 0), seconds=30)
    job.run(("z", 1), seconds=30)
    assert job.keys == 2


def test_the_initial_state_is_used_once(tmp_path: Path) -> None:
    begin = pl.DataFrame({"n": [10, 20], "k": ["a", "b"]})
    job = Job(tmp_path, count, initial_state=begin)
    assert job.run(("a", 1), ("c", 1)) == [("a", 11), ("c", 1)]
    assert job.keys == 3
    assert job.run(("a", 1), ("b", 1)) == [("a", 12), ("b", 21)]


def test_another_initial_state_is_another_query(tmp_path: Path) -> None:
    Job(tmp_path, count, initial_state=pl.DataFrame({"k": ["a"], "n": [10]})).run(("a", 1))
    with pytest.raises(mb.CheckpointMismatchError, match=r"map_state-k +initial_state +\w+ +\w+ +never"):
        Job(tmp_path, count, initial_state=pl.DataFrame({"k": ["a"], "n": [11]})).run(("a", 1))


def test_another_state_schema_is_another_query(tmp_path: Path) -> None:
    Job(tmp_path, count).run(("a", 1))
    with pytest.raises(mb.CheckpointMismatchError, match=r"map_state-k +n +Int64 +Int32 +never"):
        Job(tmp_path, count, state_schema={"n": pl.Int32}).run(("a", 1))


def test_keys_are_told_apart_as_group_by_does(tmp_path: Path) -> None:
    schema: dict[str, Any] = {"k": pl.Float64, "v": pl.Int64}
    job = Job(tmp_path, count, schema=schema)
    assert sorted(job.run((0.0, 1), (-0.0, 1), (None, 1), (float("nan"), 1)), key=repr) == [
        (0.0, 2),
        (None, 1),
        (pytest.approx(float("nan"), nan_ok=True), 1),
    ]
    assert sorted(job.run((-0.0, 1), (None, 1), (float("nan"), 1)), key=repr)[:1] in ([(-0.0, 3)], [(0.0, 3)])
    assert job.keys == 3


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["x", "y"]), pl.List(pl.String), pl.Struct({"a": pl.String})])
def test_keys_of_any_type_find_their_state(tmp_path: Path, dtype: Any) -> None:
    nested: dict[Any, list[Any]] = {pl.List: [["x"], ["y"]], pl.Struct: [{"a": "x"}, {"a": "y"}]}
    values = nested.get(type(dtype), ["x", "y"])
    job = Job(tmp_path, count, schema={"k": dtype, "v": pl.Int64})
    assert job.run((values[0], 1), (values[1], 1)) == [(values[0], 1), (values[1], 1)]
    assert job.run((values[1], 1)) == [(values[1], 2)]


def test_late_rows_reach_the_function_unless_its_timers_go_by_event_time(tmp_path: Path) -> None:
    schema: dict[str, Any] = {"k": pl.String, "t": pl.Datetime("us")}
    rows = [[("a", datetime(2024, 1, 2))], [("a", datetime(2024, 1, 1))]]
    by_data = Job(tmp_path / "1", count, schema=schema, watermark="t")
    assert [by_data.run(*batch) for batch in rows] == [[("a", 1)], [("a", 2)]]
    by_time = Job(tmp_path / "2", count, schema=schema, watermark="t", timers="event_time")
    assert [by_time.run(*batch) for batch in rows] == [[("a", 1)], []]


def test_a_timeout_without_state_is_kept_with_the_key(tmp_path: Path) -> None:
    def wait(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        if state.timed_out:
            return (int(state.exists),)
        return state.set_timeout("10s")

    job = Job(tmp_path, wait, timeout="processing_time")
    assert job.run(("a", 1)) == []
    assert job.keys == 1
    assert job.run(seconds=10) == []  # fires when it is before the batch's time, strictly
    assert job.run(seconds=1) == [("a", 0)]
    assert job.keys == 0


def test_nothing_wakes_the_query_before_a_timer_is_due(tmp_path: Path) -> None:
    def wait(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        return None if state.timed_out else state.set_timeout("10s")

    job = Job(tmp_path, wait, timeout="processing_time")
    job.run(("a", 1))
    job.run(seconds=5)
    assert [i for i, _ in job.out.batches()] == [0]
    job.run(seconds=6)
    assert [i for i, _ in job.out.batches()] == [0, 1]


def test_bounded_input_is_one_call_a_key_and_timers_do_not_fire(tmp_path: Path) -> None:
    def act(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        state.register_timer(state.batch_time_us + SECOND)
        return [(row.v + 10 * state["n"].get(0),) for row in rows]

    job = Job(tmp_path, act, timers="processing_time")
    job.stream.add({"k": ["a", "b", "a"], "v": [1, 2, 3]})
    assert job.frame.as_batch().collect().rows() == [("a", 1), ("a", 3), ("b", 2)]
    assert job.frame.filter(pl.col("k") == "b").as_batch().collect().rows() == [("b", 2)]


# -- frames instead of keys ---------------------------------------------------------------------------------------------------


def counted_with_timeout(batch: mb.StateBatch) -> mb.StateChange:
    """What ``count_or_time_out`` does, for all keys at once."""
    assert batch.timers is not None
    new = batch.rows.group_by("k").agg(pl.len().cast(pl.Int64).alias("new"), pl.col("v").max())
    states = batch.states.join(new, on="k", how="left", nulls_equal=True, maintain_order="left").with_columns(
        n=pl.col("n").fill_null(0) + pl.col("new").fill_null(0)
    )
    alive = states.filter(~pl.col("timed_out"))
    return mb.StateChange(
        rows=states.select("k", out=pl.when("timed_out").then(-pl.col("n")).otherwise("n")),
        states=alive.select("k", "n"),
        removed=states.filter("timed_out").select("k"),
        timers=alive.select("k", at_us=batch.batch_time_us + pl.col("v") * SECOND),
    )


def count_or_time_out(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
    n = state["n"].get(0)
    if state.timed_out:
        state.remove()
        return (-n,)
    state["n"].update(n + len(rows))
    state.set_timeout(timedelta(seconds=max(row.v for row in rows)))
    return (n + len(rows),)


def test_both_forms_of_a_function_give_the_same(tmp_path: Path) -> None:
    by_key = Job(tmp_path / "1", count_or_time_out, timeout="processing_time")
    by_frame = Job(tmp_path / "2", counted_with_timeout, timeout="processing_time", vectorised=True)
    batches: list[list[Any]] = [[("a", 3), ("b", 9), (None, 1)], [("a", 1), ("a", 2)], [], [("b", 9)], [("c", 1), (None, 5)], [], [], []]
    for batch in batches:
        assert by_key.run(*batch, seconds=2) == by_frame.run(*batch, seconds=2)
        assert by_key.keys == by_frame.keys
    assert by_key.out.rows().filter(pl.col("out") < 0).height >= 4


def test_both_forms_give_the_same_for_bounded_input(tmp_path: Path) -> None:
    def rows_of(function: Any, *, vectorised: bool) -> list[Any]:
        job = Job(tmp_path / str(vectorised), function, timeout="processing_time", vectorised=vectorised)
        job.stream.add({"k": ["a", "b", "a"], "v": [1, 2, 3]})
        return job.frame.as_batch().collect().rows()

    assert rows_of(count_or_time_out, vectorised=False) == rows_of(counted_with_timeout, vectorised=True) == [("a", 2), ("b", 1)]


def test_explain_says_what_is_kept_by_which_keys_and_when_timers_fire(tmp_path: Path) -> None:
    line = Job(tmp_path, count, timers="processing_time").frame.explain().splitlines()[0]
    assert line == "MAP_STATE by ['k'], count keeps n: Int64, timers by processing_time -> k: String, out: Int64"


def test_variables_that_a_frame_leaves_out_stay_as_they_are(tmp_path: Path) -> None:
    def act(batch: mb.StateBatch) -> mb.StateChange:
        changed = "x" if batch.batch_id == 0 else "y"
        return mb.StateChange(
            rows=batch.states.select("k", "x", "y"), states=batch.states.select("k", pl.lit(batch.batch_id, pl.Int64).alias(changed))
        )

    both = {"x": pl.Int64, "y": pl.Int64}
    job = Job(tmp_path, act, state_schema=both, output_schema=both, vectorised=True)
    assert [job.run(("a", 0)) for _ in range(3)] == [[("a", None, None)], [("a", 0, None)], [("a", 0, 1)]]


def test_frames_hold_the_rows_in_order_and_each_key_once(tmp_path: Path) -> None:
    seen: list[mb.StateBatch] = []

    def look(batch: mb.StateBatch) -> mb.StateChange:
        seen.append(batch)
        keys = batch.states.select("k")
        return mb.StateChange(
            rows=keys.with_columns(out=1).cast({"out": pl.Int64}), timers=keys.with_columns(at_us=batch.batch_time_us + SECOND)
        )

    job = Job(tmp_path, look, timers="processing_time", vectorised=True)
    job.run(("b", 1), ("a", 2), ("b", 3))
    job.run(("c", 4), seconds=9)
    first, second = seen
    assert_frame_equal(first.rows, pl.DataFrame({"k": ["b", "a", "b"], "v": [1, 2, 3]}))
    assert_frame_equal(first.states, pl.DataFrame({"k": ["b", "a"], "n": [None, None], "timed_out": [False, False]}, schema_overrides=N))
    assert first.timers is not None
    assert first.timers.is_empty()
    assert second.states.sort("k").rows() == [("a", None, True), ("b", None, True), ("c", None, False)]
    assert second.timers is not None
    assert second.timers.sort("k").rows() == [("a", 101 * SECOND, True), ("b", 101 * SECOND, True)]
    assert (second.batch_id, second.batch_time_us, second.watermark_us) == (1, 109 * SECOND, None)
