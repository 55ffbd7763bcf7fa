"""Smallest, first and last values, lists, flags and bits as parts."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from microbatch.plan.aggregate_numbers import rows_in
from microbatch.plan.partials import OLD, Asked, Part, Split, make_part
from microbatch.plan.trees import expression_of, node


def extreme(kind: str) -> Callable[[Asked], Split]:
    """Return how to split ``min`` or ``max``, and the ones that pass NaN on."""

    def split(a: Asked) -> Split:
        part = _extreme_part(a, f"nan_{kind}" if a.options["propagate_nans"] else kind, a.rows, a.label, a.dtype)
        return Split(parts=(part,), finish=part.value)

    return split


def _extreme_part(a: Asked, kind: str, rows: pl.Expr, label: str, dtype: pl.DataType) -> Part:
    def pair(old: pl.Expr, new: pl.Expr) -> pl.Expr:
        best = pl.when(_beats(kind[-3:], old, new, dtype)).then(new).otherwise(old)
        with_nan = kind.startswith("nan_") and dtype.is_float()
        return pl.when(old.is_nan()).then(old).when(new.is_nan()).then(new).otherwise(best) if with_nan else best

    return make_part(a, f"{kind}({label})", dtype, reduce=getattr(rows, kind)(), merge=lambda v: getattr(v, kind)(), pair=pair)


def _beats(kind: str, old: pl.Expr, new: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return where a newer smallest or largest value replaces the older one; nulls never do, NaN only nulls."""
    wins = new < old if kind == "min" else new > old
    if dtype.is_float() and kind == "max":  # in a comparison NaN is the largest
        wins = new.is_not_nan() & (wins | old.is_nan())
    return old.is_null() | (new.is_not_null() & wins)


def first_at(kind: str, values: pl.Expr, by: pl.Expr) -> pl.Expr:
    """Return the first value where ``by`` is smallest or largest.

    The streaming engine's own ``min_by`` returns any of several equal ones, another each time.
    """
    return values.filter(by == getattr(by, kind)()).first()


def value_by(kind: str) -> Callable[[Asked], Split]:
    """The value where another column is smallest or largest; of equals the first seen."""

    def split(a: Asked) -> Split:
        assert a.by is not None
        key = _extreme_part(a, kind, a.by, a.by_label, a.by_dtype)
        older_key = pl.col(key.name + OLD).cast(a.by_dtype)
        value = make_part(
            a,
            f"{kind}_by({a.label}, {a.by_label})",
            a.dtype,
            reduce=first_at(kind, a.rows, a.by),
            merge=lambda v: first_at(kind, v, key.value),
            pair=lambda old, new: pl.when(_beats(kind, older_key, key.value, a.by_dtype)).then(new).otherwise(old),
            by_arrival=True,
        )
        return Split(parts=(value, key), finish=value.value)

    return split


def edge(kind: str) -> Callable[[Asked], Split]:
    """First or last in the order older batches first, rows of a batch in theirs; a piece without rows has no say."""

    def split(a: Asked) -> Split:
        n = rows_in(a)

        def pair(old: pl.Expr, new: pl.Expr) -> pl.Expr:
            keeps = pl.col(n.name + OLD).fill_null(0) > 0 if kind == "first" else pl.col(n.name) == 0
            return pl.when(keeps).then(old).otherwise(new)

        part = make_part(
            a,
            f"{kind}({a.label})",
            a.dtype,
            reduce=a.whole,
            merge=lambda v: getattr(v.filter(n.value > 0), kind)(),
            pair=pair,
            newest=kind == "last",
            by_arrival=True,
        )
        return Split(parts=(part, n), finish=part.value)

    return split


def edge_non_null(kind: str) -> Callable[[Asked], Split]:
    """Return how to split ``first`` or ``last`` without nulls."""

    def split(a: Asked) -> Split:
        part = make_part(
            a,
            f"{kind}_non_null({a.label})",
            a.dtype,
            reduce=a.whole,
            merge=lambda v: getattr(v, kind)(ignore_nulls=True),
            pair=lambda old, new: pl.coalesce(old, new) if kind == "first" else pl.coalesce(new, old),
            newest=kind == "last",
            by_arrival=True,
        )
        return Split(parts=(part,), finish=part.value)

    return split


