"""Sliding windows put together from panes. Expected rows from one Polars query over all rows, and by hand."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch as mb
from microbatch.operators.panes import Panes, panes_of
from microbatch.plan.aggregates import split_aggregates
from microbatch.plan.nodes import Aggregate
from microbatch.plan.schema import schema_of
from microbatch.testing.generate import random_cuts

SCHEMA: dict[str, Any] = {"t": pl.Datetime("us"), "k": pl.String, "v": pl.Int64, "f": pl.Float64}
AGGS = [
    pl.len().alias("n"),
    pl.col("v").sum().alias("sum"),
    pl.col("f").mean().alias("mean"),
    pl.col("f").std().alias("std"),
    pl.col("v").max().alias("high"),
    pl.col("v").n_unique().alias("distinct"),
    pl.col("v").median().alias("median"),
    (pl.col("v") > 0).any().alias("positive"),
]


def at(second: float) -> datetime:
    return datetime(2024, 1, 1) + timedelta(seconds=second)


def panes(frame: mb.StreamFrame) -> Panes | None:
    node = frame.plan
    assert isinstance(node, Aggregate)
    return panes_of(node, split_aggregates(node.aggs, keys=node.keys, schema=schema_of(node.input)))


def events(stream: mb.MemoryStream) -> mb.StreamFrame:
    return stream.frame().with_watermark("t", "60s")


@pytest.mark.parametrize("mode", ["append", "update", "complete"])
@pytest.mark.parametrize("window", [mb.window("t", "30s", "10s"), mb.window("t", "20s", "5s", "3s")], ids=["aligned", "offset"])
@pytest.mark.parametrize("seed", range(3))
def test_windows_from_panes_are_those_of_the_rows(tmp_path: Path, seed: int, window: mb.Window, mode: str) -> None:
    rng = random.Random(seed)
    n = 90
    rows = pl.DataFrame(
        {
            "t": [None if rng.random() < 0.05 else at(k + rng.randrange(-20, 20)) for k in range(n)],
            "k": [rng.choice(["a", "b", None]) for _ in range(n)],
            "v": [rng.choice([None, *range(-5, 6)]) for _ in range(n)],
            "f": [rng.choice([None, 0.5, -1.25, 3.0]) for _ in range(n)],
        },
        schema=SCHEMA,
    )
    stream, out = mb.MemoryStream(SCHEMA), mb.MemorySink()
    frame = events(stream).group_by(window, "k").agg(AGGS)
    assert panes(frame) is not None
    query = frame.sink_memory(out, checkpoint=tmp_path / "checkpoint", mode=mode)
    for piece in random_cuts(rng, rows):
        stream.add(piece)
        query.run()
    order = ["window_start", "k"]
    wanted = frame.as_batch().collect().sort(order)
    if mode == "append":
        mark = rows.select(pl.col("t").max() - timedelta(seconds=60)).item()
        wanted = wanted.filter(pl.col("window_end") <= mark)
    got = out.batches()[-1][1] if mode == "complete" else out.rows().unique(["window_start", "k"], keep="last")
    assert_frame_equal(got.sort(order), wanted, rel_tol=1e-9)


def test_a_row_counts_in_the_windows_that_are_open_and_is_late_in_the_others(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream({"t": pl.Datetime("us")}), mb.MemorySink()
    frame = stream.frame().with_watermark("t", "0s").group_by(mb.window("t", "30s", "10s")).agg(pl.len().alias("n"))
    query = frame.sink_memory(out, checkpoint=tmp_path / "checkpoint", mode="update")
    stream.add({"t": [at(35)]})
    query.run()
    stream.add({"t": [at(15), at(16)]})  # in [-10, 20) and [0, 30), both over at 35, and in [10, 40)
    run = query.start(available_now=True)
    run.await_termination(timeout=60)
    rows = [((start - at(0)).total_seconds(), n) for start, _, n in out.batches()[-1][1].rows()]
    assert rows == [(10, 3)]
    assert run.recent_progress[-1]["stateOperators"][0]["numRowsDroppedByWatermark"] == 4


@pytest.mark.parametrize(
    "agg",
    [
        pl.col("v").first(),
        pl.col("v").drop_nulls().last(),
        pl.col("v").implode(),
        pl.col("v").min_by("f"),
        pl.col("window_start").min().alias("begin"),
    ],
)
def test_what_asks_for_the_order_of_rows_or_for_the_window_sees_the_rows(agg: pl.Expr) -> None:
    rows = events(mb.MemoryStream(SCHEMA)).with_columns(mb.window("t", "30s", "10s"))
    assert panes(rows.group_by("window_start", "window_end", "k").agg(pl.len())) is not None
    if "window_start" in agg.meta.root_names():
        rows_by_end = rows.group_by("window_end", "k").agg(agg)
        assert panes(rows_by_end) is None
    else:
        assert panes(rows.group_by("window_start", "window_end", "k").agg(pl.len(), agg)) is None


@pytest.mark.parametrize("window", [mb.window("t", "30s"), mb.window("t", "25s", "10s")], ids=["tumbling", "slides-that-do-not-fit"])
def test_other_windows_see_the_rows(window: mb.Window) -> None:
    assert panes(events(mb.MemoryStream(SCHEMA)).group_by(window, "k").agg(pl.len())) is None
