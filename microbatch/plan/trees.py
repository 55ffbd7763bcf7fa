"""Expressions as trees: ``Expr.meta.serialize(format="json")``, parsed, changed and put together again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any, TypeAlias

import polars as pl

from microbatch.errors import PlanError

Tree: TypeAlias = Any  # what json.loads gives: a node is {"Tag": body} or a bare "Tag"


def tree_of(expression: pl.Expr, *, verb: str) -> Tree:
    """Return the tree of an expression; PlanError if it holds a Python function, which has none."""
    try:
        return json.loads(expression.meta.serialize(format="json"))
    except (pl.exceptions.ComputeError, ModuleNotFoundError) as cause:
        msg = (
            f"{verb}: an expression calls a Python function (map_elements or map_batches), which cannot be checked to look at one row at a "
            f"time; use StreamFrame.map_batches(function, row_wise=True) for the whole frame instead"
        )
        raise PlanError(msg) from cause


def expression_of(tree: Tree) -> pl.Expr:
    """Return the expression of a tree."""
    return pl.Expr.deserialize(StringIO(json.dumps(tree)), format="json")


def node(tree: Tree) -> tuple[str, Any] | None:
    """Return tag and body if this part of a tree is a node, None if it is a list, an option or a value."""
    if isinstance(tree, dict) and len(tree) == 1:
        tag, body = next(iter(tree.items()))
        return (tag, body) if tag[:1].isupper() else None
    return (tree, None) if isinstance(tree, str) and tree[:1].isupper() else None


def function_name(body: Any) -> tuple[str, str | None]:
    """Return group and name of a function node: ``("Boolean", "IsNull")``, or ``("Abs", None)`` for one without a group."""
    function = body["function"]
    if isinstance(function, str):
        return function, None
    group, inner = next(iter(function.items()))
    if isinstance(inner, str):
        return group, inner
    return group, next(iter(inner)) if isinstance(inner, dict) and len(inner) >= 1 and next(iter(inner))[:1].isupper() else None


def columns_in(tree: Tree) -> Iterator[str]:
    """Yield the names of the columns a tree reads."""
    if isinstance(tree, dict):
        for tag, body in tree.items():
            if tag == "Column" and isinstance(body, str):
                yield body
            elif tag != "Literal":
                yield from columns_in(body)
    elif isinstance(tree, list):
        for part in tree:
            yield from columns_in(part)


def expanded(expression: pl.Expr, schema: pl.Schema, *, verb: str) -> list[Tree]:
    """Return one tree for each column a selector or ``pl.all()`` in the expression stands for; one tree if there is none."""
    tree = tree_of(expression, verb=verb)
    selectors = list(_selectors(tree))
    if not selectors:
        return [tree]
    chosen = [pl.LazyFrame(schema=schema).select(expression_of(s)).collect_schema().names() for s in selectors]
    if len({len(names) for names in chosen}) > 1:
        msg = f"{verb}: {expression} has selectors of different length, {[len(n) for n in chosen]}; write the columns out"
        raise PlanError(msg)
    return [_with_columns(tree, [names[k] for names in chosen]) for k in range(len(chosen[0]))]


def _selectors(tree: Tree) -> Iterator[Tree]:
    if isinstance(tree, dict):
        for tag, body in tree.items():
            if tag == "Selector":
                yield {tag: body}
            elif tag != "Literal":
                yield from _selectors(body)
    elif isinstance(tree, list):
        for part in tree:
            yield from _selectors(part)


def _with_columns(tree: Tree, names: list[str]) -> Tree:
    """Return the tree with its selectors replaced by columns, from left to right."""
    left = iter(names)

    def put(part: Tree) -> Tree:
        if isinstance(part, dict):
            return {"Column": next(left)} if "Selector" in part else {t: b if t == "Literal" else put(b) for t, b in part.items()}
        return [put(p) for p in part] if isinstance(part, list) else part

    return put(tree)
