"""Queries that cannot run as a stream are refused when they are described, with the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

import microbatch as mb

SCHEMA: dict[str, Any] = {"t": pl.Datetime("us"), "k": pl.String, "v": pl.Int64}
VARIABLES: Any = {"state_schema": {"n": pl.Int64}, "output_schema": {"n": pl.Int64}}
STATIC = pl.DataFrame({"k": ["a"], "w": [1]})


def stream() -> mb.StreamFrame:
    return mb.MemoryStream(SCHEMA).frame()


def marked() -> mb.StreamFrame:
    return stream().with_watermark("t", "1m")


def two_windows() -> mb.StreamFrame:
    minutes = marked().with_columns(mb.window("t", "1m")).rename({"window_start": "minute", "window_end": "minute_end"})
    return minutes.with_columns(mb.window("t", "1h"))


def sink(frame: mb.StreamFrame, mode: str) -> mb.Query:
    return frame.sink_memory(mb.MemorySink(), mode=mode)


@pytest.mark.parametrize(
    ("frame", "mode", "message"),
    [
        (lambda: stream().group_by("k").len(), "append", r"needs event time with a watermark among its keys.*with_watermark"),
        (lambda: marked().group_by("k").len(), "append", r"group by mb.window\('t', ...\) too"),
        (lambda: stream().group_by(mb.window("t", "1m")).len(), "append", r"with_watermark\(column, delay\) before group_by"),
        (lambda: stream().filter(pl.col("v") > 1), "complete", r"needs a group_by"),
        (lambda: stream().sort("v"), "append", r'sort\(\) needs all rows.*mode="complete"'),
        (lambda: stream().group_by("k").len().limit(3), "update", r'limit\(\) in mode="update" is refused'),
        (lambda: mb.static(STATIC), "append", r"no source of this query streams"),
        (
            lambda: marked().group_by(mb.window("t", "1m"), "k").len().group_by(mb.window(mb.window_time(), "1h")).len(),
            "update",
            r'an aggregation after another one runs in mode="append" only',
        ),
        (
            lambda: two_windows().group_by("minute_end", "window_end").len(),
            "append",
            r"two event time keys, \['minute_end', 'window_end'\]",
        ),
        (lambda: two_windows().unique("k"), "append", r"two event time columns, \['minute_end', 'window_end'\]: drop one"),
        (
            lambda: two_windows().group_by("k").map_state(print, **VARIABLES, timers="event_time"),
            "append",
            r"map_state: the rows have two event time columns, \['minute_end', 'window_end'\]: drop one",
        ),
        (
            lambda: marked().with_columns(a=pl.col("t")).union(marked().with_columns(a=pl.col("t") + pl.duration(hours=1))).unique("k"),
            "append",
            r"two event time columns, \['t', 'a'\]",
        ),
    ],
)
def test_a_query_that_cannot_stream_is_refused(frame: Callable[[], mb.StreamFrame], mode: str, message: str) -> None:
    with pytest.raises(mb.PlanError, match=message):
        sink(frame(), mode)


@pytest.mark.parametrize(
    ("frame", "mode"),
    [
        (stream, "append"),
        (stream, "update"),
        (lambda: marked().group_by(mb.window("t", "1m")).len(), "append"),
        (lambda: marked().group_by("t").len(), "append"),
        (lambda: marked().with_columns(copy=pl.col("t")).group_by("t", "copy").len(), "append"),
        (lambda: marked().with_columns(mb.window("t", "1m"), at=pl.col("t")).with_columns(end=pl.col("window_end")).unique("k"), "append"),
        (lambda: stream().group_by("k").len(), "update"),
        (lambda: stream().group_by("k").len(), "complete"),
        (lambda: stream().group_by("k").len().sort("len").limit(2), "complete"),
        (lambda: marked().group_by(mb.window("t", "1m"), "k").len().group_by(mb.window(mb.window_time(), "1h")).len(), "append"),
        (lambda: stream().join(STATIC, on="k"), "append"),
        (lambda: mb.static(STATIC).join(stream(), on="k", how="right"), "append"),
    ],
)
def test_a_query_that_can_stream_is_described(frame: Callable[[], mb.StreamFrame], mode: str) -> None:
    assert isinstance(sink(frame(), mode), mb.Query)


@pytest.mark.parametrize("how", ["right", "full"])
def test_a_join_whose_answer_would_wait_for_the_whole_stream_is_refused(how: str) -> None:
    with pytest.raises(mb.PlanError, match="would have to wait for all rows of the stream"):
        stream().join(STATIC, on="k", how=how)


@pytest.mark.parametrize("how", ["left", "semi", "anti", "full"])
def test_a_bounded_left_side_that_must_be_kept_is_refused(how: str) -> None:
    with pytest.raises(mb.PlanError, match="would have to wait for all rows of the stream"):
        mb.static(STATIC).join(stream(), on="k", how=how)


def test_a_union_of_a_stream_and_a_frame_is_refused() -> None:
    with pytest.raises(mb.PlanError, match="would come again in each batch"):
        stream().union(mb.static(pl.DataFrame(schema=SCHEMA)))


def test_a_union_of_different_columns_is_refused_with_both() -> None:
    with pytest.raises(mb.PlanError, match=r"same columns and dtypes.*'v': Int64.*against.*'v': String"):
        stream().union(stream().with_columns(pl.col("v").cast(pl.String)))


def test_a_second_watermark_is_refused() -> None:
    with pytest.raises(mb.PlanError, match=r"carry a watermark on \['t'\] already"):
        marked().with_watermark("t", "5s")


@pytest.mark.parametrize(
    ("column", "delay", "message"),
    [
        ("v", "1m", "event time must be a Datetime; cast it"),
        ("tt", "1m", r"no column 'tt' \(did you mean 't'\?\)"),
        ("t", "1 month -40 days", "less than zero"),
        ("t", "soon", "is no duration"),
    ],
)
def test_a_watermark_that_makes_no_sense_is_refused(column: str, delay: str, message: str) -> None:
    with pytest.raises(mb.PlanError, match=message):
        stream().with_watermark(column, delay)


@pytest.mark.parametrize("verb", ["head", "tail", "shift", "collect", "with_row_index", "rolling", "sum", "reverse"])
def test_a_verb_that_needs_other_rows_says_what_to_write_instead(verb: str) -> None:
    with pytest.raises(mb.PlanError, match=rf"a stream has no {verb}\(\).*write instead"):
        getattr(stream(), verb)


def test_a_stream_does_not_claim_to_have_what_it_refuses() -> None:
    assert not hasattr(stream(), "head")
    assert not hasattr(stream(), "no_such_thing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "appendd"}, r"mode='appendd' is not known \(did you mean 'append'\?\)"),
        ({"checkpiont": "x"}, r"unknown option 'checkpiont' \(did you mean 'checkpoint'\?\)"),
        ({"retain_batches": 0}, "must be a whole number, 1 or more"),
        ({"watermark_policy": "avg"}, "it can be 'min', 'max'"),
    ],
)
def test_an_unknown_option_names_the_known_ones(options: dict[str, object], message: str) -> None:
    with pytest.raises(mb.PlanError, match=message):
        stream().sink_memory(mb.MemorySink(), **options)  # type: ignore[arg-type]


def test_a_durable_sink_needs_a_checkpoint(tmp_path: object) -> None:
    with pytest.raises(mb.PlanError, match="needs checkpoint=<folder>"):
        stream().sink_files(str(tmp_path), format="parquet")
