"""Which plans can run as a stream, in which output mode (Spark: UnsupportedOperationChecker): everything refused is refused here."""

from __future__ import annotations

from microbatch.errors import PlanError
from microbatch.model import OutputMode
from microbatch.plan.join_columns import PRESERVED
from microbatch.plan.nodes import Aggregate, Deduplicate, JoinStatic, JoinStreams, Limit, Node, RowWise, StatefulNode, is_streaming, walk
from microbatch.plan.schema import bounds_of_join, event_times, rival_event_times, schema_of
from microbatch.plan.state_checks import check_map_states

WHOLE_RESULT_VERBS = ("sort",)
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
        _check_session(aggregate, mode)
        _check_ttl(aggregate, mode)
        _check_event_time(aggregate, mode)
    for stateful in stateful_nodes(node, mode):
        _check_chain(stateful, mode)
    check_map_states(node, mode)
    for below in walk(node):
        if isinstance(below, RowWise) and below.verb in WHOLE_RESULT_VERBS:
            _check_whole_result(below, mode)


def _check_session(node: Aggregate, mode: OutputMode) -> None:
    if node.session is None:
        return
    if mode is OutputMode.UPDATE:
        msg = (
            'session_window in mode="update" is refused: a row can turn two sessions into one, and the rows written of them would have to '
            'be deleted; use mode="append", which gives each session once it is over, or "complete"'
        )
        raise PlanError(msg)
    if mode is OutputMode.APPEND and node.session[1] not in event_times(node):
        seen = list(event_times(node.input))
        msg = (
            f'session_window in mode="append" needs event time with a watermark, else no session is ever over, and '
            f"{f'the watermark is on {seen}' if seen else 'there is none'}: write .with_watermark(column, delay) before group_by, on the "
            f'column of the session, or use mode="complete"'
        )
        raise PlanError(msg)


def _check_ttl(node: Aggregate, mode: OutputMode) -> None:
    if node.ttl is None:
        return
    if mode is OutputMode.APPEND:
        msg = (
            'agg(ttl=...) in mode="append" is refused: a group is not final before it expires; use mode="update", or '
            "mb.session_window(column, gap), which gives the rows of a key that come close in time as one row"
        )
        raise PlanError(msg)
    if node.ttl.emits and mode is OutputMode.COMPLETE:
        msg = 'agg(on_expiry="emit") in mode="complete" is refused: the whole result says what is gone by leaving it out; use mode="update"'
        raise PlanError(msg)


def _check_event_time(node: Aggregate, mode: OutputMode) -> None:
    if rivals := rival_event_times(node):
        msg = f"group_by has two event time keys, {rivals}: the watermark can close a group by one only; keep one of them"
        raise PlanError(msg)
    if mode is OutputMode.APPEND and not event_times(node):
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
    if stream and not stream <= _STREAM_MAY_BE.get(how, set()):
        side = next(iter(stream))
        msg = (
            f'join(how="{how}") with the stream on the {side} is refused: a row of the bounded side would have to wait for all rows of the '
            f"stream; allowed: inner, left, semi, anti with the stream on the left, inner and right with the stream on the right"
        )
        raise PlanError(msg)


def check_stream_join(node: JoinStreams) -> None:
    """Raise PlanError unless rows that must come out when they met none are dead some day (Spark: checkForStreamStreamJoinWatermark)."""
    if node.how not in PRESERVED:
        msg = f"join(how={node.how!r}) of two streams: how must be one of {', '.join(PRESERVED)}"
        raise PlanError(msg)
    columns = schema_of(node)  # refuses what does not fit
    bounds = bounds_of_join(node)
    needs = {"semi": ("left",), "anti": ("left",)}.get(node.how, PRESERVED[node.how])
    if not needs or any(bounds.ends(side) for side in needs):
        return
    times = [next(iter(event_times(n)), None) for n in (node.left, node.right)]
    missing = [side for side, time in zip(("left", "right"), times, strict=True) if time is None]
    if missing:
        way_out = f"give the {' and the '.join(missing)} side .with_watermark(column, delay), then bound the times in the join"
    else:
        way_out = (
            f'bound them: within="1h", or where=pl.col({times[0]!r}).is_between(...) over the event times of both sides, '
            f"or join on event time, such as the end of a window"
        )
    msg = (
        f'join(how="{node.how}") of two streams: a row of the {needs[0]} side could wait for its match for ever, so it would '
        f"never be known that it has none; {way_out}. The join has {list(columns)}"
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


def _check_chain(node: StatefulNode, mode: OutputMode) -> None:
    """Raise PlanError for a stateful verb that would be fed rows that are not final, or that has no meaning in this mode."""
    if isinstance(node, Deduplicate):
        if rivals := rival_event_times(node.input):
            msg = f"unique: the rows have two event time columns, {rivals}: drop one of them before"
            raise PlanError(msg)
        if node.within_watermark and not event_times(node.input):
            msg = "unique(within_watermark=True) needs event time to know how long a value counts: write .with_watermark(...) before it"
            raise PlanError(msg)
        by_time = any(k in event_times(node.input) for k in node.keys)
        if mode is not OutputMode.APPEND and by_time and any(isinstance(n, Aggregate) for n in walk(node.input)):
            msg = (
                f'unique() with event time after an aggregation runs in mode="append" only (rows must be final when they are passed on), '
                f'not "{mode}"'
            )
            raise PlanError(msg)
    if isinstance(node, JoinStreams):
        _check_join_mode(node, mode)
    if isinstance(node, Limit) and mode is OutputMode.UPDATE:
        msg = 'limit() in mode="update" is refused: a changed row could push another one out; use mode="append" or "complete"'
        raise PlanError(msg)


def _check_join_mode(node: JoinStreams, mode: OutputMode) -> None:
    """Raise PlanError unless the join's rows are final in this mode, and those it reads are."""
    if mode is OutputMode.APPEND:
        return
    if any(isinstance(n, Aggregate) for n in walk(node)):
        msg = f'a join of two streams after an aggregation runs in mode="append" only (its rows must be final), not "{mode}"'
        raise PlanError(msg)
    if mode is OutputMode.COMPLETE or node.how not in ("inner", "semi"):
        msg = (
            f'join(how="{node.how}") of two streams runs in mode="append" only, not "{mode}": a row comes out once, when it is known what '
            f"it met, and is not kept; inner and semi joins run in update mode too"
        )
        raise PlanError(msg)


def stateful_nodes(node: Node, mode: OutputMode) -> list[StatefulNode]:
    """Return the nodes that keep state between batches, upstream first, each once.

    A limit above an aggregation in complete mode keeps none: it applies to each result.
    """
    found: dict[int, StatefulNode] = {}
    for below in walk(node):
        if isinstance(below, StatefulNode) and is_streaming(below) and not _limits_a_result(below, mode):
            found[id(below)] = below
    return list(found.values())


def _limits_a_result(node: StatefulNode, mode: OutputMode) -> bool:
    return isinstance(node, Limit) and mode is OutputMode.COMPLETE and any(isinstance(n, Aggregate) for n in walk(node.input))
