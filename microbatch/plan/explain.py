"""The plan as text, the sink's side on top, as Polars prints one."""

from __future__ import annotations

from microbatch.plan.join_bounds import time_of
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
    inputs_of,
)
from microbatch.plan.schema import bounds_of_join, event_time_key, event_times, schema_of
from microbatch.plan.ttl import TimeToLive


def explain(node: Node, depth: int = 0) -> str:
    """Return one line per node, indented below the node that reads it."""
    lines = ["  " * depth + _line(node)]
    lines += [explain(child, depth + 1) for child in inputs_of(node)]
    return "\n".join(lines)


def _line(node: Node) -> str:
    match node:
        case Scan():
            return f"SCAN {node.source.description} -> {_columns(node)}"
        case Static():
            return f"STATIC -> {_columns(node)}"
        case RowWise():
            shown = [str(a) for a in node.args] + [f"{k}={v}" for k, v in node.options.items()]
            return f"{node.verb.upper()} {', '.join(shown)}"
        case MapBatches():
            return f"MAP_BATCHES {node.name} (row-wise by declaration) -> {_columns(node)}"
        case WithWatermark():
            return f"WATERMARK {node.column}, {node.delay_us / 1e6:g} s late at most"
        case AssignWindow():
            w = node.window
            return f"WINDOW {node.names[0]}, {node.names[1]} over {w.time}: {w.size_us / 1e6:g} s every {w.slide_us / 1e6:g} s"
        case AssignSession():
            s = node.session
            gap = f"{s.gap}" if s.gap_us is None else f"{s.gap_us / 1e6:g} s"
            return f"SESSION {node.names[0]}, {node.names[1]} over {s.time}: open for {gap} after a row"
        case Union():
            return "UNION"
        case JoinStatic() | JoinStreams():
            return _join_line(node)
        case Deduplicate():
            return f"UNIQUE by {list(node.keys)}{', within the watermark' if node.within_watermark else ''}{_kept(node.ttl, ', ')}"
        case Limit():
            return f"LIMIT {node.n}"
        case MapState():
            return _map_state(node)
        case Aggregate():
            time = event_time_key(node)
            closes = f"closed when the watermark reaches {time}" if time else _kept(node.ttl) or "never closed: state grows with the keys"
            merging = ", sessions merged" if node.session else ""
            return f"AGGREGATE by {list(node.keys)}{merging}, {closes} -> {_columns(node)}"


def _kept(ttl: TimeToLive | None, before: str = "") -> str:
    return f"{before}forgotten after {ttl.us / 1e6:g} s of {ttl.clock} time" if ttl else ""


def _map_state(node: MapState) -> str:
    state = ", ".join(f"{name}: {dtype}" for name, dtype in node.state.items())
    when = f", timeouts by {node.timeout}" if node.timeout else f", timers by {node.timers}" if node.timers else ""
    return f"MAP_STATE by {list(node.keys)}, {node.label} keeps {state}{when} -> {_columns(node)}"


def _join_line(node: JoinStatic | JoinStreams) -> str:
    if isinstance(node, JoinStatic):
        return f"JOIN {node.options.get('how', 'inner')} with a bounded side"
    bounds = bounds_of_join(node)
    keys = ", ".join(f"{a} = {b}" for a, b in node.keys)
    where = "" if node.where is None else f", where {node.where}"
    if bounds.key is not None:
        kept = f"rows of both sides kept until the watermark reaches {node.keys[bounds.key][0]}"
    else:
        sides = (("left", node.left, bounds.left_us), ("right", node.right, bounds.right_us))
        kept = ", ".join(_side_kept(side, event_times(below), offset_us) for side, below, offset_us in sides)
    return f"JOIN {node.how} of two streams by {keys}{where}; {kept}"


def _side_kept(side: str, times: dict[str, bool], offset_us: int | None) -> str:
    if offset_us is None:
        return f"{side} rows kept for ever"
    return f"{side} rows kept until the watermark reaches {time_of(times)} {'-' if offset_us > 0 else '+'} {abs(offset_us) / 1e6:g} s"


def _columns(node: Node) -> str:
    return ", ".join(f"{name}: {dtype}" for name, dtype in schema_of(node).items())
