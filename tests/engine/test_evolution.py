"""What may change between two runs of a query, what may not, and what the refusal says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb
from microbatch.plan.nodes import StatefulNode, walk
from microbatch.planner import operator_ids

Define = Callable[[mb.StreamFrame], mb.StreamFrame]

SCHEMA: dict[str, Any] = {"k": pl.String, "g": pl.Int64, "v": pl.Int64, "t": pl.Datetime("us")}


def at(second: int) -> datetime:
    return datetime(2024, 1, 1, 0, 0, second)


FIRST = {"k": ["a", "b", "a"], "g": [1, 1, 2], "v": [1, 2, 3], "t": [at(0), at(1), at(2)]}
SECOND = {"k": ["a", "c"], "g": [1, 3], "v": [10, 20], "t": [at(3), at(4)]}
LAST = {"k": ["z"], "g": [0], "v": [0], "t": [at(59)]}


class Twice:
    """A query, and after it another one, over one stream and one checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self.stream = mb.MemoryStream(SCHEMA)
        self.checkpoint = checkpoint

    def run(self, define: Define, rows: Any, mode: str = "update", **options: Any) -> pl.DataFrame:
        """Return what a run puts out for these rows."""
        self.stream.add(pl.DataFrame(rows, schema=SCHEMA))
        out = mb.MemorySink()
        define(self.stream.frame()).sink_memory(out, mode=mode, checkpoint=self.checkpoint, **options).run()
        result: pl.DataFrame = out.rows()
        return result

    def refusal(self, define: Define, mode: str = "update", **options: Any) -> str:
        """Return the message of the refusal."""
        query = define(self.stream.frame()).sink_memory(mb.MemorySink(), mode=mode, checkpoint=self.checkpoint, **options)
        with pytest.raises(mb.CheckpointMismatchError) as refused:
            query.run()
        return str(refused.value)


@pytest.fixture
def twice(tmp_path: Path) -> Twice:
    return Twice(tmp_path / "checkpoint")


def total(s: mb.StreamFrame) -> mb.StreamFrame:
    return s.group_by("k").agg(pl.col("v").sum())


def total_and_count(s: mb.StreamFrame) -> mb.StreamFrame:
    return s.group_by("k").agg(pl.col("v").sum(), pl.len().alias("n"), pl.col("v").max().alias("most"))


