"""The names users give to the operators that keep state."""

from __future__ import annotations

import re
from dataclasses import replace

from microbatch.errors import PlanError
from microbatch.plan.nodes import Node, RowWise, StatefulNode

_NAME = re.compile(r"\w[\w.\-]*")


def checked_name(name: str) -> str:
    """Return a name that can stand in a checkpoint; PlanError for another."""
    if not _NAME.fullmatch(name):
        msg = f"the name {name!r} of an operator may hold letters, digits, '_', '-' and '.', and begins with a letter or digit"
        raise PlanError(msg)
    return name


def named(node: Node, name: str) -> Node:
    """Return the plan with its last operator, which keeps state, named; PlanError if it keeps none."""
    if isinstance(node, StatefulNode):
        return replace(node, name=checked_name(name))
    if isinstance(node, RowWise) and node.verb == "rename":  # group_by gives keys their names back behind the aggregation
        return replace(node, input=named(node.input, name))
    what = node.verb if isinstance(node, RowWise) else type(node).__name__
    msg = f"named({name!r}): {what} keeps no state; write it right behind the verb it names: .group_by(...).agg(...).named({name!r})"
    raise PlanError(msg)
