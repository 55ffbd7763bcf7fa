"""Expressions as trees: ``Expr.meta.serialize(format="json")``, parsed, changed and put together again.

A tree is a node, ``{"Tag": body}``, or the bare ``"Tag"`` if it has no body (``"Len"``, ``"Element"``). Which parts of a body are nodes
again is known by tag only: a column may be called ``"Len"``, and the body of a ``Literal`` is data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from typing import Any, TypeAlias

import polars as pl

from microbatch.errors import PlanError

Tree: TypeAlias = Any  # what json.loads gives

# Where the operands stand in the body of a node: a node, or a list of nodes. Agg and KeepName are their bodies' own.
_SLOTS: dict[str, tuple[str | int, ...]] = {
    "Column": (),
    "Selector": (),
    "Literal": (),
    "Field": (),
    "Alias": (0,),
    "RenameAlias": ("expr",),
    "Cast": ("expr",),
    "BinaryExpr": ("left", "right"),
    "Ternary": ("predicate", "truthy", "falsy"),
    "Function": ("input",),
    "StructEval": ("expr", "evaluation"),
    "Eval": ("expr",),  # its evaluation works on the elements of one list, not on rows
    "Filter": ("input", "by"),
    "Explode": ("input",),
}
# Functions that take all columns of a selector as their arguments, where others are repeated for each column.
_TAKE_ALL = {
    "Coalesce", "AsStruct", "SumHorizontal", "MeanHorizontal", "MinHorizontal", "MaxHorizontal",
    "Boolean.AnyHorizontal", "Boolean.AllHorizontal", "StringExpr.ConcatHorizontal", "ListExpr.Concat", "ArrayExpr.Concat",
}  # fmt: skip
_PYTHON = {"AnonymousFunction", "PipeWithDtype", "FoldHorizontal", "CumFoldHorizontal"}


def tree_of(expression: pl.Expr, *, verb: str) -> Tree:
    """Return the tree of an expression; PlanError if it calls a Python function, which cannot be looked into."""
    try:
        tree = json.loads(expression.meta.serialize(format="json"))
    except (pl.exceptions.ComputeError, ModuleNotFoundError) as cause:
        raise _calls_python(verb) from cause
    # With cloudpickle installed functions do serialise, but what is allowed must not depend on what is installed.
    if _PYTHON & {name for name, _ in everything_in(tree)}:
        raise _calls_python(verb)
    return tree


def _calls_python(verb: str) -> PlanError:
    return PlanError(
        f"{verb}: an expression calls a Python function (map_elements, map_batches, fold, reduce, inspect, name.map ...), and whether that "
        f"looks at one row at a time cannot be seen; declare it with StreamFrame.map_batches(function, row_wise=True), before this {verb}"
    )


def expression_of(tree: Tree) -> pl.Expr:
    """Return the expression of a tree."""
    return pl.Expr.deserialize(StringIO(json.dumps(tree)), format="json")


def text_of(tree: Tree) -> str:
    """Return a text that is the same for equal trees."""
    return json.dumps(tree, sort_keys=True)


def node(tree: Tree) -> tuple[str, Any]:
    """Return tag and body of a node, or name and options of a function; a bare one has None."""
    return next(iter(tree.items())) if isinstance(tree, dict) else (tree, None)


def function_of(body: Any) -> tuple[str, Any]:
    """Return name and options of a function node by its body; the name has both levels: ``"Abs"``, ``"Boolean.IsNull"``."""
    name, options = node(body["function"])
    if isinstance(options, str) and options[:1].isupper():
        return f"{name}.{options}", None
    if isinstance(options, dict) and len(options) == 1 and next(iter(options))[:1].isupper():
        inner, options = node(options)
        return f"{name}.{inner}", options
    return name, options


def with_operands(tree: Tree, change: Callable[[Tree], Tree]) -> Tree:
    """Return a node with each of its operands, which are nodes, changed; an unknown node as it is."""
    tag, body = node(tree)
    if tag == "KeepName":
        return {tag: change(body)}
    if tag == "Agg":
        kind, inner = node(body)
        return {tag: {kind: _with_aggregated(inner, change)}}
    if body is None or not _SLOTS.get(tag):
        return tree
    copy = body.copy()
    for slot in _SLOTS[tag]:
        copy[slot] = [change(part) for part in body[slot]] if isinstance(body[slot], list) else change(body[slot])
    return {tag: copy}


def _with_aggregated(inner: Any, change: Callable[[Tree], Tree]) -> Any:
    if isinstance(inner, list):
        return [change(inner[0]), *inner[1:]]
    return {**inner, "input": change(inner["input"])} if isinstance(inner, dict) and "input" in inner else change(inner)


def operands(tree: Tree) -> list[Tree]:
    """Return the nodes that a node works on."""
    found: list[Tree] = []

    def note(part: Tree) -> Tree:
        found.append(part)
        return part

    with_operands(tree, note)
    return found


def leaves(tree: Tree) -> Iterator[tuple[str, Any]]:
    """Yield tag and body of the nodes below (or at) a node that have no operands: columns, constants, ``Len``; and of unknown ones."""
    parts = operands(tree)
    if not parts:
        yield node(tree)
    for part in parts:
        yield from leaves(part)


def everything_in(tree: Tree) -> Iterator[tuple[str, Any]]:
    """Yield every tag with its body, and every function's name with its options, wherever they stand; constants are not looked into."""
    if isinstance(tree, dict):
        for tag, body in tree.items():
            yield tag, body
            if tag == "Function":
                yield function_of(body)
            if tag != "Literal":
                yield from everything_in(body)
    elif isinstance(tree, list):
        for part in tree:
            yield from everything_in(part)


