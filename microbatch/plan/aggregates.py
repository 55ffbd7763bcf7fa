"""Splits aggregates into what a batch reduces to, how pieces merge, and what they finish as: the user writes ordinary Polars expressions.

``SplitAggregate`` is all the incremental operator knows: ``reduce`` a batch, ``merge`` or ``combine`` pieces, ``finish`` them. Splitting
walks the expression's tree: each aggregate in it becomes a few columns of partial aggregates (see ``partials``), and what is left is
arithmetic over finished aggregates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from microbatch.errors import DataError, PlanError
from microbatch.plan.partials import INSTEAD, OLD, SPLITS, Asked, Part, Split
from microbatch.plan.rowwise import check_row_wise, spoken, stranger
from microbatch.plan.trees import Tree, columns_in, expanded, expression_of, function_name

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

_INT64_LIMIT = 2.0**63


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitAggregate:
    """Aggregates in pieces.

    ``state_schema`` holds the partial columns, ``output_schema`` the keys and results. Frames of partial aggregates have the keys and then
    the partial columns.
    """

    state_schema: pl.Schema
    output_schema: pl.Schema
    fingerprint: list[Any]
    parts: tuple[Part, ...]
    results: tuple[pl.Expr, ...]
    plain: tuple[pl.Expr, ...]

    @property
    def guards(self) -> list[str]:
        """Products of floats that stand beside products of integers, to see that these fit."""
        return [p.name for p in self.parts if p.name.startswith("float_product(")]

    def reduce(self, rows: pl.LazyFrame, keys: Sequence[str], *more: pl.Expr) -> pl.LazyFrame:
        """Return one row of partial aggregates per group of input rows, with ``more`` columns; without keys one row, also of no rows."""
        return _grouped(rows, keys, [*(p.reduce.alias(p.name) for p in self.parts), *more])

    def merge(self, partials: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
        """Return one row per group from several, those of older batches standing first."""
        return _grouped(partials, keys, [p.merge.alias(p.name) for p in self.parts])

    def combine(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Return keys and partial aggregates of rows that hold a newer piece and, under ``<name>__old``, an older one or nulls."""
        keys = [c for c in pairs.columns if c not in self.state_schema and c.removesuffix(OLD) not in self.state_schema]
        return pairs.select(*keys, *(p.pair.alias(p.name) for p in self.parts))

    def checked(self, partials: pl.DataFrame) -> pl.DataFrame:
        """Return the partial aggregates in the types they are kept in.

        Raises
        ------
        DataError
            An integer sum or product does not fit 64 bits; names the aggregate and one group.
        """
        for guard in self.guards:
            _raise_where(partials, pl.col(guard).abs() >= _INT64_LIMIT, guard.removeprefix("float_"), self.state_schema)
        schema = partials.schema
        narrowed = {n: d for n, d in self.state_schema.items() if schema[n] != d}
        try:
            return partials.cast(pl.Schema(narrowed)) if narrowed else partials
        except pl.exceptions.InvalidOperationError:
            for name in narrowed:
                _raise_where(partials, pl.col(name).cast(pl.Int64, strict=False).is_null(), name, self.state_schema)
            raise

    def finish(self, partials: Frame, keys: Sequence[str]) -> Frame:
        """Return keys and results, with the names, order and dtypes of ``output_schema``."""
        return partials.select(*map(pl.col, keys), *self.results)

    def batch(self, rows: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
        """Return the same result for bounded input by Polars' own aggregates, integers added in 64 bits."""
        return _grouped(rows, keys, self.plain).cast(self.output_schema)


def _grouped(rows: pl.LazyFrame, keys: Sequence[str], aggs: Sequence[pl.Expr]) -> pl.LazyFrame:
    if not keys:
        return rows.select(aggs)
    return rows.group_by(keys, maintain_order=False).agg(aggs) if aggs else rows.select(keys).unique()


def _raise_where(partials: pl.DataFrame, wrong: pl.Expr, name: str, state: pl.Schema) -> None:
    hit = partials.filter(wrong).head(1)
    if hit.height:
        group = dict(zip((k := [c for c in hit.columns if c not in state]), hit.select(k).row(0) if k else (), strict=True))
        msg = (
            f"{name} of group {group} does not fit 64 bits: integer sums and products never wrap; cast the column to pl.Float64 or "
            f"pl.Decimal(38, 0) before the aggregation"
        )
        raise DataError(msg)


def split_aggregates(aggs: Sequence[pl.Expr], *, keys: Sequence[str], schema: pl.Schema) -> SplitAggregate:
    """Return the aggregates in pieces.

    Parameters
    ----------
    aggs
        Aggregations and row-wise arithmetic over them, as for ``pl.LazyFrame.group_by(...).agg``; selectors stand for the columns that
        are not keys.
    keys
        Grouping columns, may be empty.
    schema
        Columns of the input rows.

    Raises
    ------
    PlanError
        An aggregate that cannot be kept up to date from pieces, by name, with what to write instead.
    """
    _check_names(keys, schema)
    splitter = _Splitter(keys, schema)
    others = pl.Schema({n: d for n, d in schema.items() if n not in keys})
    results = [splitter.result(tree) for agg in aggs for tree in expanded(agg, others, verb="agg")]
    parts = tuple(splitter.parts.values())
    plain = pl.LazyFrame(schema=schema)
    reduced = _grouped(plain, keys, [p.reduce.alias(p.name) for p in parts]).collect_schema() if parts or keys else pl.Schema()
    state = pl.Schema({p.name: pl.Int64() if p.wide else reduced[p.name] for p in parts})
    stored = pl.LazyFrame(schema={**{k: schema[k] for k in keys}, **state})
    output = stored.select(*keys, *results).collect_schema() if keys or results else pl.Schema()
    return SplitAggregate(
        state_schema=state,
        output_schema=output,
        fingerprint=splitter.trees,
        parts=parts,
        results=tuple(results),
        plain=tuple(splitter.plain),
    )


def _check_names(keys: Sequence[str], schema: pl.Schema) -> None:
    if missing := [k for k in keys if k not in schema]:
        msg = f"unknown columns {missing} in group_by; the stream has {list(schema)}"
        raise PlanError(msg)


class _Splitter:
    """Walks expressions and collects the parts they need; equal aggregates share their parts."""

    def __init__(self, keys: Sequence[str], schema: pl.Schema) -> None:
        self.parts: dict[str, Part] = {}
        self.trees: list[Tree] = []
        self.plain: list[pl.Expr] = []
        self._keys = list(keys)
        self._rows = pl.LazyFrame(schema=schema)
        self._labels: dict[str, str] = {}
        self._finished: dict[str, pl.Expr] = {}

    def result(self, tree: Tree) -> pl.Expr:
        """Return the expression over partial columns that gives what ``tree`` gives over rows."""
        self.trees.append(tree)
        name = self._output_name(tree)
        asked: dict[str, pl.Expr] = {}
        rest = self._replace(tree, asked)
        if stray := [c for c in columns_in(rest) if c not in asked]:
            msg = (
                f"agg: {expression_of(tree)} takes column {stray[0]!r} as it is, which gives no single value per group; "
                f"write pl.col({stray[0]!r}).implode() for the list of values, or .first(), .sum() ..."
            )
            raise PlanError(msg)
        self.plain.append(expression_of(self._widened(tree)).alias(name))
        return _substituted(rest, asked).alias(name)

    def _widened(self, tree: Tree) -> Tree:
        """Return the tree with integer sums taken over Int64, as ours are."""
        if isinstance(tree, dict):
            body = tree.get("Agg")
            if isinstance(body, dict) and "Sum" in body and self._dtype(body["Sum"]).is_integer():
                return {"Agg": {"Sum": {"Cast": {"expr": body["Sum"], "dtype": {"Literal": "Int64"}, "options": "Strict"}}}}
            return {tag: part if tag == "Literal" else self._widened(part) for tag, part in tree.items()}
        return [self._widened(part) for part in tree] if isinstance(tree, list) else tree

    def _dtype(self, tree: Tree) -> pl.DataType:
        return self._rows.select(expression_of(tree).alias("__in")).collect_schema()["__in"]

    def _output_name(self, tree: Tree) -> str:
        whole = expression_of(tree)
        try:
            return self._rows.select(whole).collect_schema().names()[0]
        except pl.exceptions.PolarsError as cause:
            msg = f"agg: {whole} does not fit the stream: {str(cause).splitlines()[0]}. It has {dict(self._rows.collect_schema())}"
            raise PlanError(msg) from cause

    def _replace(self, tree: Tree, asked: dict[str, pl.Expr]) -> Tree:
        """Return the tree with each aggregate replaced by a column of its own, whose finished value ``asked`` gets."""
        kind = _aggregate_kind(tree)
        if kind is not None:
            placeholder = f"__agg{len(asked)}"
            asked[placeholder] = self._finish(tree, kind)
            return {"Column": placeholder}
        if isinstance(tree, dict):
            _refuse_strange(tree)
            return {tag: body if tag == "Literal" else self._replace(body, asked) for tag, body in tree.items()}
        return [self._replace(part, asked) for part in tree] if isinstance(tree, list) else tree

    def _finish(self, tree: Tree, kind: str) -> pl.Expr:
        key = json.dumps(tree, sort_keys=True)
        if key not in self._finished:
            split = self._split(tree, kind)
            for part in split.parts:
                self.parts.setdefault(part.name, part)
            self._finished[key] = split.finish
        return self._finished[key]

    def _split(self, tree: Tree, kind: str) -> Split:
        whole = expression_of(tree)
        inputs = _inputs(tree)
        rows = [expression_of(i) for i in inputs]
        check_row_wise(rows, verb=f"agg: {spoken(kind)}", allow_filter=True)
        grouped = self._rows.group_by(self._keys) if self._keys else None
        dtype = (grouped.agg(whole.alias("__out")) if grouped is not None else self._rows.select(whole.alias("__out"))).collect_schema()[
            "__out"
        ]
        input_dtype = self._dtype(inputs[0]) if inputs else dtype
        asked = Asked(
            tree=tree,
            rows=rows[0] if rows else pl.lit(0),
            by=rows[1] if kind in ("MinBy", "MaxBy") else None,
            label=", ".join(self._label(i) for i in (inputs if kind in ("MinBy", "MaxBy") else inputs[:1])),
            dtype=dtype,
            input_dtype=input_dtype,
            options=_options(tree, kind),
        )
        return SPLITS[kind](asked)

    def _label(self, tree: Tree) -> str:
        """Return a column's name, or a number for an expression: part names must not depend on how Polars prints one."""
        if isinstance(tree, dict) and isinstance(tree.get("Column"), str):
            return str(tree["Column"])
        return self._labels.setdefault(json.dumps(tree, sort_keys=True), f"#{len(self._labels)}")


def _aggregate_kind(tree: Tree) -> str | None:
    """Return the tag of an aggregate node that can be split, None for any other part of a tree."""
    if tree == "Len":
        return "Len"
    if not isinstance(tree, dict):
        return None
    if "Agg" in tree:
        kind = str(next(iter(tree["Agg"])))
    elif "Function" in tree:
        group, member = function_name(tree["Function"])
        kind = member or group if group == "Boolean" else group
    else:
        return None
    return kind if kind in SPLITS else None


def _refuse_strange(tree: Tree) -> None:
    """Raise PlanError if the outermost node is an aggregate, or something else over several rows, that cannot be split."""
    if (
        "Agg" not in tree
        and "Function" not in tree
        and not ({"Over", "Sort", "SortBy", "Slice", "Gather", "Filter", "Explode"} & tree.keys())
    ):
        return
    kind = (
        str(next(iter(tree["Agg"])))
        if "Agg" in tree
        else stranger({**tree, "Function": {**tree["Function"], "input": []}})
        if "Function" in tree
        else next(iter(tree))
    )
    if kind is not None:
        instead = INSTEAD.get(kind, ".implode(), and compute it where the result is read")
        msg = f"agg: {expression_of(tree)}: {spoken(kind)} cannot be kept up to date from pieces of a stream; write {instead}"
        raise PlanError(msg)


def _inputs(tree: Tree) -> list[Tree]:
    """Return the trees an aggregate reads."""
    if tree == "Len":
        return []
    if "Function" in tree:
        function = tree["Function"]
        return function["input"][:1] if "Quantile" in str(function["function"]) else list(function["input"])
    body = next(iter(tree["Agg"].values()))
    if isinstance(body, dict) and "input" in body:
        return [body["input"]]
    return [body[0]] if isinstance(body, list) else [body]


def _options(tree: Tree, kind: str) -> Any:
    if kind in ("Any", "All"):
        return tree["Function"]["function"]["Boolean"][kind]
    if kind in ("Var", "Std"):
        return tree["Agg"][kind][1]
    return tree["Agg"]["Count"]["include_nulls"] if kind == "Count" else None


def _substituted(tree: Tree, asked: dict[str, pl.Expr]) -> pl.Expr:
    """Return the expression with its placeholder columns replaced by what was asked."""
    trees = {name: json.loads(expr.meta.serialize(format="json")) for name, expr in asked.items()}

    def put(part: Tree) -> Tree:
        if isinstance(part, dict):
            if part.get("Column") in trees if isinstance(part.get("Column"), str) else False:
                return trees[part["Column"]]
            return {tag: body if tag == "Literal" else put(body) for tag, body in part.items()}
        return [put(p) for p in part] if isinstance(part, list) else part

    rest = expression_of(put(tree))
    check_row_wise([rest.meta.undo_aliases()], verb="agg")
    return rest
