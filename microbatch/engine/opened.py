"""A query with everything it needs opened: checkpoint, state, sources, sink. Opening decides nothing and writes no row."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import polars as pl

from microbatch.checkpoint.checkpoint import Checkpoint
from microbatch.checkpoint.entry_log import CompactibleLog, open_entry_log
from microbatch.checkpoint.state.store import StateStore, only_attempt
from microbatch.engine.evolution import check, compare
from microbatch.engine.recovery import Position, recover
from microbatch.engine.spec import QuerySpec
from microbatch.model import Json, OutputMode
from microbatch.plan.checks import stateful_nodes
from microbatch.plan.late import late_schema
from microbatch.plan.nodes import sources_of
from microbatch.plan.schema import row_keys, schema_of
from microbatch.planner import PhysicalPlan, fingerprints, plan_query
from microbatch.protocols import Sink, SinkContext, SinkWriter, Source, SourceContext, SourceReader, StateTable, TableSpec

_OPERATORS = "operators"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """The parts of a running query; ``close`` gives all of them back, in the reverse order of opening."""

    spec: QuerySpec
    checkpoint: Checkpoint
    conf: Mapping[str, str]
    position: Position
    plan: PhysicalPlan
    store: StateStore | None
    sources: tuple[Source, ...]
    readers: tuple[SourceReader, ...]
    writer: SinkWriter
    late_writer: SinkWriter | None
    close: ExitStack


def open_query(spec: QuerySpec) -> Opened:
    """Return the query, ready for its first batch; on an error everything opened so far is closed again."""
    with ExitStack() as closing:
        folder = spec.checkpoint or _temporary_folder(closing)
        checkpoint = Checkpoint.open(folder)
        closing.callback(checkpoint.close)
        sources = tuple(sources_of(spec.node))
        position = recover(checkpoint, len(sources))
        operators = _check_same_query(checkpoint, spec)
        store = _open_store(checkpoint, spec, position, closing)
        plan = plan_query(spec.node, spec.mode, store.table if store else _no_table)
        readers = tuple(_open_source(k, source, checkpoint, spec, closing) for k, source in enumerate(sources))
        writer = _open_results(checkpoint, spec, closing)
        late_writer = _open_late_rows(checkpoint, spec, closing)
        _note_operators(checkpoint, operators)
        return Opened(
            spec=spec,
            checkpoint=checkpoint,
            conf=_frozen_conf(checkpoint, spec),
            position=position,
            plan=plan,
            store=store,
            sources=sources,
            readers=readers,
            writer=writer,
            late_writer=late_writer,
            close=closing.pop_all(),
        )


def _temporary_folder(closing: ExitStack) -> str:
    folder = tempfile.mkdtemp(prefix="microbatch-")
    closing.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _no_table(operator_id: str, spec: TableSpec) -> StateTable:
    raise AssertionError(operator_id, spec)


def _open_store(checkpoint: Checkpoint, spec: QuerySpec, position: Position, closing: ExitStack) -> StateStore | None:
    if not stateful_nodes(spec.node, spec.mode):
        return None
    folder, version = checkpoint.state_folder, position.state_version
    name = only_attempt(folder, version) if position.commit_lost else position.state
    store = StateStore.open(folder, version=version, delta_name=name, retain_versions=spec.retain_batches)
    closing.callback(store.close)
    return store


def _open_source(k: int, source: Source, checkpoint: Checkpoint, spec: QuerySpec, closing: ExitStack) -> SourceReader:
    reader = source.open(SourceContext(folder=checkpoint.source_folder(k), clock=spec.clock, open_log=CompactibleLog))
    closing.callback(reader.close)
    return reader


def _open_results(checkpoint: Checkpoint, spec: QuerySpec, closing: ExitStack) -> SinkWriter:
    return _open_sink(spec.sink, _context(checkpoint, spec, spec.mode, schema_of(spec.node), row_keys(spec.node)), closing)


def _open_late_rows(checkpoint: Checkpoint, spec: QuerySpec, closing: ExitStack) -> SinkWriter | None:
    if spec.late_sink is None:
        return None
    context = _context(checkpoint, spec, OutputMode.APPEND, late_schema(spec.node, spec.mode), ())
    return _open_sink(spec.late_sink, context, closing)


def _context(checkpoint: Checkpoint, spec: QuerySpec, mode: OutputMode, schema: pl.Schema, keys: tuple[str, ...]) -> SinkContext:
    return SinkContext(
        query_id=checkpoint.query_id,
        query_name=spec.name,
        mode=mode,
        schema=schema,
        keys=keys,
        clock=spec.clock,
        open_log=open_entry_log,
    )


def _open_sink(sink: Sink, context: SinkContext, closing: ExitStack) -> SinkWriter:
    writer = sink.open(context)
    closing.callback(writer.close)
    return writer


def _frozen_conf(checkpoint: Checkpoint, spec: QuerySpec) -> Mapping[str, str]:
    """Return the settings logged by the first batch, if there is one: they win over today's."""
    newest = checkpoint.offsets.latest()
    if newest is None:
        return spec.frozen_conf()
    return {"spark.sql.streaming.multipleWatermarkPolicy": "min", **newest.conf}


def _check_same_query(checkpoint: Checkpoint, spec: QuerySpec) -> Mapping[str, Json]:
    """Return the operators' fingerprints; CheckpointMismatchError if the state in the checkpoint is not theirs."""
    now = fingerprints(spec.node, spec.mode)
    logged = checkpoint.facts().get(_OPERATORS)
    if checkpoint.offsets.latest() is not None:
        check(checkpoint.folder.path, compare(logged if isinstance(logged, dict) else {}, now), evolve=spec.evolve)
    return now


def _note_operators(checkpoint: Checkpoint, operators: Mapping[str, Json]) -> None:
    """Keep the fingerprints for the next start; done last, so that a query that cannot be opened changes nothing."""
    facts = checkpoint.facts()
    if facts.get(_OPERATORS) != operators:
        checkpoint.note({**facts, _OPERATORS: dict(operators)})
