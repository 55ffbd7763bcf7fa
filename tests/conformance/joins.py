"""Joins: a condition taken apart into equal keys, which a join verb knows, and a rest, which it may not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import polars as pl

from tests.conformance import engine
from tests.conformance.expressions import (
    Column,
    Expression,
    Scope,
    belongs_to,
    conjuncts,
    null_safe_key,
    physical,
    translate,
    window_of,
)
from tests.conformance.relation import Relation
from tests.conformance.report import NotSupportedError

ONE_SIDED = ("semi", "anti")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Pairs of key columns or expressions, and what else must hold."""

    left: list[pl.Expr]
    right: list[pl.Expr]
    rest: list[Expression]


def split(condition: Expression, left: Scope, right: Scope) -> Condition:
    """Return a condition as equal keys of the two sides and the rest."""
    found = Condition(left=[], right=[], rest=[])
    for part in conjuncts(condition):
        sides = _sides(part, left, right)
        if sides is None:
            found.rest.append(part)
            continue
        for a, b in _key_pairs(part[0], *sides, left, right):
            found.left.append(a)
            found.right.append(b)
    return found


def _sides(part: Expression, left: Scope, right: Scope) -> tuple[Expression, Expression] | None:
    """Return the left and the right side's expression of an equality between them, None for anything else."""
    if not (isinstance(part, list) and part[0] in ("==", "<=>") and len(part) == 3):
        return None
    _, a, b = part
    if belongs_to(a, left) and belongs_to(b, right):
        return a, b
    return (b, a) if belongs_to(b, left) and belongs_to(a, right) else None


def _key_pairs(op: str, a: Expression, b: Expression, left: Scope, right: Scope) -> list[tuple[pl.Expr, pl.Expr]]:
    windows = window_of(a, left), window_of(b, right)
    if windows[0] and windows[1]:
        return [(pl.col(x), pl.col(y)) for x, y in zip(windows[0].both(), windows[1].both(), strict=True)]
    pair = translate(a, left), translate(b, right)
    return [(null_safe_key(pair[0]), null_safe_key(pair[1]))] if op == "<=>" else [pair]


def join(left: Relation, right: Relation, how: str, on: Expression) -> Relation:
    """Return the join of two relations, with Spark's columns: ``using`` keeps one copy of the keys, a condition keeps all columns."""
    if isinstance(on, list) and on and on[0] == "using":
        return _join_using(left, right, how, [str(n) for n in on[1:]])
    right = right.renamed({c: f"{c}_of_right" for c in right.columns() if c in left.columns()})
    scope = left.visible if how in ONE_SIDED else _side_by_side(left.visible, right.visible)
    condition = split(on, left.scope, right.scope)
    both_stream = engine.streams(left.frame) and engine.streams(right.frame)
    joined = _join_streams if both_stream else _join_bounded
    return left.replaced(joined(left, right, how, condition), scope).only(scope)


def _options(condition: Condition, how: str) -> dict[str, Any]:
    keys: dict[str, Any] = {"left_on": condition.left, "right_on": condition.right, "how": how}
    return keys if how in ONE_SIDED else keys | {"coalesce": False}


def _join_streams(left: Relation, right: Relation, how: str, condition: Condition) -> Any:
    """Return the join of two streams; what is beside the equal keys is the engine's business: a time range bounds the state."""
    verb = engine.feature(left.frame, "join")
    if not condition.rest:
        return verb(right.frame, **_options(condition, how))
    name = engine.parameter(verb, "where", "within", "predicate", "condition", "residual")
    if name is None:
        msg = f"{how} join of two streams with a condition beside its equal keys"
        raise NotSupportedError(msg)
    rest = [translate(part, {**left.scope, **right.scope}) for part in condition.rest]
    return verb(right.frame, **_options(condition, how), **{name: reduce(lambda a, b: a & b, rest)})


def _join_bounded(left: Relation, right: Relation, how: str, condition: Condition) -> Any:
    """Return the join with a bounded side; a condition on one side alone becomes a key that is true or meets nothing."""
    mixed = []
    for part in condition.rest:
        if belongs_to(part, left.scope):
            left, right = _as_key(left, right, part, condition.left, condition.right)
        elif belongs_to(part, right.scope):
            right, left = _as_key(right, left, part, condition.right, condition.left)
        else:
            mixed.append(translate(part, {**left.scope, **right.scope}))
    if mixed and how != "inner":
        msg = f"{how} join with a bounded side and a condition on both sides beside its equal keys"
        raise NotSupportedError(msg)
    frame = engine.feature(left.frame, "join")(right.frame, **_options(condition, how))
    return frame.filter(reduce(lambda a, b: a & b, mixed)) if mixed else frame


def _as_key(this: Relation, other: Relation, part: Expression, these: list[pl.Expr], others: list[pl.Expr]) -> tuple[Relation, Relation]:
    """Return both sides with a helper column each, which are equal where the condition on ``this`` side holds."""
    name = this.name("holds")
    these.append(pl.col(name))
    others.append(pl.col(f"{name}_other"))
    asked = this.verb("with_columns", translate(part, this.scope).alias(name))
    return asked, other.verb("with_columns", pl.lit(value=True).alias(f"{name}_other"))


def _join_using(left: Relation, right: Relation, how: str, names: list[str]) -> Relation:
    right = right.renamed(_aligned(left.scope, right.scope, names))
    others = {n: c for n, c in right.scope.items() if n not in names}
    taken = set(left.columns())
    right = right.renamed({c: f"{c}_of_right" for column in others.values() for c in physical(column) if c in taken})
    keys = [c for n in names for c in physical(left.scope[n])]
    options = {} if how in ONE_SIDED else {"coalesce": True}
    frame = engine.feature(left.frame, "join")(right.frame, on=keys, how=how, **options)
    if how in ONE_SIDED:
        return left.replaced(frame)
    scope = {n: left.scope[n] for n in names} | {n: c for n, c in left.scope.items() if n not in names}
    joined = _side_by_side(scope, {n: c for n, c in right.scope.items() if n not in names})
    return left.replaced(frame, joined).only(joined)


def _aligned(left: Scope, right: Scope, names: list[str]) -> dict[str, str]:
    """Return the renaming of the right side's key columns to the left side's, anything in their way moved aside."""
    pairs = {r: c for n in names for r, c in zip(physical(right[n]), physical(left[n]), strict=True)}
    columns = [c for column in right.values() for c in physical(column)]
    aside = {c: f"{c}_aside" for c in columns if c in pairs.values() and c not in pairs}
    return pairs | aside


def _side_by_side(left: Scope, right: Scope) -> dict[str, Column]:
    """Return both sides' names; a right one that is taken gets the suffix ``_right``."""
    scope: dict[str, Column] = dict(left)
    for name, column in right.items():
        scope[f"{name}_right" if name in scope else name] = column
    return scope
