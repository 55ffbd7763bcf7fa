"""A case's aggregates as Polars expressions with Spark's meaning: nulls are skipped, the sum of nothing is null."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from tests.conformance.expressions import Scope, translate
from tests.conformance.report import NotSupportedError


def aggregate(name: str, call: Sequence[Any], scope: Scope) -> pl.Expr:
    """Return ``[fn, expr?]`` as an aggregate called ``name``."""
    function, *arguments = call
    if function == "count":
        return _count(arguments, scope).alias(name)
    if function not in _FUNCTIONS:
        msg = f"aggregate {function}"
        raise NotSupportedError(msg)
    return _FUNCTIONS[function](translate(arguments[0], scope)).alias(name)


def afterwards(name: str, call: Sequence[Any]) -> pl.Expr | None:
    """Return what is left to do to the aggregate's column, row by row, or None."""
    return pl.col(name).list.unique(maintain_order=True) if call[0] == "collect_set" else None


def _count(arguments: list[Any], scope: Scope) -> pl.Expr:
    if not arguments or arguments[0] in ("*", 1):
        return pl.len()
    return translate(arguments[0], scope).count()


def _sum(value: pl.Expr) -> pl.Expr:
    return pl.when(value.count() > 0).then(value.sum())


_FUNCTIONS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "sum": _sum,
    "avg": lambda v: v.mean(),
    "min": lambda v: v.min(),
    "max": lambda v: v.max(),
    "first": lambda v: v.first(),
    "last": lambda v: v.last(),
    "collect_list": lambda v: v.drop_nulls().implode(),
    "collect_set": lambda v: v.drop_nulls().implode(),  # made distinct by ``afterwards``
    "median": lambda v: v.median(),
    "stddev": lambda v: v.std(),
    "approx_count_distinct": lambda v: v.drop_nulls().n_unique(),  # the exact count is an approximation too
    "count_distinct": lambda v: v.drop_nulls().n_unique(),
}
