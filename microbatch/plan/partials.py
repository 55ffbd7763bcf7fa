"""What is kept of an aggregate between batches: its parts, and how they are reduced, merged and paired.

A *part* is a column of the state. ``reduce`` makes it from input rows, ``merge`` makes one of several (older ones first) in a
``group_by``, ``pair`` makes one of two that stand side by side, where the older one is null if there is none. Parts are named by what they
hold, so that two aggregates over the same input share theirs, and the order of a query's aggregates does not matter to its state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from microbatch.errors import PlanError
from microbatch.plan.trees import Tree, expression_of

OLD = "__old"

# Int128 has no Arrow type, Null and Object no values that could come back.
NOT_KEPT = (pl.Int128, pl.UInt128, pl.Null, pl.Object)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One column of partial aggregates, kept as ``dtype``; ``value`` is what it holds, in the dtype that means.

    ``reduce``, ``merge`` and ``pair`` may give more than ``fits`` can hold: Int128 for Int64, or null for a Decimal past 38 digits.
    ``of`` is the aggregate as the user wrote it. ``newest``: pieces that are not one wholly older than the other stand by their last rows,
    else by their first ones. ``by_arrival``: the value depends on the order of the rows.
    """

    name: str
    of: str
    dtype: pl.DataType
    reduce: pl.Expr
    merge: pl.Expr
    pair: pl.Expr
    fits: pl.DataType | None
    value: pl.Expr
    newest: bool = False
    by_arrival: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """An aggregate as the user wrote it.

    ``rows`` is its input, ``by`` the second one of ``min_by``; ``label`` and ``by_label`` name them in parts. ``where`` is empty if it is
    over all rows of the group, else it names the filter. ``dtype`` is Polars' own for the result.
    """

    tree: Tree
    rows: pl.Expr
    label: str
    where: str
    dtype: pl.DataType
    input_dtype: pl.DataType
    by: pl.Expr | None
    by_label: str
    by_dtype: pl.DataType
    options: Any

    @property
    def whole(self) -> pl.Expr:
        """The aggregate itself."""
        return expression_of(self.tree)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """An aggregate as its parts and what to make of them."""

    parts: tuple[Part, ...]
    finish: pl.Expr


def make_part(
    a: Asked,
    name: str,
    dtype: pl.DataType,
    *,
    reduce: pl.Expr,
    merge: Callable[[pl.Expr], pl.Expr],
    pair: Callable[[pl.Expr, pl.Expr], pl.Expr],
    fits: pl.DataType | None = None,
    newest: bool = False,
    by_arrival: bool = False,
) -> Part:
    """Return a part with values of ``dtype``: ``merge`` is told of the column, ``pair`` of the older and the newer one."""
    stored = kept(dtype, name)

    def as_is(e: pl.Expr) -> pl.Expr:
        return e if stored == dtype else e.cast(dtype)

    def keep(e: pl.Expr) -> pl.Expr:
        return e if stored == dtype else e.cast(stored)

    newer, older = as_is(pl.col(name)), as_is(pl.col(name + OLD))
    return Part(
        name=name,
        of=str(a.whole),
        dtype=stored,
        reduce=keep(reduce),
        merge=keep(merge(newer)),
        pair=keep(pair(older, newer)),
        fits=fits,
        value=newer,
        newest=newest,
        by_arrival=by_arrival,
    )


def kept(dtype: pl.DataType, name: str) -> pl.DataType:
    """Return the dtype in which values are kept: categories as text, for their codes mean something in one process only."""
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(kept(_instance(dtype.inner), name))
    if isinstance(dtype, pl.Array):
        return pl.Array(kept(_instance(dtype.inner), name), dtype.size)
    if isinstance(dtype, pl.Struct):
        return pl.Struct({f.name: kept(_instance(f.dtype), name) for f in dtype.fields})
    if isinstance(dtype, NOT_KEPT):
        msg = f"agg: {name} would be kept as {dtype}, which has no place in the state; cast the column, to pl.Int64 or pl.Decimal(38, 0)"
        raise PlanError(msg)
    return dtype


def _instance(dtype: Any) -> pl.DataType:
    made: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return made


def adding(a: Asked, name: str, reduce: pl.Expr, dtype: pl.DataType, *, fits: pl.DataType | None = None) -> Part:
    """Return a part whose pieces are added up."""
    return make_part(a, name, dtype, reduce=reduce, merge=lambda v: v.sum(), pair=lambda old, new: old.fill_null(0) + new, fits=fits)
