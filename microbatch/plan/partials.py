"""One row per aggregate: what is kept of it between batches, how two pieces of it become one, and what it is in the end.

A *part* is a column of the state. ``reduce`` makes it from input rows, ``merge`` makes one of several (older ones first) in a ``group_by``,
``pair`` makes one of two that stand side by side, where the older one is null if there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from microbatch.errors import PlanError
from microbatch.plan.trees import Tree, expression_of

OLD = "__old"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One column of partial aggregates; ``wide`` if it is reduced in 128 bits and must fit 64 afterwards."""

    name: str
    reduce: pl.Expr
    merge: pl.Expr
    pair: pl.Expr
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """An aggregate as its parts and what to make of them."""

    parts: tuple[Part, ...]
    finish: pl.Expr


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """An aggregate as the user wrote it: ``rows`` its input, ``label`` what names its parts, ``dtype`` and ``input_dtype`` from Polars."""

    tree: Tree
    rows: pl.Expr
    by: pl.Expr | None
    label: str
    dtype: pl.DataType
    input_dtype: pl.DataType
    options: Any

    @property
    def whole(self) -> pl.Expr:
        """The aggregate itself."""
        return expression_of(self.tree)


def new(name: str) -> pl.Expr:
    """Return the newer part."""
    return pl.col(name)


def old(name: str) -> pl.Expr:
    """Return the older part."""
    return pl.col(name + OLD)


def _adding(name: str, reduce: pl.Expr, *, wide: bool = False) -> Part:
    return Part(
        name=name,
        reduce=reduce,
        merge=_wide(new(name), wide).sum(),
        pair=_wide(old(name), wide).fill_null(0) + _wide(new(name), wide),
        wide=wide,
    )


def _wide(part: pl.Expr, wide: bool) -> pl.Expr:
    return part.cast(pl.Int128) if wide else part


def _count(a: Asked) -> Part:
    return _adding(f"count({a.label})", a.rows.count().cast(pl.Int64))


def _length(a: Asked) -> Part:
    return _adding(f"len({a.label})", a.rows.len().cast(pl.Int64))


def _len(a: Asked) -> Split:
    part = _adding("len()" if a.tree == "Len" else f"{'len' if a.options else 'count'}({a.label})", a.whole.cast(pl.Int64))
    return Split(parts=(part,), finish=new(part.name).cast(a.dtype))


def _null_count(a: Asked) -> Split:
    part = _adding(f"null_count({a.label})", a.whole.cast(pl.Int64))
    return Split(parts=(part,), finish=new(part.name).cast(a.dtype))


def _sum(a: Asked) -> Split:
    """Integers add up in 64 bits; narrower ones cannot pass them within a batch, 64-bit ones are added in 128 and checked."""
    name = f"sum({a.label})"
    if isinstance(a.input_dtype, (pl.Int128, pl.UInt128)):
        msg = f"sum of {a.label}, {a.input_dtype}: sums are kept in 64 bits; cast it to Int64, or to pl.Decimal(38, 0)"
        raise PlanError(msg)
    if not a.input_dtype.is_integer():
        as_count = a.input_dtype == pl.Boolean
        part = _adding(name, a.whole.cast(pl.Int64) if as_count else a.whole)
        return Split(parts=(part,), finish=new(name).cast(a.dtype) if as_count else new(name))
    narrow = isinstance(a.input_dtype, (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32))
    part = _adding(name, a.rows.cast(pl.Int64 if narrow else pl.Int128).sum(), wide=True)
    return Split(parts=(part,), finish=new(name))


def _mean(a: Asked) -> Split:
    count = _count(a)
    temporal = a.dtype.is_temporal()
    value = (a.rows.cast(a.dtype).to_physical() if temporal else a.rows).cast(pl.Float64)
    total = _adding(f"float_sum({a.label})", value.sum())
    mean = pl.when(new(count.name) > 0).then(new(total.name) / new(count.name))
    return Split(parts=(total, count), finish=mean.cast(pl.Int64).cast(a.dtype) if temporal else mean.cast(a.dtype))


