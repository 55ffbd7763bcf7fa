"""What map_state refuses, and in which words."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb

SCHEMA: dict[str, Any] = {"k": pl.String, "v": pl.Int64, "t": pl.Datetime("us"), "c": pl.Int128}
N: dict[str, Any] = {"n": pl.Int64}
OUT: dict[str, Any] = {"out": pl.Int64}
STRUCT: dict[str, Any] = {"state_schema": {"n": pl.Struct({"a": pl.Int64})}}
LIST: dict[str, Any] = {"state_schema": {"n": pl.List(pl.Struct({"a": pl.Int64}))}}
MAP: dict[str, Any] = {"state_schema": {"n": pl.Map(pl.String, pl.Struct({"a": pl.Int64}))}}


def nothing(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
    return None


def stream() -> mb.StreamFrame:
    return mb.MemoryStream(SCHEMA).frame()


def machine(frame: mb.StreamFrame | None = None, *keys: Any, **options: Any) -> mb.StreamFrame:
    given = {"state_schema": N, "output_schema": OUT} | options
    return (frame or stream()).group_by(*(keys or ("k",))).map_state(given.pop("function", nothing), **given)


def into(frame: mb.StreamFrame, mode: str) -> mb.Query:
    return frame.sink_memory(mb.MemorySink(), mode=mode)


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (lambda: machine(None, pl.lit(1).alias("v")), "the key 'v' is computed, and called like another column"),
        (lambda: stream().group_by().map_state(nothing, state_schema=N, output_schema=OUT), "needs a key to keep state for"),
        (lambda: machine(None, "k", mb.session_window("t", "1h")), "a session is no key to keep state by"),
        (lambda: machine(None, "c"), r"key 'c' is Int128, which the state cannot keep; cast it \(to Int64"),
        (lambda: machine(state_schema={}), "keeps nothing; without state use map_batches"),
        (lambda: machine(state_schema={"o": pl.Object}), "state variable 'o' is Object, which the state cannot keep"),
        (lambda: machine(state_schema={"k": pl.Int64}), r"state variables cannot be called \['k'\]"),
        (lambda: machine(state_schema={"__n": pl.Int64}), r"state variables cannot be called \['__n'\]"),
        (lambda: machine(output_schema={"k": pl.String}), r"output_schema names \['k'\], which are keys \['k'\]: these stand before"),
        (lambda: machine(timeout="processing"), r"map_state\(timeout='processing'\) is not known \(did you mean 'processing_time'\?\)"),
        (lambda: machine(timeout="event_time", timers="event_time"), "both timeout= .* and timers= .*; give one of them"),
        (lambda: machine(timeout="event_time"), r'map_state\(timeout="event_time"\) needs event time: write .with_watermark'),
        (lambda: machine(timers="event_time"), r'map_state\(timers="event_time"\) needs event time: write .with_watermark'),
        (lambda: machine(output_mode="complete"), "output_mode='complete'.* is not known; it can be \"append\""),
        (lambda: machine(time_out="event_time"), r"unknown option 'time_out' \(did you mean 'timeout'\?\)"),
        (lambda: stream().group_by("k").map_state(nothing, state_schema=N), "map_state needs output_schema: a mapping of names"),  # type: ignore[call-arg]
        (lambda: machine(ttl={"m": "1h"}), r"ttl=...\) names \['m'\]\S*.*; state_schema has \['n'\]"),
        (lambda: machine(ttl="0s"), "ttl of n='0s' must be longer than zero"),
        (
            lambda: machine(initial_state=pl.DataFrame({"k": ["a"], "m": [1]})),
            r"initial_state has columns {'k': String, 'm': Int64}; it needs",
        ),
        (
            lambda: machine(initial_state=pl.DataFrame({"n": [1]})),
            "initial_state has columns {'n': Int64}; it needs the keys {'k': String}",
        ),
        (lambda: machine(initial_state=pl.DataFrame({"k": ["a", "a"], "n": [1, 2]})), r"initial_state has the key \('a',\) 2 times"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_written(define: Any, message: str) -> None:
    with pytest.raises(mb.PlanError, match=message):
        define()


def by_event_time() -> mb.StreamFrame:
    return machine(stream().with_watermark("t", "1s"), timeout="event_time")


def counted() -> mb.StreamFrame:
    return stream().group_by("k").agg(pl.len().alias("v"))


@pytest.mark.parametrize(
    ("frame", "mode", "message"),
    [
        (lambda: machine(output_mode="update"), "append", r'output_mode="update"\) in a query with mode="append": give both the same'),
        (lambda: machine(output_mode="append"), "update", r'output_mode="append"\) in a query with mode="update": give both the same'),
        (lambda: machine(counted()), "update", 'map_state after an aggregation runs in mode="append" only'),
        (lambda: machine(counted()), "complete", 'map_state after an aggregation runs in mode="append" only'),
        (machine, "complete", "gives the whole result again in each batch"),
        (
            lambda: counted().union(machine(output_schema={"v": pl.UInt32})),
            "complete",
            r'map_state in mode="complete" is refused: its rows are no',
        ),
        (lambda: by_event_time().unique(), "append", r'unique after map_state\(timeout="event_time"\) is refused'),
        (
            lambda: by_event_time().group_by("k").len(),
            "complete",
            r'group_by\(...\).agg after map_state\(timeout="event_time"\) is refused',
        ),
        (lambda: machine(by_event_time()), "append", r'map_state after map_state\(timeout="event_time"\) is refused'),
        (lambda: machine(output_mode="update").group_by("k").len(), "update", "its rows are not final"),
        (lambda: machine().unique(), "update", 'unique after map_state runs in mode="append" only'),
    ],
)
def test_a_plan_that_cannot_be_right_is_refused(frame: Any, mode: str, message: str) -> None:
    with pytest.raises(mb.PlanError, match=message):
        into(frame(), mode)


@pytest.mark.parametrize(
    ("frame", "mode"),
    [
        (machine, "append"),
        (machine, "update"),
        (lambda: machine(output_mode="update"), "update"),
        (lambda: machine().group_by("k").agg(pl.col("out").sum()), "update"),
        (lambda: machine(output_mode="append").group_by("k").agg(pl.col("out").sum()), "complete"),
        (lambda: machine().unique(), "append"),
        (lambda: machine(machine()), "append"),
        (lambda: machine(stream().unique("v")), "append"),
    ],
)
def test_a_plan_that_is_right_is_taken(frame: Any, mode: str) -> None:
    assert isinstance(into(frame(), mode), mb.Query)


# -- while it runs --------------------------------------------------------------------------------------------------------------


def failure(folder: Path, function: Any, **options: Any) -> BaseException:
    """Return what stops a query over two rows of key a at 10 s, in its second batch; the first, of key z, goes well."""
    rows = mb.MemoryStream({"k": pl.String, "v": pl.Int64, "t": pl.Datetime("us")})
    frame = rows.frame().with_watermark("t", "1s") if options.pop("watermark", False) else rows.frame()
    query = into_checkpoint(machine(frame, function=function, **options), folder)
    add = partial(dict[str, Any], v=[1, 2], t=[datetime(1970, 1, 1, 0, 0, 10)] * 2)
    rows.add(add(k=["z", "z"]))
    query.run()
    rows.add(add(k=["a", "a"]))
    with pytest.raises(mb.QueryFailedError) as stopped:
        query.run()
    assert stopped.value.__cause__ is not None
    return stopped.value.__cause__


def into_checkpoint(frame: mb.StreamFrame, folder: Path) -> mb.Query:
    return frame.sink_memory(mb.MemorySink(), checkpoint=folder / "checkpoint", mode="update")


def at_a(act: Any) -> Any:
    """Return a function that does something at key a only."""
    return lambda key, rows, state: act(rows, state) if key == ("a",) else None


def test_an_error_of_the_function_names_key_and_batch_and_is_chained(tmp_path: Path) -> None:
    cause = failure(tmp_path, at_a(lambda rows, state: 1 // 0))
    assert isinstance(cause, mb.DataError)
    assert "failed at key ('a',) in batch 1, with 2 rows: ZeroDivisionError" in str(cause)
    assert isinstance(cause.__cause__, ZeroDivisionError)


def test_an_error_within_a_generator_names_the_key_too(tmp_path: Path) -> None:
    def later(rows: list[Any], state: mb.KeyState) -> Any:
        yield (1,)
        raise RuntimeError(*rows[:0], state.batch_time_us > 0)

    assert "failed at key ('a',) in batch 1, with 2 rows: RuntimeError: True" in str(failure(tmp_path, at_a(later)))


@pytest.mark.parametrize(
    ("act", "options", "message"),
    [
        (lambda r, s: ("x",), {}, r"gave 'out' = 'x' \(str\) for key \('a',\) in batch 1, declared is Int64"),
        (lambda r, s: (1.5,), {}, r"gave 'out' = 1.5 \(float\) for key \('a',\) in batch 1, declared is Int64"),
        (
            lambda r, s: s["n"].update({"b": 1}),
            STRUCT,
            r"gave 'n' = {'b': 1} .*key \('a',\) .*declared is Struct\({'a': Int64}\), .* no field 'b'",
        ),
        (lambda r, s: s["n"].append({"a": 1, "c": 2}), LIST, r"gave 'n' = \[{'a': 1, 'c': 2}\] .*key \('a',\) .*, which has no field 'c'"),
        (lambda r, s: s["n"].update("x", {"d": 2}), MAP, r"gave 'n' = {'x': {'d': 2}} .*key \('a',\) .*, which has no field 'd'"),
        (lambda r, s: (1, 2), {}, r"returned \(1, 2\) for key \('a',\) in batch 1; a row is a tuple with the columns {'out': Int64}"),
        (lambda r, s: [5], {}, r"returned 5 for key \('a',\) in batch 1; a row is a tuple"),
        (lambda r, s: 5, {}, r"failed at key \('a',\) in batch 1, with 2 rows: TypeError: 'int' object is not iterable"),
        (lambda r, s: s["n"].update("x"), {}, r"gave 'n' = 'x' \(str\) for key \('a',\) in batch 1, declared is Int64"),
        (lambda r, s: s["n"].update(None), {}, "cannot be updated to None; clear"),
        (lambda r, s: s["m"], {}, r"there is no state variable 'm'; state_schema has \['n'\]"),
        (lambda r, s: s.watermark_us, {}, "there is no watermark to ask for"),
        (lambda r, s: s.set_timeout("1s"), {}, r'set_timeout needs map_state\(timeout="processing_time"\)'),
        (lambda r, s: s.set_timeout("1s"), {"timers": "processing_time"}, r"this one has timeout=None, timers=processing_time"),
        (lambda r, s: s.set_timeout("0s"), {"timeout": "processing_time"}, "set_timeout='0s' must be longer than zero"),
        (lambda r, s: s.register_timer(5), {}, r'register_timer needs map_state\(timers="event_time"\)'),
        (lambda r, s: s.register_timer("5s"), {"timers": "processing_time"}, "'5s' is no moment: give a datetime, or microseconds"),
        (
            lambda r, s: s.set_timeout_at(9_000_000),
            {"timeout": "event_time", "watermark": True},
            "the watermark has come to 9000000 us: set it later",
        ),
    ],
)
def test_a_call_that_does_not_fit_stops_the_query(tmp_path: Path, act: Any, options: dict[str, Any], message: str) -> None:
    cause = failure(tmp_path, at_a(act), **options)
    assert isinstance(cause, (mb.PlanError, mb.DataError))
    assert re.search(message, str(cause))


def test_a_timer_that_sets_itself_again_at_the_same_time_is_refused(tmp_path: Path) -> None:
    def again(rows: list[Any], state: mb.KeyState) -> None:
        state.register_timer(state.timer_us or 5)

    assert "not after the timer that fires, 5 us: it would fire for ever" in str(failure(tmp_path, at_a(again), timers="processing_time"))


def change(**frames: Any) -> Any:
    """Return a function over frames that returns these, in the second batch."""

    def function(batch: mb.StateBatch) -> Any:
        empty = mb.StateChange(rows=pl.DataFrame(schema={"k": pl.String, **OUT}))
        return empty if batch.batch_id == 0 else frames["whole"] if "whole" in frames else mb.StateChange(**{"rows": empty.rows, **frames})

    return function


def frame(keys: list[str], **columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"k": keys, **columns})


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (change(whole=frame(["a"])), {}, "must return a mb.StateChange, it returned a DataFrame"),
        (change(rows=frame(["a"])), {}, r"returned rows with columns {'k': String}, declared are {'k': String, 'out': Int64}"),
        (change(rows=frame(["b"], out=[1])), {}, r"returned rows for the key \('b',\), which is not in the batch"),
        (change(states=frame(["a"], n=["x"])), {}, r"returned states with columns {'k': String, 'n': String}; declared are the keys"),
        (change(states=frame(["b"], n=[1])), {}, r"returned states for the key \('b',\), which is not in the batch"),
        (change(states=frame(["a", "a"], n=[1, 2])), {}, r"returned states with the key \('a',\) 2 times"),
        (change(removed=frame(["a"], n=[1])), {}, r"returned removed with columns {'k': String, 'n': Int64}, declared are {'k': String}"),
        (change(removed=frame(["b"])), {}, r"returned removed for the key \('b',\)"),
        (change(timers=frame(["a"], at_us=[1])), {}, "returned timers; say by which time they fire"),
        (change(timers=frame(["a"], at=[1])), {"timers": "processing_time"}, r"returned timers with columns {'k': String, 'at': Int64}"),
        (
            change(timers=frame(["a"], at_us=[1])),
            {"timers": "processing_time"},
            r"set a timer of \('a',\) at 1 us, before the batch's time",
        ),
        (
            change(timers=frame(["a"] * 2, at_us=[2**60] * 2)),
            {"timeout": "processing_time"},
            r"returned timers with the key \('a',\) 2 times",
        ),
    ],
)
def test_frames_that_are_not_as_declared_stop_the_query(tmp_path: Path, function: Any, options: dict[str, Any], message: str) -> None:
    cause = failure(tmp_path, function, vectorised=True, **options)
    assert re.search(message, str(cause))


def test_an_error_of_a_function_over_frames_names_the_batch(tmp_path: Path) -> None:
    def fail(batch: mb.StateBatch) -> Any:
        return mb.StateChange(rows=batch.states.select("k", "no such column") if batch.batch_id else batch.states.select("k", out="n"))

    cause = failure(tmp_path, fail, vectorised=True)
    assert "failed in batch 1 with 2 rows: ColumnNotFoundError" in str(cause)
    assert isinstance(cause.__cause__, pl.exceptions.ColumnNotFoundError)


def test_what_a_failed_batch_changed_does_not_count(tmp_path: Path) -> None:
    rows, out, failing = mb.MemoryStream({"k": pl.String, "v": pl.Int64}), mb.MemorySink(), [True]

    def count(key: Any, given: list[Any], state: mb.KeyState) -> Any:
        state["n"].update(state["n"].get(0) + len(given))
        if key == ("b",) and failing[0]:
            raise RuntimeError(key)
        return (state["n"].get(),)

    query = machine(rows.frame(), function=count).sink_memory(out, checkpoint=tmp_path / "checkpoint", mode="update")
    rows.add({"k": ["a", "b"], "v": [1, 1]})
    for _ in range(2):
        with pytest.raises(mb.QueryFailedError, match=r"RuntimeError: \('b',\)"):
            query.run()
    failing[0] = False
    query.run()
    assert out.rows().rows() == [("a", 1), ("b", 1)]
