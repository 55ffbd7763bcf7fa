"""The columns of a node, the columns that carry event time, and the columns that identify a row: derived, never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar
from weakref import WeakKeyDictionary

import polars as pl

from microbatch.errors import PlanError
from microbatch.plan.aggregates import split_aggregates
from microbatch.plan.join_bounds import JoinBounds, join_bounds
from microbatch.plan.join_columns import JoinColumns, join_columns
from microbatch.plan.nodes import (
    Aggregate,
    AssignSession,
    AssignWindow,
    Deduplicate,
    JoinStatic,
    JoinStreams,
    Limit,
    MapBatches,
    MapState,
    Node,
    RowWise,
    Scan,
    Static,
    Union,
    WithWatermark,
    walk,
)
from microbatch.plan.run import run_node
from microbatch.plan.ttl import EXPIRED
from microbatch.plan.window import window_time

T = TypeVar("T")


def _once(function: Callable[[Node], T]) -> Callable[[Node], T]:
    """Remember the answer for as long as the node lives."""
    answers: WeakKeyDictionary[Node, T] = WeakKeyDictionary()

    def answer(node: Node) -> T:
        if node not in answers:
            answers[node] = function(node)
        return answers[node]

    answer.__doc__ = function.__doc__
    return answer


@_once
def schema_of(node: Node) -> pl.Schema:
    """Return the columns of a node's rows; PlanError if the node does not fit its input."""
    match node:
        case Scan():
            return node.source.schema()
        case Static():
            return node.frame.collect_schema()
        case MapBatches():
            return node.schema
        case Aggregate():
            result = split_aggregates(node.aggs, keys=node.keys, schema=schema_of(node.input)).output_schema
            return pl.Schema({**result, EXPIRED: pl.Boolean()}) if node.ttl is not None and node.ttl.emits else result
        case Deduplicate() | Limit():
            return schema_of(node.input)
        case MapState():
            inside = schema_of(node.input)
            return pl.Schema({**{k: inside[k] for k in node.keys}, **node.output})
        case RowWise() | WithWatermark() | AssignWindow() | AssignSession():
            inputs = [node.input]
        case Union():
            inputs = list(node.inputs)
        case JoinStatic() | JoinStreams():
            inputs = [node.left, node.right]
    try:
        return run_node(node, [pl.LazyFrame(schema=schema_of(i)) for i in inputs], schema_of).collect_schema()
    except pl.exceptions.PolarsError as cause:
        columns = "; and ".join(str(dict(schema_of(i))) for i in inputs)
        msg = f"{_verb(node)} does not fit its input: {str(cause).splitlines()[0]}. The stream has {columns}"
        raise PlanError(msg) from cause


def _verb(node: Node) -> str:
    return node.verb if isinstance(node, RowWise) else type(node).__name__


@_once
def event_times(node: Node) -> dict[str, bool]:
    """Return the columns that carry event time; True for the end of a window, False for an instant."""
    match node:
        case Scan() | Static() | MapState():
            return {}  # when the rows a function makes took place, only the function knows
        case MapBatches():
            return {c: is_end for c, is_end in event_times(node.input).items() if c in node.keeps}
        case WithWatermark():
            return {node.column: False}
        case AssignWindow() | AssignSession():
            inside = event_times(node.input)
            time = node.window.time if isinstance(node, AssignWindow) else node.session.time
            carries = _copied(time, inside) is not None
            kept = {c: is_end for c, is_end in inside.items() if c not in node.names}
            return kept | ({node.names[1]: True} if carries else {})
        case Aggregate():
            return {c: is_end for c, is_end in event_times(node.input).items() if c in node.keys}
        case Deduplicate() | Limit():
            return event_times(node.input)
        case Union():
            every = [event_times(i) for i in node.inputs]
            return {c: is_end for times in every for c, is_end in times.items()}
        case JoinStreams():
            return _joined_times(node)
        case JoinStatic():
            both = {**event_times(node.left), **event_times(node.right)}
            return {c: is_end for c, is_end in both.items() if c in schema_of(node)}
        case RowWise():
            return _through(node, event_times(node.input))


def columns_of_join(node: JoinStreams) -> JoinColumns:
    """Return the columns of a join of two streams."""
    return join_columns(node, schema_of(node.left), schema_of(node.right))


