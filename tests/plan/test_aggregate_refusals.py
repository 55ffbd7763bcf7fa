"""Aggregates that cannot be kept up to date from pieces: refused when the query is defined, with what to write instead."""

from __future__ import annotations

import polars as pl
import pytest

from microbatch.errors import PlanError
from microbatch.plan.aggregates import split_aggregates
from tests.plan.pieces import SCHEMA

i, s, g, t, u = (pl.col(name) for name in "isgtu")


@pytest.mark.parametrize(
    ("agg", "words", "way_out"),
    [
        (i, "takes column 'i' as it is", "implode"),
        (i.sum() + i, "takes column 'i' as it is", "first"),
        (i.mode(), "mode", "implode"),
        (i.skew(), "skew", "sums"),
        (i.kurtosis(), "kurtosis", "sums"),
        (i.entropy(), "entropy", "implode"),
        (pl.corr("i", "u"), "corr or cov", "sums of x"),
        (pl.cov("i", "u"), "corr or cov", "sums of x"),
        (i.cum_sum(), "cum_sum", "running total"),
        (i.cum_sum().max(), "cum_sum below max", "running total"),
        (i.sort(), "sort", "list.sort"),
        (i.sort().first(), "sort below first", "list.sort"),
        (i.sort_by("u").first(), "sort_by below first", "min_by"),
        (i.head(3), "head", "list.head"),
        (i.tail(3).sum(), "head, tail or slice below sum", "list.head"),
        (i.get(0), "get", "first"),
        (i.arg_min(), "arg_min", "min_by"),
        (i.arg_max(), "arg_max", "max_by"),
        (i.unique(), "unique", "n_unique"),
        (i.unique().implode(), "unique below implode", "n_unique"),
        (i.unique_counts(), "unique_counts", "pl.len()"),
        (i.value_counts(), "value_counts", "pl.len()"),
        (i.approx_n_unique(), "approx_n_unique", "n_unique"),
        (i.approx_quantile(0.5), "approx_quantile", "quantile"),
        (i.top_k(2), "top_k", "list.head"),
        (i.item(), "item", "first"),
        (i.reverse(), "reverse", "list.reverse"),
        (i.sum().over("s"), "over", "group_by of its own"),
        (i.filter(g), "filter", "before an aggregate"),
        (pl.len().filter(g), "filter", "predicate.sum()"),
        (pl.col("l").explode(), "explode", "implode"),
        (i.shift().sum(), "shift below sum", "implode"),
        (i.sum().shift(), "shift", "implode"),
        ((i - i.mean()).sum(), "mean over the whole column below sum", "implode"),
        (i.filter(i > i.mean()).sum(), "mean over the whole column below sum", "implode"),
        (i.sample(2).sum(), "sample below sum", "hash"),
        (i.rolling_mean(2).max(), "rolling_mean below max", "implode"),
        ((i.filter(g) + u).sum(), "operands with different rows", "filter the whole expression"),
        (i.filter(g).min_by("u"), "operands with different rows", "filter the whole expression"),
        (i.quantile(u.max()), "max over the whole column below quantile", "implode"),
        (i.quantile([0.1, 0.9]), "a list of quantiles", "one .quantile(q)"),
        (i.map_elements(lambda v: v, return_dtype=pl.Int64).sum(), "calls a Python function", "map_batches"),
        (pl.col("nope").sum(), 'unable to find column "nope"', ""),
        (s.sum(), "`sum` operation not supported", ""),
        (t.sum(), "sum takes numbers", "cast the column"),
        (i.cast(pl.Int128).sum(), "up to 64 bits", "cast the column"),
        (i.cast(pl.Int128).first(), "has no place in the state", "cast the column"),
        (pl.struct("i", "u").struct.field("*").first(), "stands for 2 columns", "one expression for each column"),
        (pl.col("i", "j").sum() + pl.col("i", "j", "u").sum(), "", ""),
    ],
)  # fmt: skip
def test_aggregate_that_cannot_be_kept_is_refused_with_what_to_write(agg: pl.Expr, words: str, way_out: str) -> None:
    with pytest.raises(PlanError) as refused:
        split_aggregates([agg], keys=["k"], schema=SCHEMA)
    assert str(refused.value).startswith("agg")
    assert words in str(refused.value)
    assert way_out in str(refused.value)


def test_two_results_of_one_name_are_refused() -> None:
    with pytest.raises(PlanError, match="i"):
        split_aggregates([i.sum(), i.max()], keys=["k"], schema=SCHEMA)


def test_unknown_key_is_refused() -> None:
    with pytest.raises(PlanError, match=r"unknown columns \['nope'\] in group_by"):
        split_aggregates([pl.len()], keys=["nope"], schema=SCHEMA)


def test_key_named_as_what_is_kept_is_refused() -> None:
    with pytest.raises(PlanError, match="rename the key"):
        split_aggregates([pl.len()], keys=["len()"], schema=pl.Schema({"len()": pl.Int64}))
