"""From a frame and a sink to a query: splits the options, checks the plan and the sink, starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from microbatch.api.options import QueryOptions, make, settings_of, unknown_option
from microbatch.api.query import Query
from microbatch.engine.spec import QuerySpec
from microbatch.errors import PlanError
from microbatch.model import Delivery, OutputMode
from microbatch.plan.checks import check_streamable
from microbatch.plan.late import late_schema
from microbatch.plan.nodes import Node
from microbatch.plan.schema import row_keys, schema_of
from microbatch.planner import operator_ids
from microbatch.protocols import Sink
from microbatch.registry import connector


def to_sink(sink: object, node: Node, args: tuple[object, ...], options: Mapping[str, Any]) -> Query:
    """Return the query into a connector, by its name, or a ``Sink``.

    PlanError, before anything is touched, if plan, mode, options and sink do not fit each other.
    """
    of_query = {k: v for k, v in options.items() if k in QueryOptions.__annotations__}
    of_sink = {k: v for k, v in options.items() if k not in QueryOptions.__annotations__}
    settings = settings_of(cast("QueryOptions", of_query))
    made = _make(sink, args, of_sink)
    check_streamable(node, settings.mode)
    operator_ids(node)
    made.check(settings.mode, schema_of(node), row_keys(node))
    late_sink = None if settings.late_rows is None else _late_sink(settings.late_rows, made, node, settings.mode)
    for to in (made, late_sink):
        _check_lasts(to, settings.checkpoint)
    return Query(
        QuerySpec(
            node=node,
            sink=made,
            late_sink=late_sink,
            mode=settings.mode,
            checkpoint=settings.checkpoint,
            name=settings.name,
            watermark_policy=settings.watermark_policy,
            no_data_batches=settings.no_data_batches,
            retain_batches=settings.retain_batches,
            evolve=settings.evolve,
            clock=settings.clock,
        )
    )


def _late_sink(given: str | Sink, sink: Sink, node: Node, mode: OutputMode) -> Sink:
    """Return the sink for late rows; PlanError unless it keeps each of them once, apart from the result."""
    made: Sink = connector("sink:delta")(given) if isinstance(given, str) else given
    if made.delivery is not Delivery.EXACTLY_ONCE:
        msg = (
            f"late_rows={made.description} may get a row twice after a crash, and late rows are kept exactly once: "
            f"give the folder of a Delta table, or mb.MemorySink()"
        )
        raise PlanError(msg)
    if made is sink or made.description == sink.description != "MemorySink":
        msg = f"late_rows={made.description} is also the sink of the result; give the late rows a table of their own"
        raise PlanError(msg)
    made.check(OutputMode.APPEND, late_schema(node, mode), ())
    return made


def _check_lasts(sink: Sink | None, checkpoint: str | None) -> None:
    if sink is not None and sink.durable and checkpoint is None:
        msg = (
            f"{sink.description} keeps its rows for good, so the query needs checkpoint=<folder> (one a query) "
            "to know after a restart which rows are in it"
        )
        raise PlanError(msg)


def _make(sink: object, args: tuple[object, ...], options: Mapping[str, Any]) -> Sink:
    if isinstance(sink, str) and sink.startswith("sink:"):
        return cast("Sink", make(connector(sink), args, options, also=QueryOptions.__annotations__))
    for option in options:
        raise unknown_option(option, QueryOptions.__annotations__)
    if not isinstance(sink, Sink):
        msg = f"{sink!r} is no sink: give mb.MemorySink(), or an object with the methods of microbatch.protocols.Sink"
        raise PlanError(msg)
    return sink
