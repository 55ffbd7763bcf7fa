"""How far event time lags behind the query's watermark at each node: fixed by the plan (Spark: WatermarkPropagator).

A watermark node puts out the query's watermark; a node without state the earliest of its inputs'; a stateful node may hold rows back, and
then later nodes must wait for them. As every step is "so much behind", a whole chain is one number.
"""

from __future__ import annotations

from microbatch.plan.nodes import JoinStreams, MapState, Node, WithWatermark, inputs_of
from microbatch.plan.schema import bounds_of_join


def behind_us(node: Node) -> int | None:
    """Return how far behind the query's watermark the rows are that a node puts out, microseconds; None if they carry none."""
    if isinstance(node, WithWatermark):
        return 0
    if isinstance(node, MapState) and node.event_time is None:
        return None
    behind = input_behind_us(node)
    if isinstance(node, JoinStreams) and behind is not None:
        return behind + bounds_of_join(node).behind_us
    return behind


def input_behind_us(node: Node) -> int | None:
    """Return the same for the rows a node reads: that of the input which is furthest behind; inputs without event time do not count."""
    known = [behind for behind in map(behind_us, inputs_of(node)) if behind is not None]
    return max(known, default=None)
