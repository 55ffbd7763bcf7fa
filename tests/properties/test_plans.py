"""Whole plans: any cutting of the input into batches, with any restarts, gives what one Polars query over all rows gives, unless late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from polars.testing import assert_frame_equal

import microbatch as mb
from tests.properties.streams import END, NOTHING_IS_LATE, SCHEMA, Case, Frames, Verb, busy_case, cases, run

AGGS = [
    pl.len().cast(pl.Int64).alias("rows"),
    pl.col("v").sum().alias("sum"),
    pl.col("v").max().alias("top"),
    pl.col("v").mean().alias("mean"),
    pl.col("v").n_unique().cast(pl.Int64).alias("distinct"),
]
MANY = settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def windowed(rows: pl.DataFrame, size: int, *, time: str = "t", slide: int | None = None) -> pl.DataFrame:
    """Return the rows once per window of ``size`` seconds they are in, those without a time in none."""
    every = slide or size
    starts = [
        (pl.col(time).dt.truncate(f"{every}s") - timedelta(seconds=every * i)).alias("window_start") for i in range(-(-size // every))
    ]
    copies = [rows.with_columns(start, at=pl.col(time)) for start in starts]
    bounded = pl.concat(copies).with_columns(window_end=pl.col("window_start") + timedelta(seconds=size))
    return bounded.filter(pl.col("at") < pl.col("window_end")).drop("at")


def grouped(rows: pl.DataFrame, *keys: str) -> pl.DataFrame:
    return rows.group_by(*keys).agg(AGGS)


def first_rows(rows: pl.DataFrame, *keys: str) -> pl.DataFrame:
    return rows.unique(keys, keep="first", maintain_order=True)


def on_time(frames: Frames) -> mb.StreamFrame:
    return frames[0].with_watermark("t", NOTHING_IS_LATE)


def minutes(frame: mb.StreamFrame) -> mb.StreamFrame:
    """Sums of the sums of 10 s windows, in windows of a minute."""
    tens = frame.group_by(mb.window("t", "10s"), "k").agg(pl.col("v").sum())
    return tens.group_by(mb.window(mb.window_time("window_end"), "60s"), "k").agg(AGGS)


def minutes_at_once(rows: pl.DataFrame) -> pl.DataFrame:
    tens = windowed(rows, 10).group_by("window_start", "window_end", "k").agg(pl.col("v").sum())
    return grouped(windowed(tens, 60, time="window_start"), "window_start", "window_end", "k")


def sessions_at_once(rows: pl.DataFrame) -> pl.DataFrame:
    """Sessions of rows at most 15 s apart."""
    gap = timedelta(seconds=15)
    ordered = rows.drop_nulls("t").sort("k", "t")
    begins = (pl.col("k").ne_missing(pl.col("k").shift()) | (pl.col("t").diff() > gap)).fill_null(value=True)
    numbered = ordered.with_columns(n=begins.cum_sum(), i=pl.lit(1))
    bounds = pl.col("t").min().alias("window_start"), (pl.col("t").max() + gap).alias("window_end")
    return numbered.group_by("n", "k").agg(*bounds, *AGGS).drop("n")


RIGHT = {"id": "right_id", "t": "u", "v": "w"}
CLOSE = pl.col("t").is_between(pl.col("u") - timedelta(seconds=10), pl.col("u") + timedelta(seconds=15))


def joined(frames: Frames, how: Any) -> mb.StreamFrame:
    """Rows of both streams with one key whose times are close."""
    right = frames[1].with_watermark("t", NOTHING_IS_LATE).rename(RIGHT)
    return on_time(frames).join(right, on="k", how=how, where=CLOSE)


def joined_at_once(case: Case, how: str) -> pl.DataFrame:
    pairs = case.left.join(case.right.rename(RIGHT), on="k", how="inner").filter(CLOSE)
    # A row without a time is never passed by the watermark, so it waits for ever.
    alone = case.left.drop_nulls("t").join(pairs, on="id", how="anti")
    return pl.concat([pairs, alone], how="diagonal") if how == "left" else pairs


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A query on a stream, the same as a Polars query, and how their results are laid side by side."""

    stream: Verb
    batch: Callable[[Case], pl.DataFrame]
    mode: str = "append"
    latest_of: tuple[str, ...] = ()  # update mode: the last row of these keys counts
    options: dict[str, Any] = field(default_factory=dict[str, Any])


