"""The aggregates that can be kept up to date, one row each, and what to write for those that cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from microbatch.plan import aggregate_numbers as numbers
from microbatch.plan import aggregate_values as values
from microbatch.plan.partials import NOT_KEPT, Asked, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How an aggregate is split, and the inputs it takes: a test of the dtype, and that in words."""

    split: Callable[[Asked], Split]
    takes: Callable[[pl.DataType], bool]
    what: str


def _anything(_: pl.DataType) -> bool:
    return True


def _number(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() and not isinstance(dtype, NOT_KEPT)


def _number_or_flag(dtype: pl.DataType) -> bool:
    return _number(dtype) or dtype == pl.Boolean


def _summable(dtype: pl.DataType) -> bool:
    return _number_or_flag(dtype) or isinstance(dtype, pl.Duration)


def _measurable(dtype: pl.DataType) -> bool:
    return _number_or_flag(dtype) or dtype.is_temporal()


def _ranked(dtype: pl.DataType) -> bool:
    return _number(dtype) or dtype.is_temporal()


def ordered(dtype: pl.DataType) -> bool:
    """Return True for dtypes whose values have an order that ``min_by`` can look at."""
    return _measurable(dtype) or isinstance(dtype, (pl.String, pl.Binary, pl.Categorical, pl.Enum))


def _factor(dtype: pl.DataType) -> bool:
    # A product of decimals is rounded at each step, so it would depend on where the stream is cut.
    return _number_or_flag(dtype) and not dtype.is_decimal()


def _has_bits(dtype: pl.DataType) -> bool:
    return (dtype.is_integer() and _number(dtype)) or dtype == pl.Boolean


SPLITS: dict[str, Row] = {
    "Len": Row(split=numbers.count_of(numbers.rows_in), takes=_anything, what="anything"),
    "Count": Row(split=numbers.len_or_count, takes=_anything, what="anything"),
    "NullCount": Row(split=numbers.count_of(numbers.null_count), takes=_anything, what="anything"),
    "Boolean.HasNulls": Row(split=values.has_nulls, takes=_anything, what="anything"),
    "Sum": Row(split=numbers.sum_of, takes=_summable, what="numbers up to 64 bits, Boolean or Duration"),
    "Mean": Row(split=numbers.mean_of, takes=_measurable, what="numbers up to 64 bits, Boolean or times"),
    "Min": Row(split=values.extreme("min"), takes=ordered, what="numbers up to 64 bits, Boolean, times, text or categories"),
    "Max": Row(split=values.extreme("max"), takes=ordered, what="numbers up to 64 bits, Boolean, times, text or categories"),
    "MinBy": Row(split=values.value_by("min"), takes=_anything, what="anything"),
    "MaxBy": Row(split=values.value_by("max"), takes=_anything, what="anything"),
    "First": Row(split=values.edge("first"), takes=_anything, what="anything"),
    "Last": Row(split=values.edge("last"), takes=_anything, what="anything"),
    "FirstNonNull": Row(split=values.edge_non_null("first"), takes=_anything, what="anything"),
    "LastNonNull": Row(split=values.edge_non_null("last"), takes=_anything, what="anything"),
    "Var": Row(split=numbers.variance_or_deviation, takes=_number_or_flag, what="numbers up to 64 bits or Boolean"),
    "Std": Row(split=numbers.variance_or_deviation, takes=_number_or_flag, what="numbers up to 64 bits or Boolean"),
    "NUnique": Row(split=values.n_unique, takes=_anything, what="anything"),
    "Implode": Row(split=values.implode, takes=_anything, what="anything"),
    "Median": Row(split=values.quantile, takes=_ranked, what="numbers up to 64 bits or times"),
    "Quantile": Row(split=values.quantile, takes=_ranked, what="numbers up to 64 bits or times"),
    "Boolean.Any": Row(split=values.any_or_all("any"), takes=_number_or_flag, what="Boolean or numbers up to 64 bits"),
    "Boolean.All": Row(split=values.any_or_all("all"), takes=_number_or_flag, what="Boolean or numbers up to 64 bits"),
    "Product": Row(split=numbers.product_of, takes=_factor, what="integers, floats or Boolean"),
    "Bitwise.And": Row(split=values.bits("and", lambda old, new: old & new), takes=_has_bits, what="integers or Boolean"),
    "Bitwise.Or": Row(split=values.bits("or", lambda old, new: old | new), takes=_has_bits, what="integers or Boolean"),
    "Bitwise.Xor": Row(split=values.bits("xor", lambda old, new: old ^ new), takes=_has_bits, what="integers or Boolean"),
}
"""How each aggregate is split, by the name of its node."""

INSTEAD = {
    "Mode": ".implode(), and .list.eval(pl.element().mode()) where the result is read",
    "ApproxNUnique": ".n_unique(), which is exact",
    "ApproxQuantile": ".quantile(q), which is exact",
    "Unique": ".n_unique() for their number, or .implode().list.unique() for the values",
    "UniqueCounts": "a group_by with the column as one more key, and pl.len()",
    "ValueCounts": "a group_by with the column as one more key, and pl.len()",
    "Correlation": "sums of x, y, x*y, x*x and y*y, and the formula over them",
    "ArgMin": ".min(), or another_column.min_by(column)",
    "ArgMax": ".max(), or another_column.max_by(column)",
    "ArgSort": ".implode().list.sort()",
    "Sort": ".implode().list.sort(), or .min() and .max()",
    "SortBy": ".min_by(column) or .max_by(column)",
    "TopK": ".max() or .min(), or .implode().list.sort(descending=True).list.head(k)",
    "TopKBy": ".max_by(column) or .min_by(column)",
    "Slice": ".first() or .last(), or .implode().list.head(n)",
    "Gather": ".first() or .last(), or .implode().list.get(n)",
    "Item": ".first()",
    "Skew": "the sums of x, x**2 and x**3, and the formula over them",
    "Kurtosis": "the sums of x up to x**4, and the formula over them",
    "Entropy": ".implode(), and compute it where the result is read",
    "Over": "a group_by of its own",
    "Filter": ".filter(predicate) before an aggregate: pl.col(x).filter(predicate).sum(); to count rows predicate.sum()",
    "Explode": ".implode() for the list of values",
    "Reverse": ".implode().list.reverse()",
    "CumSum": ".sum(), which is the running total in update mode",
    "CumCount": ".count(), which is the running count in update mode",
    "CumMax": ".max(), which is the running maximum in update mode",
    "CumMin": ".min(), which is the running minimum in update mode",
}
"""What to write for an aggregate that cannot be kept up to date, by the name of its node."""
