"""Which plans can run as a stream, in which output mode (Spark: UnsupportedOperationChecker): everything refused is refused here."""

from __future__ import annotations

from microbatch.errors import PlanError
from microbatch.model import OutputMode
from microbatch.plan.nodes import Aggregate, JoinStatic, Node, RowWise, inputs_of, is_streaming, walk
from microbatch.plan.schema import event_times, schema_of

WHOLE_RESULT_VERBS = ("sort", "limit")
"""Verbs that look at all rows of a result: right only where every batch gives the whole result."""

# Which side of a join may be the stream, so that a row's answer does not wait for rows still to come.
_STREAM_MAY_BE = {"inner": {"left", "right"}, "left": {"left"}, "semi": {"left"}, "anti": {"left"}, "right": {"right"}}


def check_streamable(node: Node, mode: OutputMode) -> None:
    """Raise PlanError, saying what to write instead, unless the plan can run as a stream in this mode."""
    if not is_streaming(node):
        msg = "no source of this query streams; it is a plain frame: use .as_batch().collect(), or start from mb.scan_files(...)"
        raise PlanError(msg)
    aggregates = [n for n in walk(node) if isinstance(n, Aggregate) and is_streaming(n)]
    if mode is OutputMode.COMPLETE and not aggregates:
        msg = 'mode="complete" gives the whole result again in each batch, so it needs a group_by(...).agg(...); use mode="append"'
        raise PlanError(msg)
    if mode is not OutputMode.APPEND and len(aggregates) > 1:
        msg = f'an aggregation after another one runs in mode="append" only (rows must be final when they are passed on), not "{mode}"'
        raise PlanError(msg)
    for aggregate in aggregates:
        _check_event_time(aggregate, mode)
    for below in walk(node):
        if isinstance(below, RowWise) and below.verb in WHOLE_RESULT_VERBS:
            _check_whole_result(below, mode)


def _check_event_time(node: Aggregate, mode: OutputMode) -> None:
    times = event_times(node)
    for is_end in (True, False):
        columns = [c for c, kind in times.items() if kind is is_end]
        if len(columns) > 1:
            msg = f"group_by has two event time keys, {columns}: the watermark can close a group by one only; keep one of them"
            raise PlanError(msg)
    if mode is OutputMode.APPEND and not times:
        seen = event_times(node.input)
        hint = f"group by mb.window({next(iter(seen))!r}, ...) too" if seen else "write .with_watermark(column, delay) before group_by"
        msg = (
            f'group_by{list(node.keys)} in mode="append" needs event time with a watermark among its keys, else no group is ever final: '
            f'{hint}, or use mode="update" or "complete"'
        )
        raise PlanError(msg)


def _check_whole_result(node: RowWise, mode: OutputMode) -> None:
    if not is_streaming(node):
        return
    if mode is not OutputMode.COMPLETE or not any(isinstance(n, Aggregate) for n in walk(node.input)):
        msg = (
            f"{node.verb}() needs all rows of the result, a batch of a stream is only a piece: it is allowed after group_by(...).agg(...) "
            f'in mode="complete"; else {node.verb} where the result is read'
        )
        raise PlanError(msg)


def check_static_join(node: JoinStatic) -> None:
    """Raise PlanError unless one side is bounded and the stream stands on a side whose rows can be answered at once."""
    how = str(node.options.get("how", "inner"))
    stream = {side for side, n in (("left", node.left), ("right", node.right)) if is_streaming(n)}
    if len(stream) == 2:
        msg = "a join of two streams is not supported; make one side a bounded frame (mb.static(frame))"
        raise PlanError(msg)
    if stream and not stream <= _STREAM_MAY_BE.get(how, set()):
        side = next(iter(stream))
        msg = (
            f'join(how="{how}") with the stream on the {side} is refused: a row of the bounded side would have to wait for all rows of the '
            f"stream; allowed: inner, left, semi, anti with the stream on the left, inner and right with the stream on the right"
        )
        raise PlanError(msg)


def check_union(inputs: tuple[Node, ...]) -> None:
    """Raise PlanError unless all inputs stream, or none, and all have the same columns and dtypes."""
    if len({is_streaming(n) for n in inputs}) > 1:
        msg = (
            "union mixes a stream and a bounded frame: the frame's rows would come again in each batch; "
            "write them to a source the stream reads"
        )
        raise PlanError(msg)
    first, *rest = [schema_of(n) for n in inputs]
    for other in rest:
        if first != other:
            msg = f"union needs the same columns and dtypes in the same order: {dict(first)} against {dict(other)}; use select and cast"
            raise PlanError(msg)


def stateful_nodes(node: Node) -> list[Aggregate]:
    """Return the nodes that keep state between batches, upstream first, each once."""
    found: dict[int, Aggregate] = {}
    for below in walk(node):
        if isinstance(below, Aggregate) and any(is_streaming(i) for i in inputs_of(below)):
            found[id(below)] = below
    return list(found.values())
