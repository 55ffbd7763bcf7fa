"""Aggregates in pieces: against plain Polars over all rows, for every aggregate, every cut and every order of putting pieces together."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Literal

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

from microbatch.errors import DataError
from microbatch.plan.aggregates import split_aggregates
from tests.plan.pieces import SCHEMA, assert_same, frame_of, in_pieces, merged, paired, pieces_of, plainly, reduced, rows_of

i, j, f, h, s, g, t, u = (pl.col(name) for name in "ijfhsgtu")

AGGREGATES: dict[str, pl.Expr] = {
    "len": pl.len(),
    "column len": i.len(),
    "count": i.count(),
    "null_count": i.null_count(),
    "has_nulls": i.has_nulls(),
    "sum of Int64": i.sum(),
    "sum of Int16": j.sum(),
    "sum of UInt8": u.sum(),
    "sum of floats": f.fill_nan(0.0).sum(),
    "sum of floats with NaN": f.sum(),
    "sum of Float32": h.sum(),
    "sum of flags": g.sum(),
    "sum of predicate": (i > 1).sum(),
    "sum of product": (i * 2 + u).sum(),
    "mean of Int64": i.mean(),
    "mean of Int16": j.mean(),
    "mean of floats": f.fill_nan(0.0).mean(),
    "mean of Float32": h.mean(),
    "mean of flags": g.mean(),
    "mean of times": t.mean(),
    "min": i.min(),
    "max": i.max(),
    "min of floats": f.min(),
    "max of floats": f.max(),
    "nan_min": f.nan_min(),
    "nan_max": f.nan_max(),
    "min of text": s.min(),
    "max of times": t.max(),
    "min of flags": g.min(),
    "first": i.first(),
    "last": s.last(),
    "first of lists": pl.col("l").first(),
    "first non null": i.first(ignore_nulls=True),
    "last non null": s.last(ignore_nulls=True),
    "var": i.var(),
    "var of floats": f.fill_nan(1.0).var(ddof=0),
    "var with NaN": f.var(),
    "std": j.std(ddof=2),
    "std of Float32": h.std(),
    "n_unique": s.n_unique(),
    "n_unique of floats": f.n_unique(),
    "n_unique of structs": pl.struct("s", "g").n_unique(),
    "implode": i.implode(),
    "implode of lists": pl.col("l").implode(),
    "implode sorted": s.implode().list.sort(),
    "any": g.any(),
    "any, Kleene": g.any(ignore_nulls=False),
    "all": g.all(),
    "all, Kleene": g.all(ignore_nulls=False),
    "product": j.clip(-1, 2).product(),
    "product of floats": h.product(),
    "bitwise_and": i.bitwise_and(),
    "bitwise_or": u.bitwise_or(),
    "bitwise_xor": g.bitwise_xor(),
    "min_by": s.min_by("u"),
    "max_by": pl.col("l").max_by("f"),
    "min_by of expression": i.min_by(pl.col("u") % 3),
    "min_by filtered": s.filter(g).min_by(i.filter(g)),
    "median": i.median(),
    "median of times": t.median(),
    "quantile": f.quantile(0.3),
    "quantile, linear": j.quantile(0.9, "linear"),
    "filtered sum": i.filter(u > 2).sum(),
    "filtered mean": f.fill_nan(0.0).filter(s == "a").mean(),
    "filtered first": i.filter(u > 3).first(),
    "filtered last": s.filter(u > 3).last(),
    "filtered len": i.filter(u > 3).len(),
    "filtered count": i.filter(u > 3).count(),
    "filtered var": i.filter(u > 2).var(),
    "filtered n_unique": s.filter(u > 3).n_unique(),
    "filtered implode": s.filter(u > 3).implode(),
    "filtered all": g.filter(u > 3).all(ignore_nulls=False),
    "filtered max": t.filter(u > 4).max(),
    "filtered by two": (i.filter(g) * u.filter(g)).sum(),
    "sum without nulls": i.drop_nulls().sum(),
    "n_unique without nulls": s.drop_nulls().n_unique(),
    "exploded": pl.col("l").explode().sum(),
    "exploded last": pl.col("l").explode().last(),
    "ratio": i.sum() / pl.len(),
    "range": (i.max() - i.min()).cast(pl.Float64),
    "when": pl.when(i.count() > 0).then(i.sum()).otherwise(-1),
    "struct": pl.struct(i.min(), u.max().alias("most"), n=pl.len()),
    "concat_str": pl.concat_str(s.min(), s.max(), separator="-"),
    "constant": pl.lit(7),
    "constant aggregate": pl.lit(pl.Series([1, 2])).max() + i.max(),
    "nested alias": (i.sum().alias("total") + 1).alias("more"),
    "key": pl.col("k").first().alias("key"),
}


@pytest.mark.parametrize("keys", [["k"], []], ids=["grouped", "whole"])
@pytest.mark.parametrize("name", AGGREGATES)
def test_aggregate_does_not_depend_on_batches(name: str, keys: list[str]) -> None:
    split = split_aggregates([AGGREGATES[name]], keys=keys, schema=SCHEMA)
    rng = random.Random(f"{name} {keys}")
    for n_rows in (0, 1, 40):
        rows = rows_of(rng, n_rows)
        plain = plainly([AGGREGATES[name]], rows, keys)
        result = in_pieces(split, rows, keys, rng)
        assert result.schema == split.output_schema
        assert_same(result, plain, keys)
        assert_same(split.batch(rows.lazy(), keys).collect(), plain, keys)
        assert split.batch(rows.lazy(), keys).collect_schema() == split.output_schema


@pytest.mark.parametrize("seed", range(25))
def test_several_aggregates_do_not_depend_on_batches(seed: int) -> None:
    rng = random.Random(seed)
    aggs = [AGGREGATES[name].alias(name) for name in rng.sample(sorted(AGGREGATES), 12)]
    keys = rng.choice([["k"], ["k", "u"], []])
    split = split_aggregates(aggs, keys=keys, schema=SCHEMA)
    rows = rows_of(rng, rng.choice([0, 3, 100]))
    result, plain = in_pieces(split, rows, keys, rng), plainly(aggs, rows, keys)
    for column in [c for c in result.columns if c not in keys]:
        assert_same(result.select(*keys, column), plain.select(*keys, column), keys)


# --- values by hand


def test_no_rows_give_the_identity_of_each_aggregate() -> None:
    aggs = [pl.len(), i.sum(), f.sum().alias("fs"), i.mean().alias("m"), i.min().alias("lo"), i.var().alias("v"), g.all(), s.n_unique()]
    split = split_aggregates([*aggs, i.implode().alias("list")], keys=[], schema=SCHEMA)
    assert pieces_of(split, [pl.DataFrame(schema=SCHEMA)]).row(0) == (0, 0, 0.0, None, None, None, True, 0, [])


def test_batch_in_which_the_filter_leaves_nothing_has_no_say_in_first_and_last() -> None:
    split = split_aggregates([i.filter(g).first().alias("first"), i.filter(g).last().alias("last")], keys=[], schema=SCHEMA)
    batches = [
        frame_of({"i": [1], "g": [False]}),
        frame_of({"i": [None, 2], "g": [True, True]}),
        frame_of({"i": [3, None], "g": [True, True]}),
        frame_of({"i": [9], "g": [None]}),
    ]
    assert pieces_of(split, batches).row(0) == (None, None)
    assert pieces_of(split, batches[2:]).row(0) == (3, None)


def test_of_equal_values_min_by_and_max_by_keep_the_first_seen() -> None:
    split = split_aggregates([s.min_by("u").alias("least"), s.max_by("u").alias("most")], keys=[], schema=SCHEMA)
    batches = [frame_of({"s": ["a", "b"], "u": [4, 4]}), frame_of({"s": ["c", "d"], "u": [4, 4]})]
    assert pieces_of(split, batches).row(0) == ("a", "a")


def test_n_unique_counts_null_as_a_value() -> None:
    split = split_aggregates([s.n_unique()], keys=[], schema=SCHEMA)
    assert pieces_of(split, [frame_of({"s": ["a", None]}), frame_of({"s": [None, "a", "b"]})]).item() == 3


def test_variance_of_far_values_keeps_its_digits() -> None:
    split = split_aggregates([f.var(ddof=0)], keys=[], schema=SCHEMA)
    batches = [frame_of({"f": [1e9 + 1, 1e9 + 2]}), frame_of({"f": [1e9 + 3]}), frame_of({"f": [1e9 + 4]})]
    assert pieces_of(split, batches).item() == pytest.approx(1.25, rel=1e-9)


def test_mean_of_times_does_not_drift_over_many_batches() -> None:
    at = datetime(2024, 1, 1, microsecond=1)
    split = split_aggregates([t.mean()], keys=[], schema=SCHEMA)
    piece = reduced(split, frame_of({"t": [at] * 1000}), [], "in-memory")
    result = piece
    for _ in range(200):
        result = paired(split, result, piece, [])
    assert split.finish(result, []).item() == at


# --- limits

LARGEST = 2**63 - 1


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("dtype", [pl.Int64, pl.UInt64])
def test_integer_sum_past_64_bits_is_an_error_that_names_the_group(
    dtype: type[pl.Int64 | pl.UInt64], engine: Literal["in-memory", "streaming"]
) -> None:
    rows = pl.DataFrame({"k": ["x", "y", "y"], "v": [1, LARGEST, 1]}, schema={"k": pl.String, "v": dtype})
    split = split_aggregates([pl.col("v").sum()], keys=["k"], schema=rows.schema)
    with pytest.raises(DataError, match=r'col\("v"\)\.sum\(\) of group \{\'k\': \'y\'\} does not fit Int64'):
        reduced(split, rows, ["k"], engine)
    with pytest.raises(pl.exceptions.InvalidOperationError):
        split.batch(rows.lazy(), ["k"]).collect()


@pytest.mark.parametrize("join", [merged, paired])
def test_sum_that_leaves_64_bits_only_when_pieces_meet_is_an_error(join: Callable[..., pl.DataFrame]) -> None:
    rows = pl.DataFrame({"v": [LARGEST]})
    split = split_aggregates([pl.col("v").sum()], keys=[], schema=rows.schema)
    piece = reduced(split, rows, [], "in-memory")
    with pytest.raises(DataError, match="of the one group does not fit Int64"):
        join(split, piece, piece, [])


def test_sum_may_pass_64_bits_on_the_way() -> None:
    rows = pl.DataFrame({"v": [LARGEST, LARGEST, -LARGEST]})
    split = split_aggregates([pl.col("v").sum()], keys=[], schema=rows.schema)
    assert reduced(split, rows, [], "in-memory").item() == LARGEST


@pytest.mark.parametrize(
    ("values", "product"), [([2**40, 2**22], 2**62), ([2**40, 2**40], None), ([2**62] * 5, None), ([0, *[2**62] * 20], 0)]
)
def test_integer_product_is_exact_or_an_error(values: list[int], product: int | None) -> None:
    rows = pl.DataFrame({"v": values})
    split = split_aggregates([pl.col("v").product()], keys=[], schema=rows.schema)
    if product is None:
        with pytest.raises(DataError, match="does not fit Int64"):
            reduced(split, rows, [], "in-memory")
    else:
        assert reduced(split, rows, [], "in-memory").item() == product


@pytest.mark.parametrize("n_large", [1, 2])
def test_decimal_sum_past_38_digits_is_an_error(n_large: int) -> None:
    rows = pl.DataFrame({"k": ["x"] * n_large, "v": [Decimal(6) * 10**35] * n_large}, schema={"k": pl.String, "v": pl.Decimal(38, 2)})
    split = split_aggregates([pl.col("v").sum()], keys=["k"], schema=rows.schema)
    if n_large == 2:
        with pytest.raises(DataError, match="does not fit Decimal"):
            reduced(split, rows, ["k"], "in-memory")
        return
    piece = reduced(split, rows, ["k"], "in-memory")
    for join in (merged, paired):
        with pytest.raises(DataError, match="does not fit Decimal"):
            join(split, piece, piece, ["k"])


def test_count_past_32_bits_is_an_error() -> None:
    split = split_aggregates([pl.len()], keys=[], schema=SCHEMA)
    most = pl.DataFrame({"len()": [2**32 - 1]})
    assert split.finish(split.checked(most), []).item() == 2**32 - 1
    with pytest.raises(DataError, match="4,294,967,295"):
        paired(split, most, pl.DataFrame({"len()": [1]}), [])


# --- what is kept


def test_aggregates_over_the_same_input_share_what_is_kept() -> None:
    aggs = [j.mean().alias("mean"), j.sum(), j.count().alias("n"), j.var().alias("var"), j.std().alias("std"), (j.sum() * 2).alias("twice")]
    split = split_aggregates(aggs, keys=["k"], schema=SCHEMA)
    assert list(split.state_schema) == ["sum(j)", "count(j)", "mean(j)", "m2(j)"]


def test_order_of_aggregates_does_not_matter_to_the_names_of_what_is_kept() -> None:
    aggs = [(i * 2).sum().alias("a"), (i * 3).sum().alias("b"), i.filter(g).last()]
    names = [set(split_aggregates(order, keys=["k"], schema=SCHEMA).state_schema) for order in (aggs, aggs[::-1])]
    assert names[0] == names[1]
    assert len(names[0]) == 4


def test_fingerprint_is_json_and_tells_queries_apart() -> None:
    prints = [json.dumps(split_aggregates([agg], keys=["k"], schema=SCHEMA).fingerprint) for agg in (i.sum(), i.sum().alias("x"), i.max())]
    assert len(set(prints)) == 3
    assert prints[0] == json.dumps(split_aggregates([i.sum()], keys=["k"], schema=SCHEMA).fingerprint)


def test_without_aggregates_the_distinct_keys_are_kept() -> None:
    split = split_aggregates([], keys=["k"], schema=SCHEMA)
    rows = rows_of(random.Random(3), 30)
    assert_frame_equal(in_pieces(split, rows, ["k"], random.Random(3)).sort("k"), rows.select("k").unique().sort("k"))


def test_constants_alone_without_keys_give_one_row() -> None:
    split = split_aggregates([pl.lit(7).alias("seven")], keys=[], schema=SCHEMA)
    assert in_pieces(split, rows_of(random.Random(1), 5), [], random.Random(1)).rows() == [(7,)]


def test_extra_aggregates_come_in_the_same_pass() -> None:
    split = split_aggregates([i.max()], keys=["k"], schema=SCHEMA)
    assert split.reduce(pl.LazyFrame(schema=SCHEMA), ["k"], pl.len().alias("__n")).collect_schema().names() == ["k", "max(i)", "__n"]


# --- names


@pytest.mark.parametrize(
    "agg",
    [
        pl.all().exclude("l").max(),
        pl.col("i", "u").sum(),
        pl.col("^[iju]$").mean(),
        pl.col(pl.String).first(),
        cs.numeric().max(),
        cs.integer().sum() / cs.by_name("u").sum(),
        (cs.integer() + cs.integer()).sum(),
        pl.col("i", "u").sum() + pl.col("j", "u").max(),
        pl.all().exclude("l").n_unique(),
        pl.nth(1).sum(),
        pl.sum_horizontal(cs.integer()).sum(),
        pl.struct(cs.integer().max()),
        pl.any_horizontal(cs.integer() > 1).any(),
        cs.integer().filter(s == "a").sum(),
        cs.integer().sum().name.suffix("_total"),
        cs.integer().max().name.prefix("max_"),
        i.sum().alias("x").name.keep(),
        i.max().name.map(str.upper),
        i.max().alias("Len"),
        pl.struct(Sum=i.max()).struct.field("Sum"),
    ],
)
def test_columns_are_expanded_and_named_as_polars_does(agg: pl.Expr) -> None:
    rows = rows_of(random.Random(5), 40)
    split = split_aggregates([agg], keys=["k"], schema=SCHEMA)
    plain = plainly([agg], rows, ["k"])
    assert split.output_schema.names() == plain.columns
    assert_same(in_pieces(split, rows, ["k"], random.Random(5)), plain, ["k"])
