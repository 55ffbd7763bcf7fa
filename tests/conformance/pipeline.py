"""A case's pipeline as verbs of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.plan.window import END, START
from tests.conformance import engine, joins, machines
from tests.conformance.aggregates import afterwards, aggregate
from tests.conformance.expressions import Column, WindowColumns, gap_argument, null_safe_key, physical, translate, window_of
from tests.conformance.relation import Relation, Switch, source, time_argument, window_argument
from tests.conformance.report import NotSupportedError

Op = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a pipeline reads: the engine's frame and the columns of each input, by name."""

    frames: Mapping[str, Any]
    columns: Mapping[str, Mapping[str, str]]
    failing: Switch = field(default_factory=Switch)


def build(pipeline: list[Op], inputs: Inputs) -> Relation:
    """Return the relation a pipeline describes; NotSupportedError names what cannot be said to this engine."""
    relation = _source(pipeline[0], inputs)
    for op in pipeline[1:]:
        name = op["op"]
        if name not in _VERBS:
            msg = f"operator {name}"
            raise NotSupportedError(msg)
        relation = _VERBS[name](relation, op, inputs).tidy()
    return relation


def _source(op: Op, inputs: Inputs) -> Relation:
    fresh = count()
    if op["op"] == "static":
        rows = engine.frame(op["rows"], op["columns"])
        return source(engine.feature(mb, "static")(rows), op["columns"], inputs.failing, fresh)
    name = op["input"]
    return source(inputs.frames[name], inputs.columns[name], inputs.failing, fresh)


def _select(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return relation.selected(dict(op["cols"]))


def _with_columns(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    for name, expression in op["cols"]:
        relation = relation.with_column(name, expression)
    return relation


def _filter(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    relation, condition = relation.lift(op["where"])
    return relation.verb("filter", translate(condition, relation.scope))


def _with_watermark(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    column = relation.scope.get(op["col"], op["col"])
    return relation.verb("with_watermark", column if isinstance(column, str) else column.end, op["delay"])


def _group_by(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    keys: list[Any] = []
    scope: dict[str, Column] = {}
    for name, expression in op["keys"]:
        relation, key, scope[name] = _key(relation, name, expression)
        keys += key
    aggregates = []
    for name, (function, *arguments) in op["aggs"]:
        relation, arguments = _lifted(relation, arguments)
        aggregates.append(aggregate(name, [function, *arguments], relation.scope))
        scope[name] = name
    frame = engine.feature(relation.frame, "group_by")(*keys).agg(*aggregates)
    rest = [e for name, call in op["aggs"] if (e := afterwards(name, call)) is not None]
    return relation.replaced(frame.with_columns(*rest) if rest else frame, scope).only(scope)


def _lifted(relation: Relation, arguments: list[Any]) -> tuple[Relation, list[Any]]:
    left = []
    for argument in arguments:
        relation, bare = relation.lift(argument)
        left.append(bare)
    return relation, left


def _key(relation: Relation, name: str, expression: Any) -> tuple[Relation, list[Any], Column]:
    """Return the arguments of group_by for one key, and the columns it will have."""
    if isinstance(expression, list) and expression[0] == "window":
        relation, parts = _lifted(relation, expression[1:])
        return relation, [window_argument(["window", *parts], relation.scope)], WindowColumns(START, END)
    relation, bare = relation.lift(expression)
    if isinstance(bare, list) and bare[0] == "session_window":
        return relation, [_session(bare, relation)], WindowColumns(START, END)
    window = window_of(bare, relation.scope)
    if window is not None:
        return relation, window.both(), window
    return (
        relation,
        [name if relation.scope.get(bare if isinstance(bare, str) else "") == name else translate(bare, relation.scope).alias(name)],
        name,
    )


def _session(expression: list[Any], relation: Relation) -> Any:
    _, time, gap = expression
    return engine.feature(mb, "session_window", "session")(time_argument(time, relation.scope), gap_argument(gap, relation.scope))


def _drop_duplicates(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return relation.verb("unique", _subset(relation, op["cols"]))


def _drop_duplicates_within_watermark(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return relation.verb("unique", _subset(relation, op["cols"]), within_watermark=True)


def _subset(relation: Relation, names: list[str] | None) -> list[str] | None:
    return None if names is None else [c for n in names for c in physical(relation.scope.get(n, n))]


def _distinct(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    """SQL DISTINCT: an aggregation over all columns without aggregates."""
    return relation.replaced(engine.feature(relation.frame, "group_by")(*relation.columns()).agg()).only(relation.scope)


def _join(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return joins.join(relation, build(op["right"], inputs), op["how"], op["on"])


def _union(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    """By position, as SQL has it: the others take the first one's names."""
    others = []
    for pipeline in op.get("others") or [op["other"]]:
        other = build(pipeline, inputs)
        others.append(other.only(other.scope).renamed(dict(zip(other.columns(), relation.columns(), strict=True))).frame)
    first = relation.only(relation.scope)
    return first.verb("union", *others)


def _except(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return _set_operation(relation, op, inputs, how="anti")


def _intersect(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return _set_operation(relation, op, inputs, how="semi")


def _set_operation(relation: Relation, op: Op, inputs: Inputs, *, how: str) -> Relation:
    """EXCEPT and INTERSECT: distinct rows that have, or have not, their like on the right; nulls are alike."""
    other = build(op.get("other") or op["others"][0], inputs)
    pairs = zip(relation.columns(), other.columns(), strict=True)
    left, right = zip(*((null_safe_key(pl.col(a)), null_safe_key(pl.col(b))) for a, b in pairs), strict=True)
    frame = engine.feature(relation.frame, "join")(other.frame, left_on=list(left), right_on=list(right), how=how)
    return _distinct(relation.replaced(frame), op, inputs)


def _limit(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return relation.verb("limit", op["n"])


def _offset(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return relation.verb("slice", op["n"])


def _sort(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    by = [(c, order == "desc") for name, order in op["by"] for c in physical(relation.scope.get(name, name))]
    return relation.verb("sort", [c for c, _ in by], descending=[d for _, d in by])


def _sample(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return relation.verb("sample")


def _rollup(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return relation.verb("rollup")


def _repartition(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return relation


def _stateful(relation: Relation, op: Op, inputs: Inputs) -> Relation:
    return machines.stateful(relation, op)


_VERBS: dict[str, Callable[[Relation, Op, Inputs], Relation]] = {
    "select": _select,
    "with_columns": _with_columns,
    "filter": _filter,
    "with_watermark": _with_watermark,
    "group_by": _group_by,
    "drop_duplicates": _drop_duplicates,
    "drop_duplicates_within_watermark": _drop_duplicates_within_watermark,
    "distinct": _distinct,
    "join": _join,
    "union": _union,
    "except": _except,
    "intersect": _intersect,
    "limit": _limit,
    "offset": _offset,
    "sort": _sort,
    "sample": _sample,
    "rollup": _rollup,
    "repartition": _repartition,
    "stateful": _stateful,
}
