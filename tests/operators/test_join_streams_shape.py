"""Joins of two streams: columns and order as Polars has them, what is refused, what is read once."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch as mb
from microbatch.checkpoint.state import hashing

SCHEMA: dict[str, Any] = {"k": pl.Int64, "t": pl.Datetime("us"), "v": pl.Int64}
OTHER: dict[str, Any] = {"k": pl.Int64, "j": pl.Int32, "t": pl.Datetime("us"), "v": pl.String}
BEGIN = datetime(2024, 1, 1)
FAR = datetime(2100, 1, 1)
HOWS = ("inner", "left", "right", "full", "semi", "anti")
KEYS: dict[str, dict[str, Any]] = {
    "one name": {"on": "k"},
    "two names": {"left_on": "k", "right_on": "j"},
    "expressions": {"left_on": pl.col("k") + 1, "right_on": pl.col("j") + 1},
    "time": {"on": ["k", "t"]},
    "crossed": {"left_on": ["v", "k"], "right_on": ["k", "j"]},
}


def at(*seconds: int) -> list[datetime]:
    return [BEGIN + timedelta(seconds=s) for s in seconds]


def sides(delay: str = "0s") -> tuple[mb.MemoryStream, mb.MemoryStream, mb.StreamFrame, mb.StreamFrame]:
    left, right = mb.MemoryStream(SCHEMA), mb.MemoryStream(OTHER)
    return left, right, left.frame().with_watermark("t", delay), right.frame().with_watermark("t", delay)


@pytest.mark.parametrize("coalesce", [None, True, False])
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("how", HOWS)
def test_columns_and_rows_are_those_of_a_polars_join(how: str, keys: str, coalesce: bool | None, tmp_path: Path) -> None:
    left, right, lefts, rights = sides("1s")  # so that the watermark does not reach the rows that push it
    rows = pl.DataFrame({"k": [1, 2, None, 3], "t": at(1, 2, 3, 4), "v": [1, 1, 2, None]}, schema=SCHEMA)
    others = pl.DataFrame({"k": [1, 4, None, 3], "j": [2, 2, 1, 3], "t": at(1, 2, 3, 4), "v": list("abcd")}, schema=OTHER)
    options = KEYS[keys] | {"how": how, "coalesce": coalesce}
    bound: dict[str, Any] = {} if keys == "time" else {"within": "1d"}
    # A bound so wide that it leaves no pair out, unless event time is a key.
    joined = lefts.join(rights, **options, **bound)
    plain = {k: v for k, v in options.items() if v is not None}
    if keys == "expressions" and coalesce:
        plain["coalesce"] = False  # as Polars does then, with a warning
    expected = rows.lazy().join(others.lazy(), **plain).collect()
    left.add(rows)
    right.add(others)
    assert joined.collect_schema() == expected.schema
    assert_frame_equal(joined.as_batch().collect(), expected, check_row_order=False)
    out = mb.MemorySink()
    query = joined.sink_memory(out, checkpoint=tmp_path / "checkpoint")
    query.run()
    mb.MemoryStream.add_together({left: {"k": [None], "t": [FAR], "v": [None]}, right: {"k": [None], "j": [None], "t": [FAR], "v": [None]}})
    query.run()
    assert_frame_equal(out.rows(), expected, check_row_order=False)


def test_keys_of_two_dtypes_meet_and_categories_meet_text() -> None:
    left = mb.MemoryStream({"c": pl.Enum(["a", "b"]), "n": pl.Int32})
    right = mb.MemoryStream({"c": pl.String, "n": pl.Int64, "w": pl.Int64})
    out = mb.MemorySink()
    query = left.frame().join(right.frame(), on=["c", "n"]).sink_memory(out).start()
    left.add({"c": ["a", "b"], "n": [1, 2]})
    query.process_all_available()
    right.add({"c": ["b", "a", "z"], "n": [2, 2, 1], "w": [5, 6, 7]})
    query.process_all_available()
    query.stop()
    assert out.rows().rows() == [("b", 2, 5)]
    assert out.rows().schema == {"c": pl.Enum(["a", "b"]), "n": pl.Int32, "w": pl.Int64}


def test_batches_that_polars_filters_in_pieces_are_joined_whole(tmp_path: Path) -> None:
    n = 50_000  # on several threads
    left, right, lefts, rights = sides()
    out = mb.MemorySink()
    query = lefts.join(rights, on="k", how="left", within="1h").sink_memory(out, checkpoint=tmp_path / "checkpoint")
    rows = pl.DataFrame({"k": range(n), "t": at(1) * n, "v": [0] * n}, schema=SCHEMA)
    left.add(rows)
    right.add(rows.select("k", j=pl.col("v").cast(pl.Int32), t="t", v=pl.lit("x")))
    query.run()
    assert out.rows().height == n
    assert out.rows()["v_right"].null_count() == 0


def test_keys_with_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "hash_rows", lambda keys: pl.Series([2**64 - 1] * keys.height, dtype=pl.UInt64))
    left, right, lefts, rights = sides()
    out = mb.MemorySink()
    query = lefts.join(rights, on="k", how="left", within="1h").sink_memory(out, checkpoint=tmp_path / "checkpoint")
    left.add({"k": [1, 2, 3, 1], "t": at(1, 1, 1, 2), "v": [1, 2, 3, 4]})
    query.run()
    right.add({"k": [1, 3, 9], "j": [0, 0, 0], "t": at(1, 1, 1), "v": ["x", "y", "z"]})
    query.run()
    assert sorted(out.rows().select("k", "v", "v_right").rows()) == [(1, 1, "x"), (1, 4, "x"), (3, 3, "y")]


def test_a_stream_joined_with_itself_is_read_once_and_pairs_come_once(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream(SCHEMA), mb.MemorySink()
    rows = stream.frame().with_watermark("t", "0s").unique()
    query = rows.join(rows, on="k", within="1h").sink_memory(out, checkpoint=tmp_path / "checkpoint")
    for k, second in (([1, 1], 1), ([1, 2], 2)):
        stream.add({"k": k, "t": at(second, second), "v": [second, second]})
        progress = query.run().last_progress
    # unique() below both sides ran once: had it run twice, the second side would have found all keys seen.
    assert sorted(out.rows().select("v", "v_right").rows()) == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 2)]
    assert progress is not None
    assert [o["operatorName"].split()[0] for o in progress["stateOperators"]] == ["join", "deduplicate"]


def test_late_rows_of_both_sides_are_counted(tmp_path: Path) -> None:
    left, right, lefts, rights = sides()
    query = lefts.join(rights, on="k", within="1s").sink_memory(mb.MemorySink(), checkpoint=tmp_path / "checkpoint")
    for second in (100, 5):
        left.add({"k": [1, 2], "t": at(second, second), "v": [1, 2]})
        right.add({"k": [1], "j": [1], "t": at(second), "v": ["x"]})
        progress = query.run().last_progress
    assert progress is not None
    assert progress["stateOperators"][0]["numRowsDroppedByWatermark"] == 3


def test_a_windowed_count_above_a_join_waits_for_its_rows(tmp_path: Path) -> None:
    left, right, lefts, rights = sides()
    counted = lefts.join(rights, on="k", within="10s").drop("t_right").group_by(mb.window("t", "10s")).agg(pl.len().alias("pairs"))
    out = mb.MemorySink()
    query = counted.sink_memory(out, checkpoint=tmp_path / "checkpoint")
    left.add({"k": [1], "t": at(5), "v": [1]})
    right.add({"k": [2], "j": [1], "t": at(14), "v": ["x"]})
    query.run()
    # The watermark is 5: the pair (5, 15) comes now, and its window [0, 10) may not have been closed.
    left.add({"k": [2], "t": at(40), "v": [1]})
    right.add({"k": [1], "j": [1], "t": at(15), "v": ["x"]})
    query.run()
    left.add({"k": [2], "t": at(90), "v": [1]})
    right.add({"k": [3], "j": [1], "t": at(90), "v": ["x"]})
    query.run()
    assert out.rows().select("window_start", "pairs").rows() == [(BEGIN, 1)]


def test_update_mode_gives_the_rows_of_append_mode(tmp_path: Path) -> None:
    found = []
    for mode in ("append", "update"):
        left, right, lefts, rights = sides()
        out = mb.MemorySink()
        query = lefts.join(rights, on="k", within="1h").sink_memory(out, mode=mode, checkpoint=tmp_path / mode)
        left.add({"k": [1, 2], "t": at(1, 2), "v": [1, 2]})
        query.run()
        right.add({"k": [1], "j": [1], "t": at(3), "v": ["x"]})
        query.run()
        found.append([rows for _, rows in out.batches()])
    assert [rows.rows() for rows in found[0]] == [rows.rows() for rows in found[1]]


def refused(**options: Any) -> str:
    _, _, lefts, rights = sides()
    with pytest.raises(mb.PlanError) as error:
        lefts.join(rights, **({"on": "k"} | options))
    return str(error.value)


@pytest.mark.parametrize("how", ["left", "right", "full", "semi", "anti"])
def test_a_join_whose_rows_might_wait_for_ever_is_refused(how: str) -> None:
    assert f'join(how="{how}") of two streams: a row of the' in refused(how=how)
    assert 'within="1h"' in refused(how=how)


def test_a_bound_of_the_other_side_alone_is_refused() -> None:
    assert "could wait for its match for ever" in refused(how="left", where=pl.col("t") < pl.col("t_right"))


def test_an_outer_join_without_watermark_asks_for_one() -> None:
    left, right = mb.MemoryStream(SCHEMA).frame(), mb.MemoryStream(OTHER).frame()
    with pytest.raises(mb.PlanError, match=r"give the left and the right side .with_watermark\(column, delay\)"):
        left.join(right, on="k", how="left")
    with pytest.raises(mb.PlanError, match="the right side has none: write"):
        left.with_watermark("t", "1s").join(right, on="k", within="1h")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"how": "cross"}, "how must be one of inner, left, right, full, semi, anti"),
        ({"on": None}, "needs equal keys, as many on both sides: 0 on the left, 0 on the right"),
        ({"on": None, "left_on": ["k", "v"], "right_on": "k"}, "2 on the left, 1 on the right"),
        ({"left_on": "k"}, "on= and left_on= or right_on="),
        ({"on": "q"}, "the left side has no column 'q'"),
        ({"on": "v"}, "does not fit its input"),
        ({"where": pl.col("nothing") > 1}, "no columns ['nothing']"),
        ({"where": pl.col("v").sum() > 1}, "not row-wise"),
        ({"within": "-1s"}, "less than zero"),
        ({"suffix": ""}, "give another suffix"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    assert words in refused(**options)


@pytest.mark.parametrize(("how", "mode"), [("left", "update"), ("anti", "update"), ("inner", "complete")])
def test_a_mode_in_which_rows_are_not_final_is_refused(how: str, mode: str) -> None:
    _, _, lefts, rights = sides()
    joined = lefts.join(rights, on="k", how=how, within="1h")
    with pytest.raises(mb.PlanError, match='mode="append"'):
        joined.sink_memory(mb.MemorySink(), mode=mode)


def test_a_bounded_side_takes_no_condition() -> None:
    _, _, lefts, _ = sides()
    with pytest.raises(mb.PlanError, match="takes no where, within or name"):
        lefts.join(pl.DataFrame({"k": [1]}), on="k", within="1h")


def test_another_condition_is_another_state(tmp_path: Path) -> None:
    left, _, lefts, rights = sides()
    checkpoint = tmp_path / "checkpoint"
    left.add({"k": [1], "t": at(1), "v": [1]})
    lefts.join(rights, on="k", within="1h").sink_memory(mb.MemorySink(), checkpoint=checkpoint).run()
    with pytest.raises(mb.CheckpointMismatchError, match="bounds_us"):
        lefts.join(rights, on="k", within="2h").sink_memory(mb.MemorySink(), checkpoint=checkpoint).run()


def test_the_state_of_a_side_can_be_read(tmp_path: Path) -> None:
    left, _, lefts, rights = sides()
    checkpoint = tmp_path / "checkpoint"
    query = lefts.join(rights, on="k", within="1h", name="pairs").sink_memory(mb.MemorySink(), checkpoint=checkpoint)
    left.add({"k": [1, 1], "t": at(1, 1), "v": [1, 1]})
    query.run()
    assert mb.read_state(checkpoint, "pairs/left").collect().rows() == [(1, at(1)[0], 1), (1, at(1)[0], 1)]
