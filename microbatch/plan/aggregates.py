"""Splits aggregates into what a batch reduces to, how pieces merge, and what they finish as: the user writes ordinary Polars expressions.

``SplitAggregate`` is all the incremental operator knows: ``reduce`` a batch, ``merge`` or ``combine`` pieces, ``finish`` them. Splitting
walks the expression's tree: each aggregate in it becomes a few columns of partial aggregates (see ``partials``), and what is left is
row-wise arithmetic over finished aggregates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from microbatch.errors import DataError, PlanError
from microbatch.plan.aggregate_numbers import exact_product, exact_sum
from microbatch.plan.aggregate_table import INSTEAD, SPLITS, ordered
from microbatch.plan.aggregate_values import first_at
from microbatch.plan.partials import OLD, Asked, Part
from microbatch.plan.rowwise import ALL_ROWS, CHANGING, NotRowWiseError, is_constant, rows_of, spoken
from microbatch.plan.trees import Tree, expanded, expression_of, function_of, leaves, node, operands, text_of, tree_of, with_operands

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitAggregate:
    """Aggregates in pieces.

    Frames of partial aggregates hold the keys and then the columns of ``state_schema``; ``output_schema`` has the keys and the results,
    with the dtypes Polars gives, but for sums and products of integers, which are Int64. ``fingerprint`` is the name and tree of each
    result.
    """

    state_schema: pl.Schema
    output_schema: pl.Schema
    fingerprint: list[Any]
    parts: tuple[Part, ...]
    results: tuple[pl.Expr, ...]
    plain: tuple[pl.Expr, ...]

    def reduce(self, rows: pl.LazyFrame, keys: Sequence[str], *more: pl.Expr) -> pl.LazyFrame:
        """Return one row of partial aggregates per group of input rows, in any order; without keys one row, also of no rows.

        ``more`` are aggregates that become columns behind the others, in the same pass.
        """
        return _grouped(rows, keys, [*(p.reduce.alias(p.name) for p in self.parts), *more])

    def merge(self, partials: pl.LazyFrame, keys: Sequence[str], *more: pl.Expr) -> pl.LazyFrame:
        """Return one row per group from several, those of older batches standing first; the result is in any order."""
        return _grouped(partials, keys, [*(p.merge.alias(p.name) for p in self.parts), *more])

    def combine(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Return keys and partial aggregates, row by row.

        Each row holds a newer piece and, under ``<name>__old``, an older one, all null where the group has none.
        """
        held = {*self.state_schema, *(f"{name}{OLD}" for name in self.state_schema)}
        return pairs.select(*(c for c in pairs.columns if c not in held), *(p.pair.alias(p.name) for p in self.parts))

    def checked(self, partials: pl.DataFrame) -> pl.DataFrame:
        """Return what ``reduce``, ``merge`` or ``combine`` gave, in the dtypes it is kept in.

        Raises
        ------
        DataError
            A sum or product does not fit 64 bits (a Decimal: 38 digits), or a count 32; names the aggregate and one group.
        """
        limited = {p.name: pl.col(p.name).cast(p.fits, strict=False).is_null() for p in self.parts if p.fits is not None}
        past = partials.select(is_null.any() for is_null in limited.values()).row(0) if limited else ()
        for part_name, is_past in zip(limited, past, strict=True):
            if is_past:
                raise self._past(part_name, partials.filter(limited[part_name]).head(1))
        changed = pl.Schema({name: dtype for name, dtype in self.state_schema.items() if partials.schema[name] != dtype})
        return partials.cast(changed) if changed else partials

    def _past(self, part_name: str, row: pl.DataFrame) -> DataError:
        part = next(p for p in self.parts if p.name == part_name)
        group = row.select(c for c in row.columns if c not in self.state_schema)
        where = f"group {dict(zip(group.columns, group.row(0), strict=True))}" if group.width else "the one group"
        if part.fits == pl.UInt32:
            return DataError(f"{part.of} of {where} passed 4,294,967,295, the most Polars can count: add a key, or sum pl.lit(1) per row")
        return DataError(
            f"{part.of} of {where} does not fit {part.fits}: sums and products never wrap; cast the column to pl.Float64, or integers to "
            f"pl.Decimal(38, 0), before the aggregation"
        )

    def finish(self, merged: Frame, keys: Sequence[str]) -> Frame:
        """Return keys and results of partial aggregates, in the same order, with ``output_schema``."""
        return merged.select(*map(pl.col, keys), *self.results)

    def batch(self, rows: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
        """Return the same result for bounded input by Polars' own aggregates; integers that do not fit 64 bits raise Polars' own error."""
        return _grouped(rows, keys, self.plain).cast(self.output_schema)


def _grouped(rows: pl.LazyFrame, keys: Sequence[str], aggs: Sequence[pl.Expr]) -> pl.LazyFrame:
    if not keys:
        return rows.select(aggs)
    return rows.group_by(keys).agg(aggs) if aggs else rows.select(keys).unique()


def split_aggregates(aggs: Sequence[pl.Expr], *, keys: Sequence[str], schema: pl.Schema) -> SplitAggregate:
    """Return the aggregates in pieces.

    Parameters
    ----------
    aggs
        Aggregations and row-wise arithmetic over them, as for ``pl.LazyFrame.group_by(...).agg``; selectors stand for the columns that
        are not keys. ``n_unique`` keeps every distinct value of a group; ``implode``, ``median`` and ``quantile`` keep every value, so
        their state grows with the rows.
    keys
        Grouping columns, may be empty: then there is one group, also of no rows.
    schema
        Columns of the input rows.

    Raises
    ------
    PlanError
        An aggregate that cannot be kept up to date from pieces, by name, with what to write instead; a column that is not there.
    """
    if missing := [k for k in keys if k not in schema]:
        msg = f"unknown columns {missing} in group_by; the stream has {list(schema)}"
        raise PlanError(msg)
    splitter = _Splitter(keys, schema)
    results = [splitter.result(name, tree) for agg in aggs for name, tree in splitter.named(agg)]
    if not keys and not splitter.parts:
        splitter.split("Len", "Len")  # one row must be kept, or there would be no group to put out
    parts = tuple(splitter.parts.values())
    state = pl.Schema({p.name: p.dtype for p in parts})
    if taken := set(keys) & {*state, *(f"{name}{OLD}" for name in state)}:
        msg = f"group_by key {taken.pop()!r} is also the name of a column of the state; rename the key"
        raise PlanError(msg)
    stored = pl.LazyFrame(schema={**{k: schema[k] for k in keys}, **state})
    output = _resolved(stored.select(*keys, *results), "agg")
    return SplitAggregate(
        state_schema=state,
        output_schema=output,
        fingerprint=splitter.trees,
        parts=parts,
        results=tuple(results),
        plain=tuple(splitter.plain),
    )


def _resolved(query: pl.LazyFrame, what: str) -> pl.Schema:
    try:
        return query.collect_schema()
    except pl.exceptions.PolarsError as cause:
        msg = f"{what} does not fit the stream: {str(cause).splitlines()[0]}"
        raise PlanError(msg) from cause


class _Splitter:
    """Walks expressions and collects the parts they need; equal aggregates share their parts."""

    def __init__(self, keys: Sequence[str], schema: pl.Schema) -> None:
        self.parts: dict[str, Part] = {}
        self.trees: list[list[Any]] = []
        self.plain: list[pl.Expr] = []
        self._keys = list(keys)
        self._rows = pl.LazyFrame(schema=schema)

    def named(self, agg: pl.Expr) -> list[tuple[str, Tree]]:
        """Return name and tree of each result an expression stands for."""
        tree = tree_of(agg, verb="agg")
        names = self._schema(agg, f"agg: {agg}").names()
        trees = expanded(
            tree, lambda selector: [n[1:] for n in self._schema(expression_of(selector).first().name.prefix("_"), "agg").names()]
        )
        if len(names) != len(trees):
            msg = f"agg: {agg} stands for {len(names)} columns in a way that cannot be followed; write one expression for each column"
            raise PlanError(msg)
        return list(zip(names, trees, strict=True))

    def _schema(self, agg: pl.Expr, what: str) -> pl.Schema:
        """Return names and dtypes Polars gives the results of an aggregation, without the keys."""
        schema = _resolved(_grouped(self._rows, self._keys, [agg]), what)
        return pl.Schema(list(schema.items())[len(self._keys) :])

    def _name(self, tree: Tree) -> str:
        return self._rows.select(expression_of(tree)).collect_schema().names()[0]

    def _dtype(self, tree: Tree) -> pl.DataType:
        return self._rows.select(expression_of(tree).alias("out")).collect_schema()["out"]

    def result(self, name: str, tree: Tree) -> pl.Expr:
        """Return the expression over partial columns that gives what ``tree`` gives over rows."""
        finished: dict[str, Tree] = {}
        rest = self._without_aggregates(tree, finished)
        if stray := next((body for tag, body in leaves(rest) if tag == "Column" and body not in finished), None):
            msg = (
                f"agg: {expression_of(tree)} takes column {stray!r} as it is, which gives no single value per group; "
                f"write pl.col({stray!r}).implode() for the list of values, or .first(), .sum() ..."
            )
            raise PlanError(msg)
        try:
            rows_of(rest)
        except NotRowWiseError as found:
            raise _refused(tree, found.tag, found.spoken, found.instead) from None
        self.trees.append([name, tree])
        self.plain.append(expression_of(self._widened(tree)).alias(name))
        return expression_of(_put(rest, finished)).alias(name)

    def _without_aggregates(self, tree: Tree, finished: dict[str, Tree]) -> Tree:
        """Return the tree with a column in the place of each aggregate; ``finished`` gets what that column is."""
        kind = _kind(tree)
        if kind in SPLITS and not is_constant(tree):
            column = f"__agg{len(finished)}"
            finished[column] = tree_of(self.split(tree, kind), verb="agg")
            return {"Alias": [{"Column": column}, self._name(tree)]}
        if kind in INSTEAD:
            raise _refused(tree, kind, spoken(kind), "")
        if kind == "KeepName":  # it asks for the name of a column that is no longer there
            return {"Alias": [self._without_aggregates(tree[kind], finished), self._name(tree)]}
        return with_operands(tree, lambda part: self._without_aggregates(part, finished))

    def split(self, tree: Tree, kind: str) -> pl.Expr:
        """Note the parts of one aggregate, and return what finishes it."""
        inputs = operands(tree)
        if kind == "Quantile" and is_constant(inputs[1]) and not pl.select(expression_of(inputs.pop())).dtypes[0].is_numeric():
            raise _refused(tree, "", "a list of quantiles", "one .quantile(q) for each")
        try:
            where = rows_of({"Function": {"input": inputs, "function": "AsStruct"}}, changing=CHANGING) or ALL_ROWS
        except NotRowWiseError as found:
            raise _refused(tree, found.tag, f"{found.spoken} below {spoken(kind)}", found.instead) from None
        split = SPLITS[kind].split(self._asked(tree, kind, inputs, where))
        self.parts.update({p.name: p for p in split.parts if p.name not in self.parts})
        return split.finish

    def _asked(self, tree: Tree, kind: str, inputs: Sequence[Tree], where: str) -> Asked:
        dtypes = [self._dtype(i) for i in inputs]
        takes = [SPLITS[kind].takes, ordered][: len(inputs)]
        for dtype, accepts in zip(dtypes, takes, strict=True):
            if not accepts(dtype):
                msg = f"agg: {expression_of(tree)}: {spoken(kind)} takes {SPLITS[kind].what}, not {dtype}; cast the column"
                raise PlanError(msg)
        body = node(tree)[1]
        return Asked(
            tree=tree,
            rows=expression_of(inputs[0]) if inputs else pl.lit(0),
            label=_label(inputs[0]) if inputs else "",
            where="" if where == ALL_ROWS else _digest(where),
            dtype=self._schema(expression_of(tree).alias("__out"), "agg").dtypes()[0],
            input_dtype=dtypes[0] if dtypes else pl.UInt32(),
            by=expression_of(inputs[1]) if len(inputs) > 1 else None,
            by_label=_label(inputs[1]) if len(inputs) > 1 else "",
            by_dtype=dtypes[1] if len(inputs) > 1 else pl.UInt32(),
            options=function_of(body)[1] if "Function" in tree else node(body)[1] if body else None,
        )

    def _widened(self, tree: Tree) -> Tree:
        """Return the tree with sums and products of integers in 128 bits, cast to Int64, as ours are, and with ties as we break them."""
        kind = _kind(tree)
        if kind in ("MinBy", "MaxBy"):
            values, by = map(expression_of, operands(tree))
            return tree_of(first_at(kind[:3].lower(), values, by), verb="agg")
        if kind in ("Sum", "Product") and self._dtype(operands(tree)[0]).is_integer():
            values = expression_of(operands(tree)[0])
            exact = exact_sum(values, self._dtype(operands(tree)[0])) if kind == "Sum" else exact_product(values)
            return tree_of(exact.cast(pl.Int64), verb="agg")
        return with_operands(tree, self._widened)


def _kind(tree: Tree) -> str:
    """Return the name of an aggregate, or else of a node."""
    tag, body = node(tree)
    if tag == "Agg":
        return str(node(body)[0])
    return function_of(body)[0] if tag == "Function" else tag


def _put(tree: Tree, finished: dict[str, Tree]) -> Tree:
    """Return the tree with its columns replaced by what they are."""
    tag, body = node(tree)
    return finished[body] if tag == "Column" else with_operands(tree, lambda part: _put(part, finished))


def _label(tree: Tree) -> str:
    """Return a column's name; for an expression its columns and a digest, for how Polars prints one may change."""
    tag, body = node(tree)
    if tag == "Column":
        return str(body)
    columns = dict.fromkeys(str(name) for leaf, name in leaves(tree) if leaf == "Column")
    return ", ".join(columns) + _digest(text_of(tree))


def _digest(text: str) -> str:
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:8]


def _refused(tree: Tree, tag: str, words: str, instead: str) -> PlanError:
    way_out = INSTEAD.get(tag) or instead or ".implode(), and compute it where the result is read"
    return PlanError(f"agg: {expression_of(tree)}: {words} cannot be kept up to date from pieces of a stream; instead: {way_out}")