def rows_of(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return sorted(frame.iter_rows())


# -- allowed ---------------------------------------------------------------------------------------------------------------


def test_stateless_verbs_may_change(twice: Twice) -> None:
    twice.run(total, FIRST)
    changed = twice.run(lambda s: total(s.filter(pl.col("v") > 10)).with_columns(double=pl.col("v") * 2), SECOND)
    assert rows_of(changed) == [("c", 20, 40)]


def test_the_delay_of_a_watermark_may_change(twice: Twice) -> None:
    def windowed(delay: str) -> Define:
        return lambda s: s.with_watermark("t", delay).group_by(mb.window("t", "10s")).agg(pl.col("v").sum())

    twice.run(windowed("5s"), FIRST)
    assert twice.run(windowed("1s"), SECOND)["v"].to_list() == [36]


def test_an_aggregate_may_be_dropped(twice: Twice) -> None:
    twice.run(total_and_count, FIRST)
    assert rows_of(twice.run(total, SECOND)) == [("a", 14), ("c", 20)]


def test_an_aggregate_may_be_added_by_opting_in_and_begins_empty(twice: Twice) -> None:
    twice.run(total, FIRST)
    assert rows_of(twice.run(total_and_count, SECOND, evolve=True)) == [("a", 14, 1, 10), ("c", 20, 1, 20)]


ADDED = {
    "len": pl.len(),
    "count": pl.col("v").count(),
    "sum": pl.col("g").sum(),
    "mean": pl.col("v").mean(),
    "var": pl.col("v").var(ddof=0),
    "min": pl.col("v").min(),
    "first": pl.col("g").first(),
    "last": pl.col("g").last(),
    "n_unique": pl.col("v").n_unique(),
    "implode": pl.col("v").implode(),
    "median": pl.col("v").median(),
    "any": (pl.col("v") > 1).any(),
    "product": pl.col("v").product(),
    "max_by": pl.col("g").max_by("v"),
}


@pytest.mark.parametrize("mode", ["update", "append"])
@pytest.mark.parametrize("added", ADDED)
def test_an_added_aggregate_is_that_of_the_rows_from_then_on(twice: Twice, added: str, mode: str) -> None:
    def query(*more: pl.Expr) -> Define:
        return lambda s: s.with_watermark("t", "0s").group_by(mb.window("t", "30s")).agg(pl.col("v").sum(), *more)

    twice.run(query(), FIRST, mode)
    new = ADDED[added].alias("x")
    result = twice.run(query(new), SECOND, mode, evolve=True)
    if mode == "append":  # the group comes when it is final
        result = twice.run(query(new), LAST, mode)
    alone = pl.DataFrame(SECOND, schema=SCHEMA).select(new)
    assert result["x"].to_list() == alone["x"].to_list()
    assert result["v"].to_list() == [36]


def test_an_operator_may_come_and_go_by_opting_in(twice: Twice) -> None:
    twice.run(total, FIRST)
    assert rows_of(twice.run(lambda s: total(s.unique(["k", "g"])), SECOND, evolve=True)) == [("a", 14), ("c", 20)]
    assert rows_of(twice.run(total, FIRST, evolve=True)) == [("a", 18), ("b", 4)]


def test_an_operator_that_went_and_came_back_begins_empty(twice: Twice) -> None:
    def distinct(s: mb.StreamFrame) -> mb.StreamFrame:
        return s.unique("k")

    twice.run(distinct, FIRST)
    twice.run(lambda s: s, SECOND, "append", evolve=True)
    assert twice.run(distinct, FIRST, evolve=True)["k"].to_list() == ["a", "b"]


def test_a_changed_query_that_was_let_in_once_is_the_query_from_then_on(twice: Twice) -> None:
    twice.run(total, FIRST)
    twice.run(total_and_count, SECOND, evolve=True)
    assert rows_of(twice.run(total_and_count, FIRST)) == [("a", 18, 3, 10), ("b", 4, 1, 2)]


# -- refused ---------------------------------------------------------------------------------------------------------------


def test_an_added_aggregate_is_refused_with_the_way_to_opt_in(twice: Twice) -> None:
    twice.run(total, FIRST)
    said = twice.refusal(total_and_count)
    lines = [line.split() for line in said.splitlines()]
    assert ["changed", "aggregate-k", "len()", "-", "Int64", "with", "evolve=True"] in lines
    assert "run the query once with evolve=True" in said


def test_a_changed_key_is_refused_with_old_and_new_operator(twice: Twice) -> None:
    twice.run(total, FIRST)
    said = twice.refusal(lambda s: s.group_by("g").agg(pl.col("v").sum()))
    lines = [line.split() for line in said.splitlines()]
    assert ["dropped", "aggregate-k", "aggregate", "-", "with", "evolve=True"] in lines
    assert ["new", "aggregate-g", "-", "aggregate", "with", "evolve=True"] in lines


def test_another_key_under_the_same_name_is_refused_whatever_is_opted_in_to(twice: Twice) -> None:
    twice.run(lambda s: total(s).named("totals"), FIRST)
    said = twice.refusal(lambda s: s.group_by("g").agg(pl.col("v").sum()).named("totals"), evolve=True)
    assert "totals    keys" in said
    assert "[['k', 'String']]" in said
    assert "[['g', 'Int64']]" in said
    assert "restore the old query, or take a new checkpoint" in said


def test_another_mode_or_dtype_is_refused(twice: Twice) -> None:
    twice.run(total, FIRST)
    assert "mode   update  complete  never" in twice.refusal(total, "complete", evolve=True)


def test_another_dtype_is_refused(twice: Twice) -> None:
    twice.run(lambda s: s.group_by("k").agg(pl.col("v").max()), FIRST)
    said = twice.refusal(lambda s: s.with_columns(pl.col("v").cast(pl.Float64)).group_by("k").agg(pl.col("v").max()), evolve=True)
    assert ["max(v)", "Int64", "Float64", "never"] in [line.split()[-4:] for line in said.splitlines()]


def test_a_checkpoint_without_state_takes_a_stateful_query_by_opting_in_only(twice: Twice) -> None:
    twice.run(lambda s: s, FIRST, "append")
    assert ["new", "aggregate-k", "-", "aggregate", "with", "evolve=True"] in [line.split() for line in twice.refusal(total).splitlines()]
    assert rows_of(twice.run(total, SECOND, evolve=True)) == [("a", 10), ("c", 20)]
    assert rows_of(twice.run(total, FIRST)) == [("a", 14), ("b", 2)]


def test_what_is_kept_stands_in_the_table_too(twice: Twice) -> None:
    def two(name: str) -> Define:
        return lambda s: s.unique("v", name="once").group_by("k").agg(pl.len()).named(name)

    twice.run(two("a"), FIRST)
    assert ["kept", "once", "always"] in [line.split() for line in twice.refusal(two("b")).splitlines()]


def test_a_refused_query_changes_nothing(twice: Twice) -> None:
    twice.run(total, FIRST)
    before = {f: f.read_bytes() for f in twice.checkpoint.rglob("*") if f.is_file() and f.name != ".lock"}
    twice.refusal(total_and_count)
    assert before == {f: f.read_bytes() for f in twice.checkpoint.rglob("*") if f.is_file() and f.name != ".lock"}


# -- names -----------------------------------------------------------------------------------------------------------------


def names_of(frame: mb.StreamFrame) -> set[str]:
    ids = operator_ids(frame.plan)
    return {ids[id(n)] for n in walk(frame.plan) if isinstance(n, StatefulNode)}


def test_an_unrelated_operator_renames_no_other_one() -> None:
    stream = mb.MemoryStream(SCHEMA).frame()
    assert names_of(stream.unique("g").group_by("k").agg(pl.len())) == {"aggregate-k", "unique-g"}
    assert names_of(stream.limit(9).unique("v").unique("g").group_by("k").agg(pl.len())) == {"aggregate-k", "unique-g", "unique-v", "limit"}


def test_named_names_the_verb_before_it_also_behind_renamed_keys() -> None:
    stream = mb.MemoryStream(SCHEMA).frame()
    assert names_of(stream.unique("g").named("once").group_by("k").agg(pl.len()).named("totals")) == {"once", "totals"}
    assert names_of(stream.group_by((pl.col("v") % 2).alias("v")).agg(pl.len()).named("parity")) == {"parity"}


def test_a_derived_name_makes_way_for_a_given_one() -> None:
    stream = mb.MemoryStream(SCHEMA).frame()
    assert names_of(stream.unique("g").unique("k", name="unique-g")) == {"unique-g", "unique-g-2"}


def test_two_operators_with_one_name_are_refused_when_the_query_is_defined() -> None:
    frame = mb.MemoryStream(SCHEMA).frame().unique("g", name="x").limit(3).named("x")
    with pytest.raises(mb.PlanError, match=r"two operators of the query have one name.*'x'.*give each a name of its own"):
        frame.sink_memory(mb.MemorySink())


def test_named_behind_a_verb_without_state_is_refused() -> None:
    with pytest.raises(mb.PlanError, match=r"named\('x'\): filter keeps no state; write it right behind"):
        mb.MemoryStream(SCHEMA).frame().filter(pl.col("v") > 0).named("x")


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "-x"])
def test_a_name_that_is_no_word_is_refused(name: str) -> None:
    with pytest.raises(mb.PlanError, match=r"the name .* of an operator may hold letters"):
        mb.MemoryStream(SCHEMA).frame().unique("g").named(name)


def test_columns_with_any_name_may_be_keys(twice: Twice) -> None:
    def query(s: mb.StreamFrame) -> mb.StreamFrame:
        return s.select(pl.col("k").alias("../a/b"), pl.col("g").alias("x" * 300)).group_by("../a/b", "x" * 300).len()

    for _ in range(60):  # past the deltas a table keeps, so that a file is written
        twice.stream.add(pl.DataFrame(FIRST, schema=SCHEMA))
        query(twice.stream.frame()).sink_memory(mb.MemorySink(), mode="update", checkpoint=twice.checkpoint).run()
    assert len(list(twice.checkpoint.glob("state/runs/*/*.arrow"))) > 0
    assert sorted(twice.run(query, SECOND)["len"]) == [1, 61]