def expanded(tree: Tree, columns: Callable[[Tree], Sequence[str]]) -> list[Tree]:
    """Return one tree for each column that the selectors in a tree stand for, as Polars expands them.

    ``columns`` gives the names a selector node stands for. Several selectors advance together; one column goes with each of many.

    Raises
    ------
    PlanError
        Two selectors of different length.
    """
    tag, body = node(tree)
    if tag == "Selector":
        return [{"Column": name} for name in columns(tree)]
    choices = [expanded(part, columns) for part in operands(tree)]
    if tag == "Function" and function_of(body)[0] in _TAKE_ALL:
        return [{tag: {**body, "input": [one for parts in choices for one in parts]}}]
    lengths = {len(c) for c in choices} - {1}
    if len(lengths) > 1:
        msg = f"selectors of different length, {sorted(lengths)}, stand in one expression; write the columns out"
        raise PlanError(msg)
    return [_with_choice(tree, choices, k) for k in range(lengths.pop() if lengths else 1)]


def _with_choice(tree: Tree, choices: Sequence[list[Tree]], k: int) -> Tree:
    chosen = iter([c[k if len(c) > 1 else 0] for c in choices])
    return with_operands(tree, lambda _: next(chosen))


def conjuncts(tree: Tree) -> list[Tree]:
    """Return the conditions that all hold where a condition holds: what ``&``, ``all_horizontal`` and ``is_between`` put together."""
    tag, body = node(tree)
    if tag == "BinaryExpr" and body["op"] in ("And", "LogicalAnd"):
        return [*conjuncts(body["left"]), *conjuncts(body["right"])]
    if tag == "Alias":
        return conjuncts(body[0])
    if tag == "Function" and function_of(body)[0] == "Boolean.AllHorizontal":
        return [part for given in body["input"] for part in conjuncts(given)]
    if tag == "Function" and function_of(body)[0] == "Boolean.IsBetween":
        value, low, high = body["input"]
        closed = function_of(body)[1]["closed"]
        return [
            {"BinaryExpr": {"left": value, "op": "GtEq" if closed in ("Both", "Left") else "Gt", "right": low}},
            {"BinaryExpr": {"left": value, "op": "LtEq" if closed in ("Both", "Right") else "Lt", "right": high}},
        ]
    return [tree]
