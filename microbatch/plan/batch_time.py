"""The time of a batch as an expression: logged before the batch runs, so a batch that runs again sees the same time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO

import polars as pl

from microbatch.plan.nodes import Node, RowWise

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
    return isinstance(node, RowWise) and any(isinstance(arg, pl.Expr) and _MARK in _text(arg) for arg in node.args)


def at_time(node: RowWise, time_us: int) -> RowWise:
    """Return the node with the time of a batch, microseconds since 1970, where it was asked for."""
    return replace(node, args=tuple(_timed(a, time_us) if isinstance(a, pl.Expr) else a for a in node.args))


def _timed(expression: pl.Expr, time_us: int) -> pl.Expr:
    now = _MARK.replace("-62135499354321099", str(time_us))
    return pl.Expr.deserialize(StringIO(_text(expression).replace(_MARK, now)), format="json")


def _text(expression: pl.Expr) -> str:
    return expression.meta.serialize(format="json")
