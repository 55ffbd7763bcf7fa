"""One node as a step of a lazy Polars query: the same for a batch of a stream, for bounded input, and for schemas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import polars as pl

from microbatch.errors import PlanError
from microbatch.plan.aggregates import split_aggregates
from microbatch.plan.batch_time import at_time, tells_time
from microbatch.plan.join_columns import join_bounded
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
from microbatch.plan.session import assign_session, check_session, merge_sessions
from microbatch.plan.state_call import run_once
from microbatch.plan.ttl import EXPIRED
from microbatch.plan.window import assign_window, check_window

# A function may look at any column, so nothing is pushed below it and its rows are checked against its word.
_WHOLE: Any = {"predicate_pushdown": False, "projection_pushdown": False, "slice_pushdown": False, "validate_output_schema": True}

SchemaOf = Callable[[Node], pl.Schema]

_NOT_BOUNDED = (
    "unique(within_watermark=True) and unique(ttl=...) depend on when rows arrive, so bounded input has no such result; "
    "compare with unique(...), or run the stream"
)


def run_node(node: Node, inputs: Sequence[pl.LazyFrame], schema_of: SchemaOf, now_us: int = 0) -> pl.LazyFrame:
    """Return ``node`` applied to its inputs, lazily; an Aggregate or MapState sees the input as all there will ever be."""
    match node:
        case Scan():
            return node.source.read_all()
        case Static():
            return node.frame
        case RowWise():
            return cast("pl.LazyFrame", getattr(inputs[0], node.verb)(*node.args, **node.options))
        case MapBatches() | MapState():
            function = node.function if isinstance(node, MapBatches) else partial(run_once, node, now_us)
            return inputs[0].map_batches(function, schema=schema_of(node), **_WHOLE)
        case WithWatermark():
            return inputs[0]
        case AssignWindow() | AssignSession():
            return _placed(node, inputs[0], schema_of(node.input))
        case Union():
            return pl.concat(inputs, how="vertical")
        case JoinStatic() | JoinStreams():
            return _joined(node, inputs, schema_of)
        case Deduplicate() if node.within_watermark or node.ttl:
            raise PlanError(_NOT_BOUNDED)
        case Deduplicate():
            return inputs[0].unique(list(node.keys), keep="first", maintain_order=True)
        case Limit():
            return inputs[0].limit(node.n)
        case Aggregate():
            rows = merge_sessions(inputs[0], node.session, node.plain_keys) if node.session else inputs[0]
            groups = split_aggregates(node.aggs, keys=node.keys, schema=schema_of(node.input)).batch(rows, node.keys)
            return groups.with_columns(pl.lit(value=False).alias(EXPIRED)) if node.ttl is not None and node.ttl.emits else groups


def _placed(node: AssignWindow | AssignSession, rows: pl.LazyFrame, schema: pl.Schema) -> pl.LazyFrame:
    """Return the rows with the bounds of their windows, or of the sessions they open by themselves."""
    if isinstance(node, AssignWindow):
        return assign_window(rows, node.window, node.names, check_window(node.window, schema))
    return assign_session(rows, node.session, node.names, check_session(node.session, schema))


def _joined(node: JoinStatic | JoinStreams, inputs: Sequence[pl.LazyFrame], schema_of: SchemaOf) -> pl.LazyFrame:
    if isinstance(node, JoinStreams):
        return join_bounded(node, inputs, schema_of)
    return inputs[0].join(inputs[1], **cast("dict[str, Any]", node.options))


def run_bounded(node: Node, schema_of: SchemaOf, now_us: int) -> pl.LazyFrame:
    """Return the whole plan over all input there is now, as one plain Polars query."""
    timed = at_time(node, now_us) if tells_time(node) else node
    return run_node(timed, [run_bounded(i, schema_of, now_us) for i in inputs_of(node)], schema_of, now_us)
