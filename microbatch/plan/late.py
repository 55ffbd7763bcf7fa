"""Which operators of a query can refuse rows as late, and the table that holds such rows: fixed by the plan."""

from __future__ import annotations

import polars as pl

from microbatch.errors import PlanError
from microbatch.model import OutputMode
from microbatch.plan.checks import stateful_nodes
from microbatch.plan.nodes import Aggregate, Limit, MapState, Node, StatefulNode, inputs_of
from microbatch.plan.schema import event_time_key, event_times, schema_of
from microbatch.plan.ttl import TimeToLive


def late_schema(node: Node, mode: OutputMode) -> pl.Schema:
    """Return the columns of the query's late rows.

    ``operator`` is the name in the checkpoint, ``event_time`` the time that was judged (of a window its end) and ``mark`` the watermark
    that refused it, both UTC; ``row`` has the columns of every operator's input that can be late, null where one has no such column.

    Raises
    ------
    PlanError
        No operator can refuse a row, or two have a column of one name in two types.
    """
    fields: dict[str, pl.DataType] = {}
    for rows in late_inputs(node, mode):
        for name, dtype in schema_of(rows).items():
            if fields.setdefault(name, dtype) != dtype:
                msg = (
                    f"late_rows= keeps the rows of all operators in one table, where column {name!r} cannot be both {fields[name]} "
                    f"and {dtype}; rename or cast it before one of the operators"
                )
                raise PlanError(msg)
    if not fields:
        msg = (
            f'late_rows= would stay empty: in mode="{mode}" no operator of this query drops late rows. Leave it out, or write '
            f".with_watermark(column, delay) before a stateful verb that works by event time"
        )
        raise PlanError(msg)
    time = pl.Datetime("us")
    return pl.Schema(
        {
            "operator": pl.String(),
            "batch_id": pl.Int64(),
            "reason": pl.String(),
            "event_time": time,
            "mark": time,
            "row": pl.Struct(fields),
        }
    )


def late_inputs(node: Node, mode: OutputMode) -> list[Node]:
    """Return the inputs with event time of the operators that judge it, in plan order."""
    return [rows for stateful in stateful_nodes(node, mode) if _judges(stateful, mode) for rows in inputs_of(stateful) if event_times(rows)]


def _judges(node: StatefulNode, mode: OutputMode) -> bool:
    match node:
        case Aggregate(ttl=TimeToLive() as ttl):
            return ttl.clock == "event"
        case Aggregate():
            return (mode is not OutputMode.COMPLETE or node.session is not None) and event_time_key(node) is not None
        case MapState():
            return node.judges_time
        case Limit():
            return False
        case _:
            return True