def bounds_of_join(node: JoinStreams) -> JoinBounds:
    """Return how long the rows of each side of a join of two streams can still meet others."""
    return join_bounds(node, event_times(node.left), event_times(node.right), columns_of_join(node).right.names)


def _joined_times(node: JoinStreams) -> dict[str, bool]:
    """Return the event times of both sides under their names in the result.

    A column that holds keys of both sides is one if both are, in an inner join, where they are equal, if one of them is.
    """
    columns = columns_of_join(node)
    both = {columns.sides[s].names[c]: e for s, n in (("left", node.left), ("right", node.right)) for c, e in event_times(n).items()}
    if node.how == "inner":
        for pair in zip(columns.left.keys, columns.right.keys, strict=True):
            both |= dict.fromkeys(pair, max(both[c] for c in pair if c in both)) if both.keys() & set(pair) else {}
    found: dict[str, bool] = {}
    for expression in columns.output:
        roots = expression.meta.root_names()
        if all(c in both for c in roots):
            found[expression.meta.output_name()] = both[roots[0]]
    return found


@_once
def row_keys(node: Node) -> tuple[str, ...]:
    """Return the columns by which a later row replaces an earlier one (the grouping keys), empty if there are none."""
    match node:
        case Aggregate() | MapState():
            return node.keys
        case RowWise():
            inside = row_keys(node.input)
            outside = _through(node, dict.fromkeys(inside, False))
            return tuple(outside) if len(outside) == len(inside) else ()
        case WithWatermark() | Limit() | Deduplicate():
            return row_keys(node.input)
        case MapBatches():
            keys = row_keys(node.input)
            return keys if set(keys) <= set(node.keeps) else ()
        case _:
            return ()


def watermark_delay_us(node: Node) -> int:
    """Return the longest delay of the watermarks a node's rows passed, 0 if none."""
    return max((n.delay_us for n in walk(node) if isinstance(n, WithWatermark)), default=0)


def stored_type(dtype: pl.DataType) -> pl.DataType:
    """Return the type a key is stored as: categories' codes mean something in one process only, so these are kept as their text."""
    return pl.String() if isinstance(dtype, (pl.Categorical, pl.Enum)) else dtype


def event_time_key(node: Aggregate) -> str | None:
    """Return the key column whose passing by the watermark closes a group, None if there is none."""
    times = event_times(node)
    return max(times, key=lambda column: times[column], default=None)


def _through(node: RowWise, inside: dict[str, bool]) -> dict[str, bool]:
    """Return which columns behind a verb are untouched copies of the columns ``inside``."""
    if node.verb == "rename":
        names = node.args[0]
        assert isinstance(names, dict)
        return {str(names.get(c, c)): flag for c, flag in inside.items()}
    if node.verb in ("select", "with_columns"):
        outside = {} if node.verb == "select" else dict(inside)
        for name, flag in _outputs(node, inside):
            outside.pop(name, None)
            if flag is not None:
                outside[name] = flag
        return outside
    if node.verb in ("cast", "fill_null", "explode"):
        before, after = schema_of(node.input), schema_of(node)
        return {c: flag for c, flag in inside.items() if before[c] == after.get(c)}
    return {c: flag for c, flag in inside.items() if c in schema_of(node)}


def _outputs(node: RowWise, inside: dict[str, bool]) -> Iterable[tuple[str, bool | None]]:
    """Yield for each expression of a verb its output names, and the flag of the column of ``inside`` it is a copy of, None for others."""
    before = pl.LazyFrame(schema=schema_of(node.input))
    expressions = [e for e in node.args if isinstance(e, pl.Expr)]
    for expression in expressions:
        for name in before.select(expression).collect_schema().names():
            yield name, inside.get(name) if expression.meta.is_column_selection() else _copied(expression, inside)


def _copied(expression: pl.Expr, inside: dict[str, bool]) -> bool | None:
    """Return the flag of the column of ``inside`` that an expression copies; the window time of a window's end is an instant; else None."""
    bare = expression.meta.undo_aliases()
    for column, is_end in inside.items():
        if bare.meta.eq(pl.col(column)):
            return is_end
        if is_end and bare.meta.eq(window_time(column).meta.undo_aliases()):
            return False
    return None
