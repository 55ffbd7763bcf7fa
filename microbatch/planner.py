"""From plan nodes to operators: gives each stateful operator and each watermark the name it has in the checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from microbatch.errors import PlanError
from microbatch.model import Json, Marks, OutputMode
from microbatch.operators.aggregate import AggregateOperator, aggregate_fingerprint, aggregate_table
from microbatch.operators.aggregate_ttl import GroupTables, TtlAggregateOperator, ttl_fingerprint, ttl_table, ttl_timers_table
from microbatch.operators.base import Batch, Operator, StatefulOperator
from microbatch.operators.deduplicate import DeduplicateOperator, deduplicate_fingerprint, deduplicate_table
from microbatch.operators.join_streams import JoinStreamsOperator, join_fingerprint
from microbatch.operators.limit import LIMIT_TABLE, LimitOperator, limit_fingerprint
from microbatch.operators.map_state import MapStateOperator, map_state_fingerprint, state_tables
from microbatch.operators.panes import panes_of
from microbatch.operators.session import SessionOperator, session_fingerprint
from microbatch.operators.session_state import OpenSessions, session_table, session_timers_table
from microbatch.operators.stateless import ReadSource, Stateless, Timed
from microbatch.operators.timers import Timers
from microbatch.operators.watermark import ObserveEventTime
from microbatch.plan.aggregates import SplitAggregate, split_aggregates
from microbatch.plan.batch_time import tells_time
from microbatch.plan.checks import stateful_nodes
from microbatch.plan.marks import input_behind_us
from microbatch.plan.names import checked_name
from microbatch.plan.nodes import (
    Aggregate,
    Deduplicate,
    JoinStreams,
    Limit,
    MapState,
    Node,
    Scan,
    StatefulNode,
    WithWatermark,
    inputs_of,
    is_streaming,
    walk,
)
from microbatch.plan.schema import schema_of
from microbatch.plan.ttl import TimeToLive
from microbatch.protocols import StateTable, TableSpec

OpenTable = Callable[[str, TableSpec], StateTable]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An operator, its name if it has state, the steps it reads, and how far the event time it sees is behind the query's watermark."""

    operator: Operator
    operator_id: str
    inputs: tuple[Step, ...]
    behind_us: int | None

    def run(self, batch: Batch) -> pl.LazyFrame:
        """Return the rows of the batch at this step, inputs first; a step that several others read runs once."""
        if id(self) not in batch.done:
            inputs = [step.run(batch) for step in self.inputs]
            batch.done[id(self)] = self.operator.run(inputs, batch.behind(self.behind_us).named(self.operator_id))
        return batch.done[id(self)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalPlan:
    """The steps of a query, with the operators the engine asks between batches."""

    root: Step
    watermarks: tuple[ObserveEventTime, ...]
    stateful: tuple[StatefulOperator, ...]
    behind_us: Mapping[str, int | None]

    def wants_batch(self, marks: Marks, time_us: int) -> bool:
        """Return True if an operator has something to do in a batch without data that has these marks and this time."""
        return any(o.wants_batch(marks.behind(self.behind_us[o.operator_id]), time_us) for o in self.stateful)


def plan_query(node: Node, mode: OutputMode, open_table: OpenTable) -> PhysicalPlan:
    """Return the operators of a plan, their state opened by ``open_table``; a node used twice becomes one step."""
    names = operator_ids(node)
    watermarks = {id(n): _observer(n, names) for n in walk(node) if isinstance(n, WithWatermark)}
    stateful = {id(n): _stateful(n, names[id(n)], mode, open_table) for n in stateful_nodes(node, mode)}
    places = Counter(id(n) for n in walk(node))
    steps: dict[int, Step] = {}

    def step(at: Node) -> Step:
        if id(at) not in steps:
            steps[id(at)] = new_step(at)
        return steps[id(at)]

    def new_step(at: Node) -> Step:
        operator: Operator
        if isinstance(at, Scan):
            operator = ReadSource(source=at.source, places=places[id(at)])
        else:
            operator = watermarks.get(id(at)) or stateful.get(id(at)) or _stateless(at)
        inputs = tuple(step(i) for i in _read(at))
        return Step(operator=operator, operator_id=names.get(id(at), ""), inputs=inputs, behind_us=input_behind_us(at))

    return PhysicalPlan(
        root=step(node),
        watermarks=tuple(watermarks.values()),
        stateful=tuple(stateful.values()),
        behind_us={names[id(n)]: input_behind_us(n) for n in stateful_nodes(node, mode)},
    )


def operator_ids(node: Node) -> dict[int, str]:
    """Return the checkpoint name of each stateful node and watermark by the node's identity.

    A name the user gave, or one derived from what the operator is, not from where it stands, so that adding another operator does not
    rename it; equal ones are numbered in plan order. Raises PlanError for two operators with one given name.
    """
    nodes = {id(n): n for n in walk(node) if isinstance(n, StatefulNode | WithWatermark)}
    own = {identity: checked_name(n.name) for identity, n in nodes.items() if isinstance(n, StatefulNode) and n.name is not None}
    if len(set(own.values())) < len(own):
        msg = f"two operators of the query have one name, and would share one state: {list(own.values())}; give each a name of its own"
        raise PlanError(msg)
    taken = dict.fromkeys(own.values(), 1)
    names: dict[int, str] = {}
    for identity, at in nodes.items():
        base = _base_name(at)
        if identity not in own:
            taken[base] = taken.get(base, 0) + 1
        names[identity] = own.get(identity) or (base if taken[base] == 1 else f"{base}-{taken[base]}")
    return names


def _base_name(node: StatefulNode | WithWatermark) -> str:
    if isinstance(node, WithWatermark):
        return f"watermark-{node.column}"
    if node.name is not None:
        return node.name
    match node:
        case Aggregate(session=None):
            return "-".join(["aggregate", *node.keys])
        case Aggregate():
            return "-".join(["session", *node.plain_keys])
        case Deduplicate():
            return "-".join(["unique", *node.keys])
        case JoinStreams():
            return "-".join(["join", *dict.fromkeys(name for a, _ in node.keys for name in a.meta.root_names())])
        case Limit():
            return "limit"
        case MapState():
            return "-".join(["map_state", *node.keys])


def fingerprints(node: Node, mode: OutputMode) -> Mapping[str, Json]:
    """Return, per stateful operator, what must stay the same for its state to keep its meaning; goes into the checkpoint."""
    names = operator_ids(node)
    return {names[id(n)]: _fingerprint(n, mode) for n in stateful_nodes(node, mode)}


def _fingerprint(node: StatefulNode, mode: OutputMode) -> Json:
    match node:
        case Aggregate(ttl=TimeToLive()):
            return ttl_fingerprint(node, _split(node), mode)
        case Aggregate(session=None):
            return aggregate_fingerprint(node, _split(node), mode)
        case Aggregate():
            return session_fingerprint(node, _split(node), mode)
        case Deduplicate():
            return deduplicate_fingerprint(node)
        case JoinStreams():
            return join_fingerprint(node)
        case Limit():
            return limit_fingerprint()
        case MapState():
            return map_state_fingerprint(node)


def _stateful(node: StatefulNode, name: str, mode: OutputMode, open_table: OpenTable) -> StatefulOperator:
    match node:
        case Aggregate(ttl=TimeToLive()):
            split = _split(node)
            reminders = Timers(open_table(f"{name}/timers", ttl_timers_table(node)))
            tables = GroupTables(groups=open_table(name, ttl_table(node, split)), timers=reminders)
            return TtlAggregateOperator(name, node, split, mode, tables)
        case Aggregate(session=None):
            split = _split(node)
            return AggregateOperator(name, node, split, mode, open_table(name, aggregate_table(node, split, mode)))
        case Aggregate():
            split = _split(node)
            table = open_table(name, session_table(node, split))
            timers = open_table(f"{name}/timers", session_timers_table(node)) if mode is OutputMode.APPEND else None
            state = OpenSessions(keys=list(node.plain_keys), table=table, timers=Timers(timers) if timers else None)
            return SessionOperator(name, node, split, mode, state)
        case Deduplicate():
            return DeduplicateOperator(name, node, open_table(name, deduplicate_table(node)))
        case JoinStreams():
            return JoinStreamsOperator(name, node, lambda table, spec: open_table(f"{name}/{table}", spec))
        case Limit():
            return LimitOperator(name, node, open_table(name, LIMIT_TABLE))
        case MapState():
            opened = {kind: open_table(name if kind == "state" else f"{name}/{kind}", spec) for kind, spec in state_tables(node).items()}
            return MapStateOperator(name, node, opened)


def _read(node: Node) -> tuple[Node, ...]:
    """Return the nodes an operator reads: those the user wrote, or panes where windows can be put together from them."""
    panes = panes_of(node, _split(node)) if isinstance(node, Aggregate) and is_streaming(node) else None
    return inputs_of(node) if panes is None else (panes.node,)


def _split(node: Aggregate) -> SplitAggregate:
    return split_aggregates(node.aggs, keys=node.keys, schema=schema_of(node.input))


def _stateless(node: Node) -> Operator:
    return Timed(node=node) if tells_time(node) else Stateless(node=node)


def _observer(node: WithWatermark, names: Mapping[int, str]) -> ObserveEventTime:
    dtype = schema_of(node)[node.column]
    assert isinstance(dtype, pl.Datetime)
    return ObserveEventTime(names[id(node)], node.column, dtype, node.delay_us)
