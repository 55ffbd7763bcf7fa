"""Tells the log of state that can only grow: once at the start of a run, and whenever it has doubled beyond a size worth a word."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from microbatch.engine.spec import QuerySpec
from microbatch.model import OutputMode
from microbatch.operators.base import StatefulOperator
from microbatch.plan.checks import stateful_nodes
from microbatch.plan.nodes import Aggregate, Deduplicate, JoinStreams, StatefulNode
from microbatch.plan.schema import bounds_of_join, event_time_key, event_times
from microbatch.planner import operator_ids

_log = logging.getLogger("microbatch.engine")

# A million keys are some tens of megabytes: below that nobody needs to act.
WORTH_A_WORD_ROWS = 1_000_000


def kept_for_ever(node: StatefulNode, mode: OutputMode) -> str | None:
    """Return why an operator's state only grows, and the way out; None if something bounds it."""
    match node:
        case Aggregate() if node.ttl is not None or not node.keys:
            return None
        case Aggregate() if mode is OutputMode.COMPLETE:
            keys = list(node.keys)
            return f'mode="complete" keeps every group of {keys} for ever; use mode="update" with event time among the keys, or ttl='
        case Aggregate() if event_time_key(node) is None:
            return (
                f"no event time is among its keys {list(node.keys)}, so no group is ever over; group by a window too, or write agg(ttl=...)"
            )
        case Deduplicate() if not (node.within_watermark or node.ttl or set(node.keys) & set(event_times(node.input))):
            return (
                f"no event time is among its keys {list(node.keys)}, so every value is remembered; "
                f"write unique(within_watermark=True) or unique(ttl=...), or add the event time to the keys"
            )
        case JoinStreams():
            return _join_kept_for_ever(node)
        case _:
            return None


def _join_kept_for_ever(node: JoinStreams) -> str | None:
    bounds = bounds_of_join(node)
    sides = [side for side, us in (("left", bounds.left_us), ("right", bounds.right_us)) if us is None]
    if bounds.key is not None or not sides:
        return None
    return (
        f"no condition says when rows of the {' and the '.join(sides)} side can meet no more; "
        f"give both sides a watermark, and join on event time or within a range of it"
    )


class GrowthWatch:
    """Watches the operators of one run whose state only grows."""

    def __init__(self, spec: QuerySpec, query_id: str) -> None:
        names = operator_ids(spec.node)
        reasons = {names[id(n)]: kept_for_ever(n, spec.mode) for n in stateful_nodes(spec.node, spec.mode)}
        self._label = spec.name or query_id
        self._batches = 0
        self._told_at: dict[str, tuple[int, int]] = {}  # by operator: batches of this run and rows when it was last spoken of
        self._growing = {name for name, why in reasons.items() if why is not None}
        for name in sorted(self._growing):
            _log.warning("query %s: the state of %s grows without bound: %s", self._label, name, reasons[name])

    def look(self, operators: Sequence[StatefulOperator]) -> None:
        """Take in what the batch that just ran left in the state."""
        self._batches += 1
        for operator in operators:
            if operator.operator_id in self._growing:
                self._look_at(operator.operator_id, operator.progress().rows_total)

    def _look_at(self, name: str, rows: int) -> None:
        batches, before = self._told_at.setdefault(name, (self._batches, rows))
        if rows < max(2 * before, WORTH_A_WORD_ROWS):
            return
        self._told_at[name] = (self._batches, rows)
        per_batch = (rows - before) // max(self._batches - batches, 1)
        _log.warning("query %s: the state of %s has grown to %d rows, by %d a batch lately", self._label, name, rows, per_batch)
