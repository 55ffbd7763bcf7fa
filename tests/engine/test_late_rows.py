"""Rows that operators refuse as late are kept in a table, once, with who refused them and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch as mb

T = pl.Datetime("us")
SCHEMA: dict[str, Any] = {"at": T, "k": pl.String, "v": pl.Int64}


def at(second: int) -> datetime:
    return datetime(2024, 1, 1) + timedelta(seconds=second)


def rows(*of: tuple[int | None, str, int]) -> pl.DataFrame:
    return pl.DataFrame([(None if s is None else at(s), k, v) for s, k, v in of], schema=SCHEMA, orient="row")


def feed(stream: mb.MemoryStream, query: mb.Query, *batches: pl.DataFrame) -> None:
    """Each batch in a run of its own, so that a restart lies between any two."""
    for batch in batches:
        stream.add(batch)
        query.run()


def test_late_rows_of_an_aggregation_are_kept_with_operator_mark_and_row(tmp_path: Path) -> None:
    #  [0 ---- 10)[10 ---- 20)[20 ---- 30)     watermark = largest time, so 25 closes the first two
    stream, out, late = mb.MemoryStream(SCHEMA), mb.MemorySink(), mb.MemorySink()
    counts = stream.frame().with_watermark("at", "0s").group_by(mb.window("at", "10s"), "k").agg(pl.col("v").sum())
    query = counts.sink_memory(out, checkpoint=tmp_path / "c", late_rows=late)
    feed(stream, query, rows((25, "a", 1)), rows((12, "b", 2), (22, "a", 3), (3, "a", 4), (None, "a", 5)), rows((31, "a", 0)))
    assert late.rows().columns == ["operator", "batch_id", "reason", "event_time", "mark", "row"]
    assert late.rows().drop("row").rows() == [
        ("aggregate-window_start-window_end-k", 2, "window_end <= mark", at(20), at(25)),
        ("aggregate-window_start-window_end-k", 2, "window_end <= mark", at(10), at(25)),
    ]
    wanted = rows((12, "b", 2), (3, "a", 4)).with_columns(
        pl.Series("window_start", [at(10), at(0)], T), pl.Series("window_end", [at(20), at(10)], T)
    )
    assert_frame_equal(late.rows().unnest("row").select(wanted.columns), wanted)
    assert out.rows().rows() == [(at(20), at(30), "a", 4)]


@pytest.mark.parametrize("keep", [True, False])
def test_keeping_late_rows_changes_neither_result_nor_count(tmp_path: Path, *, keep: bool) -> None:
    stream, out = mb.MemoryStream(SCHEMA), mb.MemorySink()
    counts = stream.frame().with_watermark("at", "0s").group_by(mb.window("at", "20s", "10s"), "k").agg(pl.len().cast(pl.Int64))
    query = counts.sink_memory(out, checkpoint=tmp_path / "c", **({"late_rows": mb.MemorySink()} if keep else {}))
    late = 0
    for batch in (rows((25, "a", 1)), rows((3, "a", 2), (15, "a", 2)), rows((70, "a", 3))):
        stream.add(batch)
        handle = query.start(available_now=True)
        handle.await_termination()
        late += sum(p["stateOperators"][0]["numRowsDroppedByWatermark"] for p in handle.recent_progress)
    # Of row 3 both windows, [-10, 10) and [0, 20), are closed; of row 15 only [0, 20).
    assert late == 3
    assert out.rows().sort("window_start").rows() == [(at(10), at(30), "a", 2), (at(20), at(40), "a", 1)]


def test_operators_with_other_columns_share_one_table(tmp_path: Path) -> None:
    stream, late = mb.MemoryStream(SCHEMA), mb.MemorySink()
    first = stream.frame().with_watermark("at", "0s").unique(["k", "at"], name="first")
    counts = first.group_by(mb.window("at", "10s")).agg(pl.len().cast(pl.Int64), name="counts")
    query = counts.sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c", late_rows=late)
    feed(stream, query, rows((25, "a", 1)), rows((12, "b", 2)), rows((25, "b", 3)))
    got = late.rows().unnest("row")
    assert got.select("operator", "at", "k", "v", "window_end").rows() == [
        ("first", at(12), "b", 2, None),
        ("first", at(25), "b", 3, None),
    ]


def test_late_rows_lie_in_a_delta_table_by_default(tmp_path: Path) -> None:
    stream = mb.MemoryStream({**SCHEMA, "n": pl.UInt8})
    first = stream.frame().with_watermark("at", "0s").unique("k")
    query = first.sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c", late_rows=tmp_path / "late")
    n = pl.lit(7, pl.UInt8).alias("n")
    feed(stream, query, rows((25, "a", 1)).with_columns(n), rows((12, "b", 2)).with_columns(n))
    got = pl.read_delta(str(tmp_path / "late"))
    assert got["row"].to_list() == [{"at": at(12), "k": "b", "v": 2, "n": 7}]
    assert got["mark"].to_list() == [at(25)]


def test_a_query_without_late_rows_leaves_an_empty_table(tmp_path: Path) -> None:
    stream = mb.MemoryStream(SCHEMA)
    first = stream.frame().with_watermark("at", "0s").unique("k")
    feed(stream, first.sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c", late_rows=str(tmp_path / "late")), rows((25, "a", 1)))
    assert pl.read_delta(str(tmp_path / "late")).height == 0


def test_a_session_judges_each_row_by_its_own_interval(tmp_path: Path) -> None:
    stream, late = mb.MemoryStream(SCHEMA), mb.MemorySink()
    visits = stream.frame().with_watermark("at", "0s").group_by(mb.session_window("at", "10s"), "k").agg(pl.len())
    query = visits.sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c", late_rows=late)
    feed(stream, query, rows((30, "a", 1)), rows((20, "a", 2), (21, "a", 3)))
    assert late.rows().unnest("row").select("at", "v", "event_time", "mark").rows() == [(at(20), 2, at(30), at(30))]


def test_both_sides_of_a_join_refuse_rows(tmp_path: Path) -> None:
    lefts, rights, late = mb.MemoryStream(SCHEMA), mb.MemoryStream({"u": T, "k": pl.String}), mb.MemorySink()
    joined = lefts.frame().with_watermark("at", "0s").join(rights.frame().with_watermark("u", "0s"), on="k", within="5s", name="pairs")
    query = joined.sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c", late_rows=late)
    for second in (30, 31, 10):
        right = pl.DataFrame({"u": [at(second)], "k": ["a"]}, schema={"u": T, "k": pl.String})
        mb.MemoryStream.add_together({lefts: rows((second, "a", second)), rights: right})
        query.run()
    got = late.rows().unnest("row").select("operator", "reason", "at", "u", "k", "v", "mark")
    assert got.rows() == [
        ("pairs", "at <= mark", at(10), None, "a", 10, at(31)),
        ("pairs", "u <= mark", None, at(10), "a", None, at(31)),
    ]


def test_a_group_that_was_forgotten_refuses_rows_of_its_time(tmp_path: Path) -> None:
    stream, late = mb.MemoryStream(SCHEMA), mb.MemorySink()
    sums = stream.frame().with_watermark("at", "0s").group_by("k").agg(pl.col("v").sum(), ttl="10s", ttl_time="event")
    query = sums.sink_memory(mb.MemorySink(), mode="update", checkpoint=tmp_path / "c", late_rows=late)
    feed(stream, query, rows((30, "a", 1)), rows((30, "a", 1)), rows((20, "a", 2), (21, "a", 3)))
    assert late.rows().unnest("row").select("at", "v", "mark").rows() == [(at(20), 2, at(20))]


def deduplicated() -> mb.StreamFrame:
    return mb.MemoryStream(SCHEMA).frame().with_watermark("at", "0s").unique("k")


def refusal(frame: mb.StreamFrame, **options: Any) -> str:
    with pytest.raises(mb.PlanError) as refused:
        frame.sink_memory(mb.MemorySink(), **options)
    return str(refused.value)


def test_a_sink_that_may_get_a_row_twice_is_refused() -> None:
    from microbatch.sinks.foreach_batch import ForeachBatchSink

    told = refusal(deduplicated(), late_rows=ForeachBatchSink(lambda rows, batch_id: None))
    assert "may get a row twice after a crash" in told
    assert "folder of a Delta table" in told


def test_something_that_is_no_sink_is_refused() -> None:
    assert "late_rows=7 must be the folder of a Delta table, or a sink such as mb.MemorySink()" in refusal(deduplicated(), late_rows=7)


def test_the_sink_of_the_result_is_refused_for_late_rows(tmp_path: Path) -> None:
    sink = mb.MemorySink()
    with pytest.raises(mb.PlanError, match="late_rows=MemorySink is also the sink of the result"):
        deduplicated().sink_memory(sink, late_rows=sink)
    with pytest.raises(mb.PlanError, match=r"late_rows=DeltaSink\[.*\] is also the sink of the result"):
        deduplicated().sink_delta(tmp_path / "t", checkpoint=tmp_path / "c", late_rows=tmp_path / "t")


def test_a_query_that_refuses_no_row_is_told_so() -> None:
    frame = mb.MemoryStream(SCHEMA).frame().with_watermark("at", "0s")
    assert 'in mode="append" no operator of this query drops late rows' in refusal(frame, late_rows=mb.MemorySink())
    counts = frame.group_by("k").agg(pl.len())
    assert 'in mode="complete" no operator' in refusal(counts, mode="complete", late_rows=mb.MemorySink())


def test_one_column_in_two_types_is_refused() -> None:
    retyped = deduplicated().with_columns(pl.col("v").cast(pl.String)).unique(["k", "v"])
    told = refusal(retyped, late_rows=mb.MemorySink())
    assert "column 'v' cannot be both Int64 and String; rename or cast it" in told


def test_a_lasting_table_needs_a_checkpoint(tmp_path: Path) -> None:
    assert "needs checkpoint=<folder>" in refusal(deduplicated(), late_rows=tmp_path / "late")


def test_explain_names_the_table_of_late_rows(tmp_path: Path) -> None:
    query = deduplicated().sink_memory(mb.MemorySink(), late_rows=tmp_path / "late", checkpoint=tmp_path / "c")
    assert f"late rows to DeltaSink[{tmp_path / 'late'}]" in query.explain()
