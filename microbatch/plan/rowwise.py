"""Tells whether an expression looks at one row at a time, by a list of what does; what is not on it is refused by name.

``Expr.meta.is_row_separable`` looks at the outermost node only, so it calls ``a - a.mean()`` row-wise. A stream is cut anywhere:
an expression over other rows would give another answer for each cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from microbatch.errors import PlanError
from microbatch.plan.trees import Tree, function_name, node, tree_of

_NODES = {"BinaryExpr", "Ternary", "Cast", "Alias", "Field", "Element", "KeepName", "RenameAlias", "StructEval"}
_GROUPS = {
    "StringExpr": {"ConcatVertical"}, "TemporalExpr": set[str](), "ListExpr": {"Sample"}, "ArrayExpr": {"Sample"}, "StructExpr": set[str](),
    "BinaryExpr": set[str](), "Categorical": set[str](), "Trigonometry": set[str](), "Pow": set[str](), "Business": set[str](),
    "MapExpr": set[str](),
}  # fmt: skip
"""Groups of functions that are row-wise, with the members that are not."""
_MEMBERS = {
    "Boolean": {
        "Not", "IsNull", "IsNotNull", "IsFinite", "IsInfinite", "IsNan", "IsNotNan", "IsIn", "IsBetween", "IsClose", "AnyHorizontal",
        "AllHorizontal",
    },
    "Bitwise": {"CountOnes", "CountZeros", "LeadingOnes", "LeadingZeros", "TrailingOnes", "TrailingZeros"},
    "Range": {"IntRanges", "DateRanges", "DatetimeRanges", "TimeRanges"},
}  # fmt: skip
"""Groups of which only these members are row-wise."""
_FUNCTIONS = {
    "Abs", "Negate", "Exp", "Log", "Log1p", "Expm1", "Floor", "Ceil", "Round", "RoundSF", "Truncate", "Clip", "Sign", "Atan2", "FillNull",
    "Hash", "Replace", "ReplaceStrict", "Coalesce", "AsStruct", "SumHorizontal", "MeanHorizontal", "MaxHorizontal", "MinHorizontal", "Cut",
    "Reinterpret", "ToPhysical", "RepeatBy",
}  # fmt: skip
"""Functions without a group that are row-wise."""

_INSTEAD = (
    "write a group_by(...).agg(...), a join with a bounded frame that holds the figure, or sink_foreach_batch(function) "
    "if a batch's own rows are really meant"
)


def check_row_wise(expressions: Sequence[pl.Expr], *, verb: str, allow_filter: bool = False) -> None:
    """Raise PlanError unless every expression gives each row its value from that row alone.

    ``verb`` names the caller in the message; ``allow_filter`` lets ``.filter`` and ``.drop_nulls`` through, for inputs of aggregates.
    """
    for expression in expressions:
        found = stranger(tree_of(expression, verb=verb), allow_filter=allow_filter)
        if found is not None:
            msg = (
                f"{verb}: {expression} looks at other rows ({spoken(found)}), and a batch is only a piece of the stream, so its value "
                f"would depend on where the stream is cut; {_INSTEAD}"
            )
            raise PlanError(msg)


def stranger(tree: Tree, *, allow_filter: bool = False) -> str | None:
    """Return the name of the first node that looks at other rows, None if there is none."""
    if isinstance(tree, list):
        return next((found for part in tree if (found := stranger(part, allow_filter=allow_filter))), None)
    if not isinstance(tree, dict):
        return tree if tree == "Len" else None
    at = node(tree)
    if at is None or at[0] in ("Literal", "Column", "Selector"):
        return None if at else stranger(list(tree.values()), allow_filter=allow_filter)
    tag, body = at
    if tag == "Eval":  # list.eval and list.agg look at one list: the row's own
        return stranger(body["expr"], allow_filter=allow_filter)
    if tag == "Function":
        return _strange_function(body, allow_filter=allow_filter) or stranger(body["input"], allow_filter=allow_filter)
    if tag not in _NODES and not (tag == "Filter" and allow_filter):
        return _aggregate_name(body) if tag == "Agg" else tag
    return stranger(_operands(tag, body), allow_filter=allow_filter)


def _operands(tag: str, body: Tree) -> Tree:
    """Return the parts of a node that are expressions: options such as an operator's name or a dtype are not."""
    if tag in ("BinaryExpr", "Ternary", "Filter"):
        return [part for name, part in body.items() if name != "op"]
    if tag == "Cast":
        return body["expr"]
    if tag in ("Alias", "KeepName", "RenameAlias"):
        return body[0] if isinstance(body, list) else body.get("expr", body)
    return body if isinstance(body, (dict, list)) else []


def _strange_function(body: Tree, *, allow_filter: bool) -> str | None:
    group, member = function_name(body)
    if group in _GROUPS:
        return member if member in _GROUPS[group] else None
    if group in _MEMBERS:
        return None if member in _MEMBERS[group] else member or group
    if group in _FUNCTIONS or (allow_filter and group in ("DropNulls", "DropNans")):
        return None
    return member if group in ("Random", "RollingExpr", "Range") and member else group


def _aggregate_name(body: Tree) -> str:
    return f"{next(iter(body)) if isinstance(body, dict) else body} over the whole column"


def spoken(tag: str) -> str:
    """Return a tag as users write it: ``CumSum`` is ``cum_sum``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", tag).lower()
