"""The columns of a join of two streams: under which names both sides stand side by side, by which keys they meet, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from microbatch.errors import PlanError
from microbatch.plan.nodes import JoinStreams, Node
from microbatch.plan.trees import Tree, conjuncts, expression_of, tree_of

_ROW = {"left": "__left_row", "right": "__right_row"}
_TEXT = (pl.Categorical, pl.Enum, pl.String)
ONE_SIDED = ("semi", "anti")
PRESERVED = {"inner": (), "left": ("left",), "right": ("right",), "full": ("left", "right"), "semi": (), "anti": ("left",)}
"""Sides whose rows come out, with nulls or alone, when they met none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSide:
    """One side of a join: ``names`` maps its columns to the names they have beside the other's.

    ``keys`` are the names of its key columns then, each a column of the user's or one that ``computed`` adds; ``conditions`` concern this
    side alone.
    """

    side: str
    schema: pl.Schema
    names: dict[str, str]
    keys: tuple[str, ...]
    computed: tuple[pl.Expr, ...]
    key_types: tuple[pl.DataType, ...]
    conditions: tuple[pl.Expr, ...]

    @property
    def columns(self) -> pl.Schema:
        """The side's columns beside the other's, without computed keys."""
        return pl.Schema({self.names[c]: dtype for c, dtype in self.schema.items()})

    def placed(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return the side's rows under the names they have beside the other's, with their keys."""
        return rows.with_columns(self.computed).rename({a: b for a, b in self.names.items() if a != b})

    def failing(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the placed rows that do not meet the conditions on this side alone."""
        if not self.conditions:
            return rows.clear()
        return rows.filter(~pl.all_horizontal(self.conditions).fill_null(value=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinColumns:
    """Both sides, the ``mixed`` conditions on both, and the expressions that make a result of rows side by side."""

    left: JoinSide
    right: JoinSide
    mixed: tuple[pl.Expr, ...]
    output: tuple[pl.Expr, ...]

    @property
    def sides(self) -> dict[str, JoinSide]:
        """Both sides by name."""
        return {"left": self.left, "right": self.right}


def join_columns(node: JoinStreams, left: pl.Schema, right: pl.Schema) -> JoinColumns:
    """Return how the columns of a join are named and compared; PlanError if keys or condition do not fit the sides."""
    names = {c: f"{c}{node.suffix}" if c in left else c for c in right}
    if taken := sorted({b for a, b in names.items() if a in left and (b in left or b in right)}):
        msg = f"join: both sides have columns that the suffix {node.suffix!r} makes {taken}, which are there too; give another suffix"
        raise PlanError(msg)
    types = _key_types(node, left, right)
    only_left, only_right, mixed = _divided(node, left, [names[c] for c in right])
    left_keys, right_keys = zip(*node.keys, strict=True)
    return JoinColumns(
        left=_side("left", {c: c for c in left}, left, zip(left_keys, types, strict=True), only_left),
        right=_side("right", names, right, zip(right_keys, types, strict=True), only_right),
        mixed=tuple(mixed),
        output=tuple(_output(node, left, right, names)),
    )


def _key_types(node: JoinStreams, left: pl.Schema, right: pl.Schema) -> tuple[pl.DataType, ...]:
    """Return the type in which each pair of keys is compared and stored."""
    types: list[pl.DataType] = []
    for a, b in node.keys:
        pair = [pl.LazyFrame(schema=s).select(e.alias("key")).collect_schema()["key"] for s, e in ((left, a), (right, b))]
        if all(isinstance(dtype, _TEXT) for dtype in pair):
            types.append(pl.String())
        else:
            frames = [pl.DataFrame(schema={"key": dtype}) for dtype in pair]
            frames[0].lazy().join(frames[1].lazy(), on="key").collect_schema()  # what Polars does not compare is no key here either
            types.append(pl.concat(frames, how="vertical_relaxed").schema["key"])
    return tuple(types)


def _side(
    side: str, names: dict[str, str], schema: pl.Schema, typed_keys: Iterable[tuple[pl.Expr, pl.DataType]], only: Sequence[pl.Expr]
) -> JoinSide:
    keys: list[str] = []
    types: list[pl.DataType] = []
    computed: list[pl.Expr] = []
    for k, (expr, dtype) in enumerate(typed_keys):
        types.append(dtype)
        column = plain_column(expr)
        if column is not None and schema[column] == dtype and names[column] not in keys:
            keys.append(names[column])
        else:
            keys.append(f"__{side}_key{k}")
            computed.append(expr.cast(dtype).alias(keys[-1]))
    return JoinSide(
        side=side,
        schema=schema,
        names=names,
        keys=tuple(keys),
        computed=tuple(computed),
        key_types=tuple(types),
        conditions=tuple(only),
    )


def plain_column(expression: pl.Expr) -> str | None:
    """Return the column an expression is, None if it is more than a column."""
    return expression.meta.output_name() if expression.meta.is_column() else None


def condition_trees(node: JoinStreams) -> list[Tree]:
    """Return the conjuncts of a join's condition."""
    return [] if node.where is None else conjuncts(tree_of(node.where, verb="join(where=...)"))


def _divided(
    node: JoinStreams, left: Sequence[str] | pl.Schema, right: Sequence[str]
) -> tuple[list[pl.Expr], list[pl.Expr], list[pl.Expr]]:
    """Return the conjuncts on the left alone, on the right alone, and the others."""
    parts: tuple[list[pl.Expr], list[pl.Expr], list[pl.Expr]] = [], [], []
    for tree in condition_trees(node):
        expression = expression_of(tree)
        roots = set(expression.meta.root_names())
        if unknown := sorted(roots - {*left, *right}):
            msg = f"join(where=...): no columns {unknown}; the sides have {[*left, *right]}"
            raise PlanError(msg)
        parts[0 if roots and roots <= set(left) else 1 if roots and roots <= set(right) else 2].append(expression)
    return parts


def _output(node: JoinStreams, left: pl.Schema, right: pl.Schema, names: dict[str, str]) -> list[pl.Expr]:
    """Return the columns of the result, as ``pl.LazyFrame.join`` names and orders them, made of both sides' columns side by side."""
    if node.how in ONE_SIDED:
        return [pl.col(c) for c in left]
    pairs = [(plain_column(a), plain_column(b)) for a, b in node.keys]
    one_copy = node.coalesce if node.coalesce is not None else node.how != "full"
    if not one_copy or not all(a and b for a, b in pairs):
        return [*map(pl.col, left), *(pl.col(names[c]) for c in right)]
    if node.how == "right":
        kept = [c for c in left if c not in {a for a, _ in pairs}]
        return [*map(pl.col, kept), *(pl.col(names[c]).alias(f"{c}{node.suffix}" if c in kept else c) for c in right)]
    other = {a: names[b] for a, b in pairs if a and b} if node.how == "full" else {}
    lefts = [pl.coalesce(c, other[c]).cast(left[c]) if c in other else pl.col(c) for c in left]
    return [*lefts, *(pl.col(names[c]) for c in right if c not in {b for _, b in pairs})]


def join_bounded(node: JoinStreams, inputs: Sequence[pl.LazyFrame], schema_of: Callable[[Node], pl.Schema]) -> pl.LazyFrame:
    """Return the join of bounded inputs as a plain Polars query."""
    columns = join_columns(node, schema_of(node.left), schema_of(node.right))
    left, right = (
        columns.sides[side].placed(rows).with_row_index(_ROW[side]) for side, rows in zip(("left", "right"), inputs, strict=True)
    )
    pairs = left.join(
        right, left_on=columns.left.keys, right_on=columns.right.keys, how="inner", nulls_equal=node.nulls_equal, coalesce=False
    ).filter(*columns.left.conditions, *columns.right.conditions, *columns.mixed)
    if node.how in ONE_SIDED:
        return left.join(pairs, on=_ROW["left"], how="semi" if node.how == "semi" else "anti").select(columns.output)
    alone = [
        rows.join(pairs, on=_ROW[side], how="anti") for side, rows in (("left", left), ("right", right)) if side in PRESERVED[node.how]
    ]
    return pl.concat([pairs, *alone], how="diagonal").select(columns.output)
