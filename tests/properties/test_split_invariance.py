"""Any cutting of the input into batches, with restarts, gives what one Polars query over all rows gives."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch as mb
from microbatch.testing.generate import random_cuts

SCHEMA: dict[str, Any] = {"t": pl.Datetime("us"), "k": pl.String, "v": pl.Int64, "f": pl.Float64}
BEGIN = datetime(2024, 3, 30, 22)
FAR = pl.DataFrame({"t": [datetime(2100, 1, 1)], "k": ["end"], "v": [0], "f": [0.0]}, schema=SCHEMA)
SEEDS = range(12)
Verb = Callable[[mb.StreamFrame], mb.StreamFrame]

AGGS = [
    pl.len().alias("rows"),
    pl.col("v").sum().alias("sum"),
    pl.col("f").mean().alias("mean"),
    pl.col("f").var().alias("var"),
    pl.col("v").min().alias("low"),
    pl.col("v").max().alias("high"),
    pl.col("v").first().alias("first"),
    pl.col("v").filter(pl.col("v") > 0).last().alias("last_positive"),
    pl.col("k").n_unique().alias("keys"),
    pl.col("v").median().alias("median"),
    (pl.col("v").max() - pl.col("v").min()).alias("span"),
]


def rows(rng: random.Random) -> pl.DataFrame:
    """Return rows whose times run forward, up to 20 s out of order, with nulls."""
    n = rng.randrange(1, 120)
    return pl.DataFrame(
        {
            "t": [None if rng.random() < 0.03 else BEGIN + timedelta(seconds=3 * k + rng.randrange(-20, 20)) for k in range(n)],
            "k": [rng.choice(["a", "b", "c", None]) for _ in range(n)],
            "v": [rng.choice([None, *range(-5, 6)]) for _ in range(n)],
            "f": [rng.choice([None, 0.5, -1.25, 3.0]) for _ in range(n)],
        },
        schema=SCHEMA,
    )


def run(verb: Verb, batches: list[pl.DataFrame], folder: Path, rng: random.Random, mode: str) -> mb.MemorySink:
    """Run the batches, several at a time or with a restart before each, the last two one by one, and return the sink."""
    stream, out = mb.MemoryStream(SCHEMA), mb.MemorySink()
    query = verb(stream.frame()).sink_memory(out, mode=mode, checkpoint=folder / "checkpoint", no_data_batches=rng.random() < 0.8)
    for k, batch in enumerate(batches):
        stream.add(batch)
        if rng.random() < 0.6 or k >= len(batches) - 3:
            query.run()
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("window", [mb.window("t", "10s"), mb.window("t", "25s", "10s", "3s")], ids=["tumbling", "sliding"])
def test_append_gives_each_closed_window_once(tmp_path: Path, seed: int, window: mb.Window) -> None:
    rng = random.Random(seed)
    every = rows(rng)
    # The last rows are far ahead and close everything before them.
    batches = [*random_cuts(rng, every), FAR, FAR.with_columns(pl.col("t") + timedelta(days=1))]

    def verb(frame: mb.StreamFrame) -> mb.StreamFrame:
        return frame.with_watermark("t", "60s").group_by(window, "k").agg(AGGS)

    got = run(verb, batches, tmp_path, rng, "append").rows().filter(pl.col("k").ne_missing("end"))
    oracle = mb.MemoryStream(SCHEMA)
    oracle.add(every)
    wanted = verb(oracle.frame()).as_batch().collect()
    order = ["window_start", "k"]
    assert_frame_equal(got.sort(order), wanted.sort(order), rel_tol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_row_of_each_group_in_update_mode_is_the_batch_result(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    every = rows(rng)
    verb: Verb = lambda frame: frame.group_by("k", (pl.col("v") > 0).alias("positive")).agg(AGGS)
    got = run(verb, random_cuts(rng, every), tmp_path, rng, "update").rows().unique(["k", "positive"], keep="last")
    keys = pl.col("k"), (pl.col("v") > 0).alias("positive")
    wanted = every.group_by(*keys).agg(AGGS)
    order = ["k", "positive"]
    assert_frame_equal(got.sort(order), wanted.sort(order), rel_tol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_table_in_complete_mode_is_the_batch_result(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    every = rows(rng)
    verb: Verb = lambda frame: frame.filter(pl.col("v") != 3).group_by().agg(AGGS)
    got = run(verb, random_cuts(rng, every), tmp_path, rng, "complete").batches()[-1][1]
    assert_frame_equal(got, every.filter(pl.col("v") != 3).select(AGGS), rel_tol=1e-9)


STATELESS: list[Callable[[Any], Any]] = [
    lambda f: f.filter(pl.col("v") > 0).select("t", "k", doubled=pl.col("v") * 2),
    lambda f: f.with_columns(pl.col("t").dt.truncate("1m").alias("minute")).drop("f").rename({"k": "key"}),
    lambda f: f.drop_nulls(["t", "v"]).cast({"v": pl.Float32}),
    lambda f: f.fill_null(0).with_columns(pl.concat_list("v", "v").alias("both")).explode("both"),
    lambda f: f.select(pl.struct("k", "v").alias("s")).unnest("s"),
    lambda f: f.join(pl.LazyFrame({"k": ["a", "c"], "w": [1, 3]}), on="k", how="left"),
    lambda f: f.join(pl.LazyFrame({"k": ["a", "c", "c"], "w": [1, 3, 4]}), on="k", how="inner"),
    lambda f: f.join(pl.LazyFrame({"k": ["a", "c"]}), on="k", how="anti"),
    lambda f: f.join(pl.LazyFrame({"k": ["a", None]}, schema={"k": pl.String}), on="k", how="semi", nulls_equal=True),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("verb", STATELESS)
def test_row_wise_verbs_do_not_see_the_cut(tmp_path: Path, seed: int, verb: Callable[[Any], Any]) -> None:
    rng = random.Random(seed)
    every = rows(rng)
    options = {"maintain_order": "left"}
    got = run(verb, random_cuts(rng, every), tmp_path, rng, "append").rows()
    wanted = verb(_Ordered(every.lazy(), options)).collect()
    assert_frame_equal(got, wanted)


class _Ordered:
    """A LazyFrame whose joins keep the left order, as those of a stream do."""

    def __init__(self, frame: pl.LazyFrame, options: dict[str, Any]) -> None:
        self._frame, self._options = frame, options

    def join(self, other: pl.LazyFrame, **options: Any) -> pl.LazyFrame:
        order = {} if options["how"] in ("semi", "anti") else self._options
        return self._frame.join(other, **options, **order)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)
