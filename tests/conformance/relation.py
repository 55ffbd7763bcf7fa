"""A stream under construction: the engine's frame, and what the case's column names mean in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.plan.window import END, START
from tests.conformance import engine
from tests.conformance.expressions import Column, Expression, Scope, WindowColumns, physical, translate, window_of

_HIDDEN = "__"

TAKES_A_LIST = (["explode"], ["size"], ["sort_array"])


@dataclass(slots=True)
class Switch:
    """Whether ``fail_if`` raises now; a step of the case turns it."""

    on: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """``frame`` is the engine's StreamFrame; ``scope`` maps the case's names to its columns, in the case's order."""

    frame: Any
    scope: Scope
    failing: Switch = field(default_factory=Switch)
    fresh: Iterator[int] = field(default_factory=count)

    def verb(self, name: str, *arguments: Any, **options: Any) -> Relation:
        """Return the relation after a verb of the engine that leaves the names as they are."""
        return self.replaced(engine.feature(self.frame, name)(*arguments, **options))

    def replaced(self, frame: Any, scope: Scope | None = None) -> Relation:
        """Return the relation with another frame, and other names if given."""
        return Relation(frame=frame, scope=self.scope if scope is None else scope, failing=self.failing, fresh=self.fresh)

    @property
    def visible(self) -> dict[str, Column]:
        """The case's names, without the helpers this translation added."""
        return {name: column for name, column in self.scope.items() if not name.startswith(_HIDDEN)}

    def columns(self) -> list[str]:
        """Return the flat columns behind the case's names, in order."""
        return [c for column in self.visible.values() for c in physical(column)]

    def tidy(self) -> Relation:
        """Return the relation without helper columns."""
        return self if len(self.visible) == len(self.scope) else self.only(self.visible)

    def name(self, stem: str) -> str:
        """Return a column name that is not taken."""
        return f"{_HIDDEN}{stem}{next(self.fresh)}"

    def renamed(self, names: Mapping[str, str]) -> Relation:
        """Return the relation with flat columns renamed; the case's names stay."""
        wanted = {old: new for old, new in names.items() if old != new}
        if not wanted:
            return self

        def moved(column: Column) -> Column:
            if isinstance(column, str):
                return wanted.get(column, column)
            return WindowColumns(*(wanted.get(c, c) for c in column.both()))

        scope = {name: moved(column) for name, column in self.scope.items()}
        return self.replaced(engine.feature(self.frame, "rename")(wanted), scope)

    def with_column(self, name: str, expression: Expression) -> Relation:
        """Return the relation with one more column, or one replaced."""
        relation, bare = self.lift(expression)
        window = window_of(bare, relation.scope)
        if window is not None:
            return relation.replaced(relation.frame, {**relation.scope, name: window})
        added = relation.verb("with_columns", translate(bare, relation.scope).alias(name))
        return added.replaced(added.frame, {**relation.scope, name: name})

    def selected(self, columns: Mapping[str, Expression]) -> Relation:
        """Return the relation with these columns only, under the case's names."""
        relation, bare = self, dict[str, Expression]()
        for name, expression in columns.items():
            relation, bare[name] = relation.lift(expression)
        chosen: list[pl.Expr] = []
        scope: dict[str, Column] = {}
        for name, expression in bare.items():
            window = window_of(expression, relation.scope)
            scope[name] = window or name
            chosen += map(pl.col, window.both()) if window else [translate(expression, relation.scope).alias(name)]
        return relation.replaced(engine.feature(relation.frame, "select")(*chosen), scope)

    def with_window(self, expression: Expression) -> tuple[Relation, str]:
        """Return the relation with the two columns of a window, and a name for it; older columns of these names make way."""
        taken = [c for column in self.scope.values() for c in physical(column)]
        relation = self.renamed({c: self.name(c) for c in (START, END) if c in taken})
        name = self.name("window")
        assigned = relation.verb("with_columns", window_argument(expression, relation.scope))
        return assigned.replaced(assigned.frame, {**relation.scope, name: WindowColumns(START, END)}), name

    def lift(self, expression: Expression) -> tuple[Relation, Expression]:
        """Return the relation after the verbs an expression needs (explode, window, map_batches), and what is left of the expression."""
        if not isinstance(expression, list):
            return self, expression
        relation, parts = self, []
        for part in expression:
            if isinstance(part, list) and part[:1] == ["words"] and expression[:1] in TAKES_A_LIST:
                parts.append(part)  # the list itself; alone, the words are rows
                continue
            relation, left = relation.lift(part)
            parts.append(left)
        match parts:
            case ["explode" | "words", *_]:
                return relation.exploded(parts)
            case ["fail_if", value, bad]:
                return relation.checked(value, bad)
            case ["window", *_]:
                return relation.with_window(parts)
        return relation, parts

    def exploded(self, expression: list[Any]) -> tuple[Relation, str]:
        """Return the relation with a row for each item of a list; rows with an empty list or none drop out, as in SQL."""
        items = translate(expression if expression[0] == "words" else expression[1], self.scope)
        name = self.name("item")
        listed = self.verb("with_columns", items.alias(name)).verb("filter", pl.col(name).list.len() > 0)
        exploded = listed.verb("explode", name)
        return exploded.replaced(exploded.frame, {**self.scope, name: name}), name

    def checked(self, value: Expression, bad: Any) -> tuple[Relation, str]:
        """Return the relation with a column whose computing raises at the value ``bad`` while failing is switched on."""
        name = self.name("checked")
        relation = self.verb("with_columns", translate(value, self.scope).alias(name))
        raising = relation.mapped(_raise_at(name, bad, self.failing))
        return raising.replaced(raising.frame, {**self.scope, name: name}), name

    def mapped(self, function: Callable[[pl.DataFrame], pl.DataFrame]) -> Relation:
        """Return the relation after a row-wise Python function that keeps the columns."""
        return self.verb("map_batches", function, row_wise=True, keeps=self.frame.columns)

    def only(self, scope: Scope) -> Relation:
        """Return the relation with these columns and no others."""
        columns = list(dict.fromkeys(c for column in scope.values() for c in physical(column)))
        return self.replaced(engine.feature(self.frame, "select")(*(pl.col(c) for c in columns)), scope)


def window_argument(expression: list[Any], scope: Scope) -> Any:
    """Return ``mb.window(...)`` for ``[window, time, size, slide?, offset?]``."""
    _, time, size, *rest = expression
    slide, offset = (rest[0] if rest else None), (rest[1] if len(rest) > 1 else None)
    options = {} if offset is None else {"offset": offset}
    return engine.feature(mb, "window")(time_argument(time, scope), size, slide, **options)


def time_argument(time: Expression, scope: Scope) -> Any:
    """Return the name of a time column, or an expression; a window stands for its time, as in Spark."""
    window = window_of(time, scope)
    if window is not None:
        return engine.feature(mb, "window_time")(window.end)
    found = scope.get(time) if isinstance(time, str) else None
    return found if isinstance(found, str) else translate(time, scope)


def source(frame: Any, names: Mapping[str, str], failing: Switch, fresh: Iterator[int]) -> Relation:
    """Return a relation whose names are the frame's columns."""
    return Relation(frame=frame, scope={n: n for n in names}, failing=failing, fresh=fresh)


def _raise_at(column: str, bad: Any, failing: Switch) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def check(rows: pl.DataFrame) -> pl.DataFrame:
        if failing.on and rows.get_column(column).eq_missing(pl.Series([bad])).any():
            msg = "injected failure"
            raise RuntimeError(msg)
        return rows

    return check
