"""unique and limit over the life of a stream. Expected rows by hand, and by one Polars query over all rows."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch as mb
from microbatch.testing.generate import random_cuts

SCHEMA: dict[str, Any] = {"k": pl.String, "f": pl.Float64, "v": pl.Int64}


def query(frame: mb.StreamFrame, out: Any, folder: Path, mode: str = "append") -> mb.Query:
    return frame.sink_memory(out, checkpoint=folder / "checkpoint", mode=mode)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("subset", [None, "k", ["f", "k"]])
def test_the_first_row_of_each_value_passes_whatever_the_cut(tmp_path: Path, seed: int, subset: Any) -> None:
    rng = random.Random(seed)
    values = {
        "k": [rng.choice(["a", "b", None, ""]) for _ in range(60)],
        "f": [rng.choice([0.0, -0.0, float("nan"), None, 1.5]) for _ in range(60)],
        "v": [rng.randrange(3) for _ in range(60)],
    }
    every = pl.DataFrame(values, schema=SCHEMA)
    stream, out = mb.MemoryStream(SCHEMA), mb.MemorySink()
    work = query(stream.frame().unique(subset), out, tmp_path)
    for batch in random_cuts(rng, every):
        stream.add(batch)
        work.run()
    assert_frame_equal(out.rows(), every.unique(subset, keep="first", maintain_order=True))


def test_a_value_with_event_time_is_forgotten_when_the_watermark_has_passed_it(tmp_path: Path) -> None:
    # watermark: largest time - 10 s; a row at 12 is late once the watermark is 15, so its key need not be kept
    stream, out = mb.MemoryStream({"t": pl.Datetime("us")}), mb.MemorySink()
    work = query(stream.frame().with_watermark("t", "10s").unique(), out, tmp_path)
    times = [[10, 11, 12], [25], [12], [26, 26]]
    states = []
    for seconds in times:
        stream.add({"t": [datetime(2024, 1, 1) + timedelta(seconds=s) for s in seconds]})
        progress = work.run().last_progress
        assert progress is not None
        states.append(progress["stateOperators"][0]["numRowsTotal"])
    assert [t.second for t in out.rows()["t"]] == [10, 11, 12, 25, 26]
    assert states == [3, 1, 1, 2]


def test_within_the_watermark_a_value_counts_until_its_first_row_expires(tmp_path: Path) -> None:
    # delay 10 s: a expires at 20, which the watermark reaches with the row at 30; the repeat at 15 does not prolong it.
    # b expires at 26: the watermark is 20 in the batch of 45, and 35 after it.
    stream, out = mb.MemoryStream({"t": pl.Datetime("us"), "k": pl.String}), mb.MemorySink()
    work = query(stream.frame().with_watermark("t", "10s").unique("k", within_watermark=True), out, tmp_path)
    for rows in ([(10, "a"), (11, "a")], [(15, "a"), (16, "b")], [(30, "c")], [(21, "a"), (22, "b")], [(45, "b")], [(46, "b")]):
        stream.add({"t": [datetime(2024, 1, 1) + timedelta(seconds=s) for s, _ in rows], "k": [k for _, k in rows]})
        work.run()
    assert [(t.second, k) for t, k in out.rows().rows()] == [(10, "a"), (16, "b"), (30, "c"), (21, "a"), (46, "b")]


def test_within_the_watermark_old_values_leave_the_state(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream({"t": pl.Datetime("us"), "k": pl.Int64}), mb.MemorySink()
    work = query(stream.frame().with_watermark("t", "10s").unique("k", within_watermark=True), out, tmp_path)
    for second in range(0, 60, 5):
        stream.add({"t": [datetime(2024, 1, 1) + timedelta(seconds=second)], "k": [second]})
        progress = work.run().last_progress
    assert progress is not None
    assert progress["stateOperators"][0]["numRowsTotal"] <= 5
    assert out.rows().height == 12


def test_columns_beside_the_keys_may_change_between_runs(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream(SCHEMA), mb.MemorySink()
    stream.add({"k": ["a"], "f": [1.0], "v": [1]})
    query(stream.frame().unique("k"), out, tmp_path).run()
    stream.add({"k": ["a", "b"], "f": [1.0, 2.0], "v": [7, 8]})
    wider = mb.MemorySink()
    query(stream.frame().with_columns(more=pl.col("v") * 2).unique("k"), wider, tmp_path).run()
    assert wider.rows().select("k", "more").rows() == [("b", 16)]


def test_a_categorical_key_is_kept_by_its_text(tmp_path: Path) -> None:
    schema: dict[str, Any] = {"k": pl.Categorical}
    stream, out = mb.MemoryStream(schema), mb.MemorySink()
    work = query(stream.frame().unique(), out, tmp_path)
    for values in (["x", "y"], ["y", "z"]):
        stream.add(pl.DataFrame({"k": values}, schema=schema))
        work.run()
    assert out.rows()["k"].to_list() == ["x", "y", "z"]


def test_limit_counts_over_the_life_of_the_stream(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream({"v": pl.Int64}), mb.MemorySink()
    work = query(stream.frame().filter(pl.col("v") % 2 == 1).limit(4), out, tmp_path)
    for rows in ([1, 2, 3, 4, 5], [6, 7, 8, 9], [10, 11]):
        stream.add({"v": rows})
        work.run()
    assert out.rows()["v"].to_list() == [1, 3, 5, 7]


def test_limit_above_a_complete_result_applies_to_each(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream({"v": pl.Int64}), mb.MemorySink()
    top = stream.frame().group_by("v").len().sort("len", descending=True).limit(1)
    work = query(top, out, tmp_path, "complete")
    for rows in ([1, 1, 2], [2, 2]):
        stream.add({"v": rows})
        work.run()
    assert [batch.rows() for _, batch in out.batches()] == [[(1, 2)], [(2, 3)]]


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (lambda f: f.unique("kk"), r"unique: no columns \['kk'\] \(did you mean 'k'\?\)"),
        (lambda f: f.unique(keep="last"), "a stream can only keep the first row of each value"),
        (lambda f: f.limit(-1), "must be 0 or more"),
        (lambda f: f.unique(within_watermark=True).sink_memory(mb.MemorySink()), "needs event time to know how long"),
        (lambda f: f.unique(within_watermark=True).as_batch(), "bounded input has no such result"),
    ],
)
def test_what_makes_no_sense_is_refused(verb: Any, message: str) -> None:
    with pytest.raises(mb.PlanError, match=message):
        verb(mb.MemoryStream(SCHEMA).frame())
