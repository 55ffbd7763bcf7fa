"""Streams put one under the other, as ``pl.concat`` puts frames."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch as mb

LEFT = pl.DataFrame({"t": [datetime(2024, 1, 1)], "k": ["a"], "n": [1]}, schema={"t": pl.Datetime("us"), "k": pl.String, "n": pl.Int32})
RIGHT = pl.DataFrame({"k": ["b"], "n": [2**40], "more": [True]})


def streamed(frames: list[pl.DataFrame], how: str) -> pl.DataFrame:
    streams = [mb.MemoryStream(frame.schema) for frame in frames]
    out = mb.MemorySink()
    query = mb.concat([stream.frame() for stream in streams], how=how).sink_memory(out)
    mb.MemoryStream.add_together(dict(zip(streams, frames, strict=True)))
    query.run()
    rows: pl.DataFrame = out.rows()
    return rows


@pytest.mark.parametrize(
    ("how", "frames"),
    [
        ("vertical", [LEFT, LEFT]),
        ("vertical_relaxed", [LEFT.select("k", "n"), RIGHT.select("k", "n")]),
        ("diagonal", [LEFT.select("t", "k"), RIGHT.select("more", "k")]),
        ("diagonal", [LEFT.select("t"), RIGHT.select("more")]),
        ("diagonal_relaxed", [LEFT, RIGHT]),
    ],
)
def test_streams_are_concatenated_as_frames_are(how: Any, frames: list[pl.DataFrame]) -> None:
    assert_frame_equal(streamed(frames, how), pl.concat(frames, how=how))


def test_event_time_comes_through_a_diagonal_concat() -> None:
    left, right = mb.MemoryStream(LEFT.schema), mb.MemoryStream(LEFT.schema)
    watermarked = [left.frame().with_watermark("t", "1s"), right.frame().select("t", "k").with_watermark("t", "1s")]
    counts = mb.concat(watermarked, how="diagonal").group_by(mb.window("t", "1m")).agg(pl.len())
    assert counts.sink_memory(mb.MemorySink(), mode="append").name is None


@pytest.mark.parametrize("how", ["horizontal", "align", "sideways"])
def test_other_ways_are_refused_by_name(how: str) -> None:
    frame = mb.MemoryStream(LEFT.schema).frame()
    with pytest.raises(mb.PlanError, match=rf"concat\(how='{how}'\) is not known on a stream.*it can be vertical, vertical_relaxed"):
        mb.concat([frame, frame], how=how)


def test_columns_that_do_not_fit_are_refused_with_both_schemas() -> None:
    frames = [mb.MemoryStream(LEFT.schema).frame(), mb.MemoryStream(RIGHT.schema).frame()]
    with pytest.raises(mb.PlanError, match=r"union needs the same columns and dtypes .* against "):
        mb.concat(frames)
    with pytest.raises(mb.PlanError, match=r"concat\(how='diagonal'\) does not fit .*'n': Int32.* and .*'n': Int64"):
        mb.concat(frames, how="diagonal")
