"""Which columns carry event time, and which identify a row, behind each verb."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

import microbatch as mb
from microbatch.plan.schema import event_times, rival_event_times, row_keys

SCHEMA = {"t": pl.Datetime("us"), "k": pl.String, "v": pl.Int64}
Verb = Callable[[mb.StreamFrame], mb.StreamFrame]


def stream() -> mb.StreamFrame:
    return mb.MemoryStream(SCHEMA).frame()


@pytest.mark.parametrize(
    ("verb", "carries"),
    [
        (lambda f: f, {"t": False}),
        (lambda f: f.filter(pl.col("v") > 0), {"t": False}),
        (lambda f: f.select("t", "v"), {"t": False}),
        (lambda f: f.select("v"), {}),
        (lambda f: f.select(pl.all()), {"t": False}),
        (lambda f: f.drop("t"), {}),
        (lambda f: f.rename({"t": "at"}), {"at": False}),
        (lambda f: f.with_columns(pl.col("t").alias("copy")), {"t": False, "copy": False}),
        (lambda f: f.with_columns(t=pl.col("t").dt.truncate("1d")), {}),
        (lambda f: f.with_columns(pl.col("t").dt.offset_by("1h")), {}),
        (lambda f: f.with_columns(v=pl.col("v") + 1), {"t": False}),
        (lambda f: f.select(mb.window("t", "1m"), "k"), {"window_end": True}),
        (lambda f: f.with_columns(mb.window("t", "1m")), {"t": False, "window_end": True}),
        (lambda f: f.with_columns(mb.window("t", "1m")).with_columns(w=mb.window_time()), {"t": False, "window_end": True, "w": False}),
        (lambda f: f.group_by(mb.window("t", "1m")).len(), {"window_end": True}),
        (lambda f: f.group_by("t").len(), {"t": False}),
        (lambda f: f.group_by("k").len(), {}),
        (lambda f: f.union(f), {"t": False}),
        (lambda f: f.join(pl.DataFrame({"k": ["a"]}), on="k"), {"t": False}),
        (lambda f: f.map_batches(lambda rows: rows, row_wise=True), {}),
    ],
)
def test_event_time_follows_untouched_copies_only(verb: Verb, carries: dict[str, bool]) -> None:
    assert event_times(verb(stream().with_watermark("t", "1m"))._node) == carries


@pytest.mark.parametrize(
    ("verb", "rivals"),
    [
        (lambda f: f.with_columns(pl.col("t").alias("copy")), []),
        (lambda f: f.with_columns(mb.window("t", "1m")).with_columns(end=pl.col("window_end")), []),
        (lambda f: f.with_columns(mb.window("t", "1m")).drop("t").with_columns(a=mb.window_time(), b=mb.window_time()), []),
        (lambda f: f.with_columns(mb.window("t", "1m")).with_columns(a=mb.window_time()), ["t", "a"]),
        (lambda f: f.with_columns(copy=pl.col("t")).union(f.with_columns(copy=pl.col("t"))), []),
        (lambda f: f.with_columns(copy=pl.col("t")).union(f.with_columns(copy=pl.col("t").dt.truncate("1d"))), ["t", "copy"]),
        (lambda f: f.with_columns(copy=pl.col("t").dt.truncate("1d")).union(f.with_columns(copy=pl.col("t"))), ["t", "copy"]),
    ],
)
def test_columns_that_copy_one_event_time_are_no_rivals(verb: Verb, rivals: list[str]) -> None:
    assert rival_event_times(verb(stream().with_watermark("t", "1m"))._node) == rivals


@pytest.mark.parametrize(
    ("verb", "keys"),
    [
        (lambda g: g, ("window_start", "window_end", "k")),
        (lambda g: g.rename({"k": "key"}), ("window_start", "window_end", "key")),
        (lambda g: g.filter(pl.col("n") > 1), ("window_start", "window_end", "k")),
        (lambda g: g.drop("window_end"), ()),
        (lambda g: g.select("k", "n"), ()),
        (lambda g: g.with_columns(k=pl.col("k") + "x"), ()),
    ],
)
def test_grouping_keys_identify_a_row_while_all_of_them_are_there(verb: Verb, keys: tuple[str, ...]) -> None:
    grouped = stream().with_watermark("t", "1m").group_by(mb.window("t", "1m"), "k").agg(pl.len().alias("n"))
    assert row_keys(verb(grouped)._node) == keys


def test_a_stream_that_is_not_grouped_has_no_keys() -> None:
    assert row_keys(stream()._node) == ()


def test_a_verb_that_does_not_fit_is_refused_where_it_is_written() -> None:
    with pytest.raises(mb.PlanError, match=r"select does not fit its input: .*nope.*The stream has"):
        stream().select("nope")
