"""Every aggregate on every dtype: taken where Polars takes it and it can be kept, and then with Polars' own dtype."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from operator import methodcaller

import polars as pl
import pytest

from microbatch.errors import PlanError
from microbatch.plan.aggregates import split_aggregates
from tests.plan.pieces import assert_same, in_pieces, plainly

VALUES: dict[str, pl.Series] = {
    "Int8": pl.Series([1, None, 3], dtype=pl.Int8),
    "Int64": pl.Series([1, None, 3], dtype=pl.Int64),
    "UInt64": pl.Series([1, None, 3], dtype=pl.UInt64),
    "Int128": pl.Series([1, None, 3], dtype=pl.Int128),
    "Float16": pl.Series([1.5, None, 3.0], dtype=pl.Float16),
    "Float32": pl.Series([1.5, None, 3.0], dtype=pl.Float32),
    "Float64": pl.Series([1.5, None, 3.0]),
    "Decimal": pl.Series([Decimal("1.5"), None, Decimal(3)], dtype=pl.Decimal(10, 2)),
    "Boolean": pl.Series([True, None, False]),
    "String": pl.Series(["x", None, "y"]),
    "Binary": pl.Series([b"x", None, b"y"]),
    "Datetime": pl.Series([datetime(2020, 1, 1), None, datetime(2021, 1, 1)], dtype=pl.Datetime("us")),
    "zoned": pl.Series([datetime(2020, 1, 1), None, datetime(2021, 1, 1)], dtype=pl.Datetime("ms", "Europe/Paris")),
    "Date": pl.Series([date(2020, 1, 1), None, date(2021, 1, 1)]),
    "Time": pl.Series([time(1), None, time(2)]),
    "Duration": pl.Series([timedelta(1), None, timedelta(2)]),
    "Categorical": pl.Series(["x", None, "a"], dtype=pl.Categorical),
    "Enum": pl.Series(["x", None, "y"], dtype=pl.Enum(["y", "x"])),
    "Struct": pl.Series([{"a": 1}, None, {"a": 2}]),
    "List": pl.Series([[1], None, [2, 3]]),
    "categories in List": pl.Series([["x"], None, []], dtype=pl.List(pl.Enum(["y", "x"]))),
    "Array": pl.Series([[1, 2], None, [2, 3]], dtype=pl.Array(pl.Int64, 2)),
    "Null": pl.Series([None, None, None]),
}
TYPED = pl.DataFrame({"k": [1, 1, 2], "o": [3, 2, None], **VALUES})
ON_ANY: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    **{
        name: methodcaller(name)
        for name in (
            "len",
            "count",
            "sum",
            "mean",
            "min",
            "max",
            "nan_max",
            "first",
            "last",
            "var",
            "std",
            "n_unique",
            "implode",
            "any",
            "all",
            "product",
            "null_count",
            "median",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
            "has_nulls",
        )
    },
    "first non null": lambda c: c.first(ignore_nulls=True),
    "last non null": lambda c: c.last(ignore_nulls=True),
    "min_by": lambda c: c.min_by("o"),
    "max_by": lambda c: c.max_by("o"),
    "by it": lambda c: pl.col("o").min_by(c),
    "quantile": lambda c: c.quantile(0.5),
}
# Where Polars gives an answer that cannot be kept, or one that it only gives for some data.
WIDE = {(aggregate, "Int128") for aggregate in ON_ANY} - {
    (aggregate, "Int128") for aggregate in ("len", "count", "null_count", "has_nulls")
}
EMPTY = {(aggregate, "Null") for aggregate in ON_ANY} - {(aggregate, "Null") for aggregate in ("len", "count", "null_count", "has_nulls")}
UNSTEADY = {
    ("product", "Decimal"),  # rounded at each step
    ("median", "Boolean"),
    *(("by it", dtype) for dtype in ("Struct", "List", "Array", "categories in List")),
}


@pytest.mark.parametrize("keys", [["k"], []], ids=["grouped", "whole"])
@pytest.mark.parametrize("aggregate", ON_ANY)
def test_aggregate_takes_the_dtypes_polars_takes(aggregate: str, keys: list[str]) -> None:
    for dtype in VALUES:
        agg = ON_ANY[aggregate](pl.col(dtype)).alias("out")
        try:
            plainly([agg], TYPED, [])  # a group_by gives null where there is nothing to do, whatever the dtype
            plain = plainly([agg], TYPED, keys)
        except pl.exceptions.PolarsError:
            with pytest.raises(PlanError):
                split_aggregates([agg], keys=keys, schema=TYPED.schema)
            continue
        if {(aggregate, dtype)} & (WIDE | EMPTY | UNSTEADY):
            with pytest.raises(PlanError, match="cast the column"):
                split_aggregates([agg], keys=keys, schema=TYPED.schema)
            continue
        split = split_aggregates([agg], keys=keys, schema=TYPED.schema)
        rng = random.Random(dtype)
        assert_same(in_pieces(split, TYPED, keys, rng), plain, keys)
        in_pieces(split, TYPED.head(0), keys, rng)
        wider = (
            pl.Int64 if aggregate in ("sum", "product") and plain.schema["out"].is_integer() and dtype != "Boolean" else plain.schema["out"]
        )
        assert split.output_schema["out"] == wider
        assert not {pl.Int128, pl.Categorical, pl.Enum} & {type(d) for d in split.state_schema.dtypes()}


def test_least_category_is_that_of_the_declared_order_and_kept_as_text() -> None:
    split = split_aggregates([pl.col("Enum").min()], keys=[], schema=TYPED.schema)
    assert split.state_schema == pl.Schema({"min(Enum)": pl.String})
    assert in_pieces(split, TYPED, [], random.Random(1)).item() == "y"