PLANS = {
    "tumbling windows": Plan(
        stream=lambda f: on_time(f).group_by(mb.window("t", "10s"), "k").agg(AGGS),
        batch=lambda c: grouped(windowed(c.left, 10), "window_start", "window_end", "k"),
    ),
    "sliding windows": Plan(
        stream=lambda f: on_time(f).group_by(mb.window("t", "25s", "10s"), "k").agg(AGGS),
        batch=lambda c: grouped(windowed(c.left, 25, slide=10), "window_start", "window_end", "k"),
    ),
    "sessions": Plan(
        stream=lambda f: on_time(f).group_by(mb.session_window("t", "15s"), "k").agg(AGGS),
        batch=lambda c: sessions_at_once(c.left),
    ),
    "updated keys": Plan(
        stream=lambda f: f[0].group_by("k").agg(AGGS), batch=lambda c: grouped(c.left, "k"), mode="update", latest_of=("k",)
    ),
    "updated windows": Plan(
        stream=lambda f: on_time(f).group_by(mb.window("t", "10s"), "k").agg(AGGS),
        batch=lambda c: grouped(windowed(c.left, 10), "window_start", "window_end", "k"),
        mode="update",
        latest_of=("window_start", "k"),
    ),
    "unique ever": Plan(stream=lambda f: f[0].unique(["k", "v"]), batch=lambda c: first_rows(c.left, "k", "v")),
    "unique with event time": Plan(stream=lambda f: on_time(f).unique(["k", "t"]), batch=lambda c: first_rows(c.left, "k", "t")),
    "unique within the watermark": Plan(
        # Ids are new in each batch, so within one no repeat is further from the first than the jitter.
        stream=lambda f: on_time(f).with_columns(pl.col("id") // 4).unique(["id", "k"], within_watermark=True),
        batch=lambda c: first_rows(c.left.with_columns(pl.col("id") // 4), "id", "k"),
    ),
    "window over window": Plan(stream=lambda f: minutes(on_time(f)), batch=lambda c: minutes_at_once(c.left)),
    "window over window over unique": Plan(
        stream=lambda f: minutes(on_time(f).unique(["k", "t"])), batch=lambda c: minutes_at_once(first_rows(c.left, "k", "t"))
    ),
    "unique over window": Plan(
        stream=lambda f: (
            on_time(f)
            .group_by(mb.window("t", "10s"), "k")
            .agg(AGGS)
            .filter(pl.col("k").ne_missing(END))
            .select("window_end", "rows")
            .unique(["window_end", "rows"])
        ),
        batch=lambda c: grouped(windowed(c.left, 10), "window_start", "window_end", "k").select("window_end", "rows").unique(),
    ),
    "windows of a union, slowest watermark": Plan(
        stream=lambda f: mb.concat([on_time(f), f[1].with_watermark("t", "60s")]).group_by(mb.window("t", "10s"), "k").agg(AGGS),
        batch=lambda c: grouped(windowed(c.both, 10), "window_start", "window_end", "k"),
    ),
    "inner join": Plan(stream=lambda f: joined(f, "inner"), batch=lambda c: joined_at_once(c, "inner")),
    "left join": Plan(stream=lambda f: joined(f, "left"), batch=lambda c: joined_at_once(c, "left")),
    "minutes of a union": Plan(
        stream=lambda f: minutes(mb.concat([on_time(f), f[1].with_watermark("t", "60s")])), batch=lambda c: minutes_at_once(c.both)
    ),
}


def check(name: str, case: Case) -> None:
    """The stream's result is the batch's, and nothing was late."""
    plan = PLANS[name]
    outcome = run(plan.stream, case, mode=plan.mode, **plan.options)
    wanted, got = plan.batch(case), outcome.rows
    if plan.latest_of:
        got = got.unique(plan.latest_of, keep="last")
    assert_frame_equal(got, wanted.select(got.columns), check_row_order=False)


@pytest.mark.parametrize("name", PLANS)
def test_the_cut_into_batches_does_not_matter(name: str) -> None:
    check(name, busy_case(seed=len(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
@given(case=cases())
@MANY
def test_no_cut_into_batches_matters(name: str, case: Case) -> None:
    check(name, case)


BY_WINDOW = ("window_start", "window_end", "k")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", ["min", "max"])
def test_what_a_union_leaves_out_is_in_the_table_of_late_rows(policy: str, seed: int) -> None:
    """The second stream may be 1 s late only: with the fastest watermark that drops rows of both, with the slowest of the second only."""
    case = busy_case(seed)
    check_late_rows(case, lambda f: mb.concat([on_time(f), f[1].with_watermark("t", "1s")]), case.both, watermark_policy=policy)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["min", "max"])
@given(case=cases())
@MANY
def test_nothing_of_a_union_vanishes(policy: str, case: Case) -> None:
    check_late_rows(case, lambda f: mb.concat([on_time(f), f[1].with_watermark("t", "1s")]), case.both, watermark_policy=policy)


def check_late_rows(case: Case, rows: Verb, every: pl.DataFrame, **options: Any) -> None:
    """Result and late rows together are the input: each window is that of its rows without those refused."""
    outcome = run(lambda f: rows(f).group_by(mb.window("t", "10s"), "k").agg(AGGS), case, keep_late=True, **options)
    late = outcome.late.select(pl.col("row").struct.unnest(), "event_time", "mark").filter(pl.col("k").ne_missing(END))
    assert late.filter(pl.col("event_time") > pl.col("mark")).height == 0
    assert late["id"].is_duplicated().sum() == 0
    kept = windowed(every, 10).join(late.select("id"), on="id", how="anti")
    assert_frame_equal(outcome.rows, grouped(kept, *BY_WINDOW).select(outcome.rows.columns), check_row_order=False)


@pytest.mark.parametrize("seed", range(2))
def test_late_rows_of_chained_windows_are_refused_by_the_first_alone(seed: int) -> None:
    case = replace(busy_case(seed), after=("go on",) * 5, no_data_batches=True)
    outcome = run(lambda f: minutes(f[0].with_watermark("t", "1s")), case, keep_late=True)
    assert outcome.late["operator"].unique().to_list() == ["aggregate-window_start-window_end-k"]


@pytest.mark.parametrize("mode", ["append", "complete"])
def test_limit_counts_over_the_life_of_a_stream_and_in_each_result(mode: str) -> None:
    case = busy_case(seed=5)
    if mode == "append":
        assert_frame_equal(run(lambda f: f[0].limit(20), case, close=False).rows, case.left.head(20))
        return
    sorted_counts: Verb = lambda f: f[0].group_by("k").agg(AGGS).sort("k").limit(2)
    (_, last) = run(sorted_counts, case, mode=mode, close=False).sink.batches()[-1]
    assert_frame_equal(last, grouped(case.left, "k").sort("k").head(2))


@pytest.mark.parametrize("verb", ["agg", "unique"])
def test_one_key_with_nearly_all_rows_is_like_any_other(verb: str) -> None:
    n = 20_000
    keys = pl.select(k=pl.when(pl.int_range(n) % 100 == 7).then(pl.int_range(n) % 991).otherwise(-1).cast(pl.String))
    rows = keys.select(id=pl.int_range(n), t=None, k="k", v=pl.int_range(n) % 10).cast(pl.Schema(SCHEMA))
    case = Case(batches=tuple((rows.slice(i, 4_000), rows.clear()) for i in range(0, n, 4_000)), after=("go on",) * 5, no_data_batches=True)
    if verb == "agg":
        got = run(lambda f: f[0].group_by("k").agg(AGGS), case, mode="update", close=False).rows.unique("k", keep="last")
        assert_frame_equal(got, grouped(rows, "k"), check_row_order=False)
    else:
        assert_frame_equal(run(lambda f: f[0].unique("k"), case, close=False).rows, first_rows(rows, "k"))