def _listed(a: Asked, name: str, reduce: pl.Expr, unique: Callable[[pl.Expr], pl.Expr] = lambda v: v) -> Part:
    """A list per group, made unique at every step if asked; null in groups that were there before the aggregate was."""
    inner = pl.List(a.input_dtype)

    def both(old: pl.Expr, new: pl.Expr) -> pl.Expr:
        joined = pl.concat_list(old, new)
        return (
            pl.when(old.is_null()).then(new).otherwise(joined.list.unique(maintain_order=True) if name.startswith("distinct") else joined)
        )

    return make_part(
        a,
        name,
        inner,
        reduce=unique(reduce).implode(),
        merge=lambda v: unique(v.drop_nulls().explode(empty_as_null=False)).implode(),
        pair=both,
        by_arrival=name.startswith("list"),
    )


def n_unique(a: Asked) -> Split:
    """Exact, so every distinct value of a group is kept."""
    part = _listed(a, f"distinct({a.label})", a.rows, lambda v: v.unique(maintain_order=True))
    return Split(parts=(part,), finish=part.value.list.len().cast(a.dtype))


def implode(a: Asked) -> Split:
    """Split ``implode``: every value of a group is kept."""
    part = _listed(a, f"list({a.label})", a.rows)
    return Split(parts=(part,), finish=part.value)


def quantile(a: Asked) -> Split:
    """Exact, so every value of a group is kept: the state grows with the rows."""
    part = _listed(a, f"values({a.label})", a.rows.drop_nulls())
    _, body = node(a.tree)
    over_element = (
        {"Function": {**body, "input": ["Element", body["input"][1]]}} if "Function" in a.tree else {"Agg": {"Median": "Element"}}
    )
    return Split(parts=(part,), finish=part.value.list.agg(expression_of(over_element)).cast(a.dtype))


def _flag(a: Asked, kind: str, reduce: pl.Expr, *, merge: str) -> Part:
    empty = merge == "all"
    return make_part(
        a,
        f"{kind}({a.label})",
        pl.Boolean(),
        reduce=reduce,
        merge=lambda v: getattr(v, merge)(),
        pair=lambda old, new: (old.fill_null(empty) & new) if merge == "all" else (old.fill_null(empty) | new),
    )


def has_nulls(a: Asked) -> Split:
    """Split ``has_nulls`` into a flag."""
    part = _flag(a, "has_nulls", a.rows.has_nulls(), merge="any")
    return Split(parts=(part,), finish=part.value)


def any_or_all(kind: str) -> Callable[[Asked], Split]:
    """With nulls ignored, or as Kleene has it: then a null among the rows makes the answer null unless a row decides it."""

    def split(a: Asked) -> Split:
        part = _flag(a, kind, getattr(a.rows, kind)(ignore_nulls=True), merge=kind)
        if a.options["ignore_nulls"]:
            return Split(parts=(part,), finish=part.value)
        nulls = has_nulls(a).parts[0]
        undecided = nulls.value & (part.value if kind == "all" else ~part.value)
        return Split(parts=(part, nulls), finish=pl.when(~undecided).then(part.value))

    return split


def bits(kind: str, both: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Callable[[Asked], Split]:
    """Return how to split a bitwise aggregate; ``both`` joins two pieces, and a null has no say."""

    def split(a: Asked) -> Split:
        part = make_part(
            a,
            f"bitwise_{kind}({a.label})",
            a.dtype,
            reduce=a.whole,
            merge=lambda v: getattr(v, f"bitwise_{kind}")(),
            pair=lambda old, new: pl.when(old.is_null()).then(new).when(new.is_null()).then(old).otherwise(both(old, new)),
        )
        return Split(parts=(part,), finish=part.value)

    return split
