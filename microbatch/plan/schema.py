"""The columns of a node, the columns that carry event time, and the columns that identify a row: derived, never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

import polars as pl

from microbatch.errors import PlanError
from microbatch.plan.aggregates import split_aggregates
from microbatch.plan.join_bounds import JoinBounds, join_bounds, time_of
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


@dataclass(frozen=True, slots=True)
class EventTime:
    """What a column tells of event time.

    ``origin`` is what it was first told by: two columns of one origin and kind have equal values in each row.
    """

    is_end: bool
    origin: object


def event_times(node: Node) -> dict[str, bool]:
    """Return the columns that carry event time; True for the end of a window, False for an instant."""
    return {column: time.is_end for column, time in _carried(node).items()}


def event_time(node: Node) -> str | None:
    """Return the column by which rows are late: an end of a window before an instant; None if none carries event time."""
    return time_of(event_times(node))


def rival_event_times(node: Node) -> list[str]:
    """Return the columns that tell of different event times, of one kind; empty if all of a kind are copies of one another."""
    for is_end in (True, False):
        of_kind = {c: time.origin for c, time in _carried(node).items() if time.is_end is is_end}
        if len(set(of_kind.values())) > 1:
            return list(of_kind)
    return []


@_once
def _carried(node: Node) -> dict[str, EventTime]:
    match node:
        case Scan() | Static():
            return {}
        case MapState():  # when the rows a function makes took place, only the function knows
            return {} if node.event_time is None else {node.event_time: EventTime(is_end=False, origin=node)}
        case MapBatches():
            return {c: time for c, time in _carried(node.input).items() if c in node.keeps}
        case WithWatermark():
            return {node.column: EventTime(is_end=False, origin=node)}
        case AssignWindow() | AssignSession():
            inside = _carried(node.input)
            time = node.window.time if isinstance(node, AssignWindow) else node.session.time
            kept = {c: at for c, at in inside.items() if c not in node.names}
            return kept | ({node.names[1]: EventTime(is_end=True, origin=node)} if _copied(time, inside) else {})
        case Aggregate():
            return {c: time for c, time in _carried(node.input).items() if c in node.keys}
        case Deduplicate() | Limit():
            return _carried(node.input)
        case Union():
            return _united([_carried(i) for i in node.inputs])
        case JoinStreams():
            return _joined_times(node)
        case JoinStatic():
            both = {**_carried(node.left), **_carried(node.right)}
            return {c: time for c, time in both.items() if c in schema_of(node)}
        case RowWise():
            return _through(node, _carried(node.input))


def _united(inputs: Sequence[Mapping[str, EventTime]]) -> dict[str, EventTime]:
    """Return the event times of all inputs; columns are copies of one another if they are in every input."""
    every = {c: time.is_end for times in inputs for c, time in times.items()}
    return {c: EventTime(is_end=is_end, origin=tuple(times.get(c) for times in inputs)) for c, is_end in every.items()}


def columns_of_join(node: JoinStreams) -> JoinColumns:
    """Return the columns of a join of two streams."""
    return join_columns(node, schema_of(node.left), schema_of(node.right))


def bounds_of_join(node: JoinStreams) -> JoinBounds:
    """Return how long the rows of each side of a join of two streams can still meet others."""
    left, right = event_times(node.left), event_times(node.right)
    dtypes = [schema_of(node.left)[c] for c in left] + [schema_of(node.right)[c] for c in right]
    finest = any(isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns" for dtype in dtypes)
    return join_bounds(node, left, right, columns_of_join(node).right.names, in_nanoseconds=finest)


def _joined_times(node: JoinStreams) -> dict[str, EventTime]:
    """Return the event times of both sides under their names in the result; a side's times are copies of one another still.

    A column that holds keys of both sides is one if both are, in an inner join, where they are equal, if one of them is.
    """
    columns = columns_of_join(node)
    both = {
        columns.sides[s].names[c]: EventTime(is_end=time.is_end, origin=(node, s, time.origin))
        for s, n in (("left", node.left), ("right", node.right))
        for c, time in _carried(n).items()
    }
    if node.how == "inner":
        for pair in zip(columns.left.keys, columns.right.keys, strict=True):
            times = [both[c] for c in pair if c in both]
            both |= dict.fromkeys(pair, max(times, key=lambda time: time.is_end)) if times else {}
    found: dict[str, EventTime] = {}
    for expression in columns.output:
        roots, name = expression.meta.root_names(), expression.meta.output_name()
        if all(c in both for c in roots):
            first = both[roots[0]]
            found[name] = first if len(roots) == 1 else EventTime(is_end=first.is_end, origin=(node, name))
    return found


@_once
def row_keys(node: Node) -> tuple[str, ...]:
    """Return the columns by which a later row replaces an earlier one (the grouping keys), empty if there are none."""
    match node:
        case Aggregate() | MapState():
            return node.keys
        case RowWise():
            inside = row_keys(node.input)
            outside = _through(node, dict.fromkeys(inside, EventTime(is_end=False, origin=None)))
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
    return event_time(node)


def _through(node: RowWise, inside: Mapping[str, EventTime]) -> dict[str, EventTime]:
    """Return which columns behind a verb are untouched copies of the columns ``inside``."""
    if node.verb == "rename":
        names = node.args[0]
        assert isinstance(names, dict)
        return {str(names.get(c, c)): time for c, time in inside.items()}
    if node.verb in ("select", "with_columns"):
        outside = {} if node.verb == "select" else dict(inside)
        for name, time in _outputs(node, inside):
            outside.pop(name, None)
            if time is not None:
                outside[name] = time
        return outside
    if node.verb in ("cast", "fill_null", "explode"):
        before, after = schema_of(node.input), schema_of(node)
        return {c: time for c, time in inside.items() if before[c] == after.get(c)}
    return {c: time for c, time in inside.items() if c in schema_of(node)}


def _outputs(node: RowWise, inside: Mapping[str, EventTime]) -> Iterable[tuple[str, EventTime | None]]:
    """Yield for each expression of a verb its output names, and the event time it copies, None for others."""
    before = pl.LazyFrame(schema=schema_of(node.input))
    expressions = [e for e in node.args if isinstance(e, pl.Expr)]
    for expression in expressions:
        for name in before.select(expression).collect_schema().names():
            yield name, inside.get(name) if expression.meta.is_column_selection() else _copied(expression, inside)


def _copied(expression: pl.Expr, inside: Mapping[str, EventTime]) -> EventTime | None:
    """Return the event time of the column that an expression copies; the window time of a window's end is an instant; else None."""
    bare = expression.meta.undo_aliases()
    for column, time in inside.items():
        if bare.meta.eq(pl.col(column)):
            return time
        if time.is_end and bare.meta.eq(window_time(column).meta.undo_aliases()):
            return EventTime(is_end=False, origin=time.origin)
    return None