def _extreme(kind: str, among: Callable[..., pl.Expr]) -> Callable[[Asked], Split]:
    def split(a: Asked) -> Split:
        name = f"{kind}({a.label})"
        pair = among(old(name), new(name)) if _comparable(a.dtype) else _pick(kind, name)
        return Split(parts=(Part(name=name, reduce=a.whole, merge=getattr(new(name), kind)(), pair=pair),), finish=new(name))

    return split


def _comparable(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype.is_temporal() or isinstance(dtype, (pl.String, pl.Boolean))


def _pick(kind: str, name: str) -> pl.Expr:
    wins = new(name) < old(name) if kind == "min" else new(name) > old(name)
    return pl.when(old(name).is_null() | wins).then(new(name)).otherwise(old(name))


def _edge(kind: str) -> Callable[[Asked], Split]:
    """First or last in the order older batches first, rows of a batch in their order; a piece without rows has no say."""

    def split(a: Asked) -> Split:
        nulls_count = not str(next(iter(a.tree["Agg"]))).endswith("NonNull")
        n = _length(a) if nulls_count else _count(a)
        name = f"{kind}({a.label})" if nulls_count else f"{kind}_non_null({a.label})"
        held = new(name).filter(new(n.name) > 0)
        older, newer = old(n.name).fill_null(0) > 0, new(n.name) > 0
        pair = pl.when(older if kind == "first" else ~newer).then(old(name)).otherwise(new(name))
        part = Part(name=name, reduce=a.whole, merge=held.first() if kind == "first" else held.last(), pair=pair)
        return Split(parts=(part, n), finish=new(name))

    return split


def _variance(a: Asked) -> Split:
    """Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances (1979)."""
    count, mean, m2 = _count(a), f"mean({a.label})", f"m2({a.label})"
    n = new(count.name)
    value = a.rows.cast(pl.Float64)
    overall = (new(mean).fill_null(0) * n).sum() / n.sum()
    n_old, mean_old = old(count.name).fill_null(0), old(mean).fill_null(0)
    shift = new(mean).fill_null(0) - mean_old
    total = n_old + n
    parts = (
        count,
        Part(name=mean, reduce=value.mean(), merge=overall, pair=pl.when(total > 0).then(mean_old + shift * n / total)),
        Part(
            name=m2,
            reduce=(value.var(ddof=0) * value.count()).fill_null(0.0),
            merge=new(m2).sum() + (n * (new(mean).fill_null(0) - overall) ** 2).sum().fill_nan(0.0),
            pair=old(m2).fill_null(0) + new(m2) + pl.when(total > 0).then(shift**2 * n_old * n / total).otherwise(0.0),
        ),
    )
    variance = pl.when(n > a.options).then(new(m2) / (n - a.options))
    return Split(parts=parts, finish=(variance.sqrt() if "Std" in a.tree["Agg"] else variance).cast(a.dtype))


def _listed(name: str, reduce: pl.Expr, merged: Callable[[pl.Expr], pl.Expr], paired: Callable[[pl.Expr], pl.Expr]) -> Part:
    every = new(name).explode(empty_as_null=False)
    both = pl.when(old(name).is_null()).then(new(name)).otherwise(paired(pl.concat_list(old(name), new(name))))
    return Part(name=name, reduce=reduce, merge=merged(every).implode(), pair=both)


def _n_unique(a: Asked) -> Split:
    name = f"distinct({a.label})"
    part = _listed(name, a.rows.unique().implode(), lambda values: values.unique(), lambda values: values.list.unique())
    return Split(parts=(part,), finish=new(name).list.len().cast(a.dtype))


def _values(name: str, reduce: pl.Expr) -> Part:
    return _listed(name, reduce, lambda values: values, lambda values: values)


def _implode(a: Asked) -> Split:
    part = _values(f"list({a.label})", a.rows.implode())
    return Split(parts=(part,), finish=new(part.name))


def _quantile(a: Asked) -> Split:
    """Exact, so every value of a group is kept: the state grows with the rows."""
    part = _values(f"values({a.label})", a.rows.drop_nulls().implode())
    of_list = expression_of(_over_element(a.tree))
    return Split(parts=(part,), finish=new(part.name).list.agg(of_list).cast(a.dtype))


def _over_element(tree: Tree) -> Tree:
    if "Agg" in tree:
        return {"Agg": {"Median": "Element"}}
    body = tree["Function"]
    return {"Function": {**body, "input": ["Element", *body["input"][1:]]}}


def _boolean(kind: str) -> Callable[[Asked], Split]:
    def split(a: Asked) -> Split:
        name, n = f"{kind}({a.label})", _length(a)
        ignore_nulls = a.options["ignore_nulls"]
        merge = getattr(new(name), kind)(ignore_nulls=ignore_nulls)
        both = old(name) | new(name) if kind == "any" else old(name) & new(name)
        part = Part(name=name, reduce=a.whole, merge=merge, pair=pl.when(old(n.name).is_null()).then(new(name)).otherwise(both))
        return Split(parts=(part, n), finish=new(name))

    return split


def _product(a: Asked) -> Split:
    """Integers multiply in 128 bits as far as they fit 64; what does not shows in a product of floats, and stops the query."""
    name = f"product({a.label})"
    if a.dtype.is_float():
        part = Part(name=name, reduce=a.whole, merge=new(name).product(), pair=old(name).fill_null(1.0) * new(name))
        return Split(parts=(part,), finish=new(name))
    guard = f"float_product({a.label})"
    parts = (
        Part(name=name, reduce=a.rows.cast(pl.Int64).product(), merge=new(name).product(), pair=old(name).fill_null(1) * new(name)),
        Part(name=guard, reduce=a.rows.cast(pl.Float64).product(), merge=new(guard).product(), pair=old(guard).fill_null(1.0) * new(guard)),
    )
    return Split(parts=parts, finish=new(name).cast(a.dtype))


def _by(kind: str) -> Callable[[Asked], Split]:
    """The value where another column is smallest or largest; of equals the first seen."""

    def split(a: Asked) -> Split:
        assert a.by is not None
        value, key = f"{kind}_by({a.label})", f"{kind}_by_key({a.label})"
        best = getattr(a.by, kind)()
        wins = new(key) < old(key) if kind == "min" else new(key) > old(key)
        newer = old(key).is_null() | (new(key).is_not_null() & wins)
        parts = (
            Part(
                name=value,
                reduce=a.whole,
                merge=getattr(new(value), f"{kind}_by")(new(key)),
                pair=pl.when(newer).then(new(value)).otherwise(old(value)),
            ),
            Part(name=key, reduce=best, merge=getattr(new(key), kind)(), pair=pl.when(newer).then(new(key)).otherwise(old(key))),
        )
        return Split(parts=parts, finish=new(value))

    return split


SPLITS: dict[str, Callable[[Asked], Split]] = {
    "Len": _len,
    "Count": _len,
    "Sum": _sum,
    "Mean": _mean,
    "Min": _extreme("min", pl.min_horizontal),
    "Max": _extreme("max", pl.max_horizontal),
    "First": _edge("first"),
    "FirstNonNull": _edge("first"),
    "Last": _edge("last"),
    "LastNonNull": _edge("last"),
    "Var": _variance,
    "Std": _variance,
    "NUnique": _n_unique,
    "Implode": _implode,
    "Median": _quantile,
    "Quantile": _quantile,
    "NullCount": _null_count,
    "Product": _product,
    "MinBy": _by("min"),
    "MaxBy": _by("max"),
    "Any": _boolean("any"),
    "All": _boolean("all"),
}
"""How each aggregate is split, by the tag of its node."""

INSTEAD = {
    "Mode": "keep the values with .implode() and take the mode where the result is read",
    "ApproxNUnique": ".n_unique()",
    "Unique": ".n_unique(), or .unique().implode() as .implode() and unique where the result is read",
    "Skew": ".implode(), and compute it where the result is read",
    "Kurtosis": ".implode(), and compute it where the result is read",
    "Entropy": ".implode(), and compute it where the result is read",
    "Correlation": "sums of x, y, x*y, x*x, y*y, and the formula over them",
    "ArgMin": ".min_by(column)",
    "ArgMax": ".max_by(column)",
    "Sort": ".implode(), and sort where the result is read",
    "SortBy": ".min_by(column) or .max_by(column), or .implode() of a struct",
    "Slice": ".first(), .last() or .implode()",
    "CumSum": ".sum()",
    "Over": "a group_by of its own",
    "Item": ".first()",
}
"""What to write for an aggregate that cannot be kept up to date."""
