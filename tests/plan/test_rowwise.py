"""What is row-wise: by a catalogue of expressions, each judged, and each that is allowed evaluated whole and in pieces."""

from __future__ import annotations

import itertools
import json
import random
import warnings
from collections.abc import Sequence

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.errors import PlanError
from microbatch.plan import rowwise
from microbatch.plan.rowwise import check_row_wise
from tests.plan.catalogue import ALLOWED, GOLDEN, REFUSED, all_tags, expression, functions, random_rows

ROWS = random_rows(random.Random(7), 60)


def in_pieces(rows: pl.DataFrame, exprs: Sequence[pl.Expr], rng: random.Random) -> pl.DataFrame:
    cuts = sorted({0, rows.height, *(rng.randrange(rows.height) for _ in range(6))})
    return pl.concat([rows[start:end].select(exprs) for start, end in itertools.pairwise(cuts)])


@pytest.mark.parametrize("text", ALLOWED)
def test_row_wise_expression_is_allowed_and_does_not_depend_on_the_cut(text: str) -> None:
    parsed = expression(text)
    check_row_wise([parsed], verb="select")
    exprs = [pl.col("a").alias("__row"), parsed.name.prefix("_") if parsed.meta.has_multiple_outputs() else parsed.alias("out")]
    assert_frame_equal(in_pieces(ROWS, exprs, random.Random(text)), ROWS.select(exprs))


@pytest.mark.parametrize("line", REFUSED)
def test_expression_over_other_rows_is_refused_by_name(line: str) -> None:
    text, words = (part.strip() for part in line.split(" | "))
    with pytest.raises(PlanError) as refused:
        check_row_wise([expression(text)], verb="with_columns")
    message = str(refused.value)
    assert message.startswith("with_columns: ")
    assert words in message[message.index(" is not row-wise (") : message.index("): a batch")]
    assert "; instead: " in message


def test_every_listed_function_is_in_the_catalogue() -> None:
    seen = set[str]().union(*map(functions, ALLOWED))
    assert set(rowwise._FUNCTIONS) - seen == set()


def test_trees_of_the_catalogue_are_those_we_know() -> None:
    """Fails if a Polars release names a node in another way: read the change, then ``python -m tests.plan.catalogue``."""
    assert {text: " ".join(found) for text, found in all_tags().items()} == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "calls_python",
    [
        pl.col("a").map_elements(lambda v: v, return_dtype=pl.Int64),
        pl.col("a").map_batches(lambda v: v, return_dtype=pl.Int64),
        pl.col("a").map_batches(lambda v: v, return_dtype=pl.Int64, is_elementwise=True),
        pl.fold(0, lambda x, y: x + y, ["a", "b"]) + 1,
    ],
)
def test_python_function_in_an_expression_is_refused_with_the_way_out(calls_python: pl.Expr) -> None:
    with pytest.raises(PlanError, match=r"select: .*map_batches\(function, row_wise=True\)"):
        check_row_wise([calls_python], verb="select")


def test_column_may_be_called_like_a_node() -> None:
    check_row_wise([pl.col("a").alias("Len"), pl.col("Len"), pl.struct(Shift=pl.col("Sum"))], verb="select")


@pytest.mark.parametrize(
    "filtered",
    [
        pl.col("a").filter(pl.col("b") > 1),
        pl.col("a").drop_nulls() * 2,
        pl.col("f").drop_nans(),
        pl.col("a").filter(pl.col("g")) * pl.col("b").filter(pl.col("g")) + 1,
    ],
)
def test_filter_is_allowed_only_where_rows_may_go(filtered: pl.Expr) -> None:
    check_row_wise([filtered], verb="agg", allow_filter=True)
    with pytest.raises(PlanError, match=r"StreamFrame\.filter"):
        check_row_wise([filtered], verb="select")


@pytest.mark.parametrize(
    "mixed",
    [
        pl.col("a").filter(pl.col("b") > 1) + pl.col("b"),
        pl.col("a").filter(pl.col("b") > 1) + pl.col("b").filter(pl.col("b") > 2),
        pl.col("a").drop_nulls() + pl.col("b").drop_nulls(),
    ],
)
def test_operands_with_different_rows_are_refused(mixed: pl.Expr) -> None:
    with pytest.raises(PlanError, match="operands with different rows"):
        check_row_wise([mixed], verb="agg", allow_filter=True)


def test_filter_by_other_rows_is_refused_also_where_rows_may_go() -> None:
    with pytest.raises(PlanError, match="mean over the whole column"):
        check_row_wise([pl.col("a").filter(pl.col("a") > pl.col("a").mean())], verb="agg", allow_filter=True)


@pytest.mark.parametrize("exploded", [pl.col("l").explode(), pl.col("arr").arr.explode()])
def test_explode_is_allowed_only_where_rows_may_multiply(exploded: pl.Expr) -> None:
    check_row_wise([exploded + 1], verb="agg", allow_explode=True)
    with pytest.raises(PlanError, match=r"StreamFrame\.explode"):
        check_row_wise([exploded + 1], verb="select")


def test_all_expressions_are_looked_at() -> None:
    with pytest.raises(PlanError, match="shift"):
        check_row_wise([pl.col("a"), pl.col("a").shift()], verb="select")


def test_no_warning_comes_from_looking_at_an_expression() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_row_wise([pl.col("a").is_in([1, 2])], verb="select")
