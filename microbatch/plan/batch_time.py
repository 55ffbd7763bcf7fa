"""The time of a batch as an expression: logged before the batch runs, so a batch that runs again sees the same time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import polars as pl

from microbatch.plan.nodes import AssignSession, AssignWindow, Node, RowWise

# A moment nobody means: stands in the expression until a batch puts its own time there.
_MOMENT = datetime(1, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
_MARK = '{"Datetime":[-62135499354321099,"Microseconds",{"inner":"UTC"}]}'


def batch_time() -> pl.Expr:
    """Return the processing time of the batch, Datetime("us", "UTC"): one value for all its rows, and for each repetition of the batch.

    This is what ``current_timestamp()`` is in Spark's streams. With ``as_batch`` it is the time of that call.
    """
    return pl.lit(_MOMENT).alias("batch_time")


def tells_time(node: Node) -> bool:
    """Return True if an expression of the node asks for the batch's time."""
    match node:
        case RowWise():
            return asks_time(node.args)
        case AssignWindow():
            return asks_time([node.window.time])
        case AssignSession():
            return asks_time([node.session.time, node.session.gap])
        case _:
            return False


def asks_time(values: Iterable[object]) -> bool:
    """Return True if one of the values, or of a list among them, is an expression that asks for the batch's time."""
    return any(asks_time(v) if isinstance(v, (list, tuple)) else isinstance(v, pl.Expr) and _MARK in _text(v) for v in values)


def at_time(node: Node, time_us: int) -> Node:
    """Return the node with the time of a batch, microseconds since 1970, where it was asked for."""
    match node:
        case RowWise():
            return replace(node, args=_timed(node.args, time_us))
        case AssignWindow():
            return replace(node, window=replace(node.window, time=_timed(node.window.time, time_us)))
        case AssignSession():
            session = node.session
            return replace(node, session=replace(session, time=_timed(session.time, time_us), gap=_timed(session.gap, time_us)))
        case _:
            return node


def _timed(value: Any, time_us: int) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_timed(v, time_us) for v in value)
    if not asks_time([value]):
        return value
    now = _MARK.replace("-62135499354321099", str(time_us))
    return pl.Expr.deserialize(StringIO(_text(value).replace(_MARK, now)), format="json")


def _text(expression: pl.Expr) -> str:
    return expression.meta.serialize(format="json")
