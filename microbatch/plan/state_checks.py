"""Where in a plan a function over per-key state may stand (Spark: UnsupportedOperationChecker, FlatMapGroupsWithState)."""

from __future__ import annotations

from microbatch.errors import PlanError
from microbatch.model import OutputMode
from microbatch.plan.keyed_state import TimeMode
from microbatch.plan.nodes import Aggregate, MapState, Node, StatefulNode, is_streaming, walk
from microbatch.plan.schema import rival_event_times


def check_map_states(root: Node, mode: OutputMode) -> None:
    """Raise PlanError for a ``map_state`` that is fed, or feeds, rows that are not final, or whose mode is not the query's."""
    streaming = [n for n in walk(root) if is_streaming(n)]
    for machine in [n for n in streaming if isinstance(n, MapState)]:
        after = [n for n in streaming if isinstance(n, StatefulNode) and n is not machine and machine in walk(n)]
        _check_before(machine, mode)
        for follower in after:
            _check_follower(machine, follower, mode)
        if not any(isinstance(n, Aggregate) for n in after):
            _check_mode(machine, mode)


def _check_before(machine: MapState, mode: OutputMode) -> None:
    if mode is not OutputMode.APPEND and any(isinstance(n, Aggregate) for n in walk(machine.input)):
        msg = f'map_state after an aggregation runs in mode="append" only (rows must be final when they are passed on), not "{mode}"'
        raise PlanError(msg)
    if machine.judges_time and (rivals := rival_event_times(machine.input)):
        msg = f"map_state: the rows have two event time columns, {rivals}: drop one of them before"
        raise PlanError(msg)


def _check_follower(machine: MapState, follower: StatefulNode, mode: OutputMode) -> None:
    verb = {"Aggregate": "group_by(...).agg", "Deduplicate": "unique", "MapState": "map_state"}.get(
        type(follower).__name__, type(follower).__name__.lower()
    )
    if machine.timeout is TimeMode.EVENT:
        msg = f'{verb} after map_state(timeout="event_time") is refused: rows of timeouts would be late for it; write them to a sink'
        raise PlanError(msg)
    if machine.output_mode is OutputMode.UPDATE:
        msg = f'{verb} after map_state(output_mode="update") is refused: its rows are not final; use output_mode="append"'
        raise PlanError(msg)
    if mode is OutputMode.UPDATE and not isinstance(follower, Aggregate):
        msg = f'{verb} after map_state runs in mode="append" only (rows must be final when they are passed on), not "{mode}"'
        raise PlanError(msg)


def _check_mode(machine: MapState, mode: OutputMode) -> None:
    if mode is OutputMode.COMPLETE:
        msg = 'map_state in mode="complete" is refused: its rows are no whole result; add a group_by(...).agg(...), or use mode="update"'
        raise PlanError(msg)
    if machine.output_mode not in (None, mode):
        msg = f'map_state(output_mode="{machine.output_mode}") in a query with mode="{mode}": give both the same'
        raise PlanError(msg)
