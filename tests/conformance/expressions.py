"""A case's expressions as Polars expressions, with Spark's meaning where the two differ.

A string is a column, a number itself, a list ``[op, args...]``. A window of a case is a struct, ours two flat columns: a scope maps
each name of the case to a column or to a pair of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import polars as pl

import microbatch as mb
from tests.conformance import engine
from tests.conformance.report import NotSupportedError


@dataclass(frozen=True, slots=True)
class WindowColumns:
    """The two flat columns of a window, [start, end)."""

    start: str
    end: str

    def both(self) -> list[str]:
        """The columns in order."""
        return [self.start, self.end]


Column = str | WindowColumns
Scope = Mapping[str, Column]
Expression = Any
"""A string, a number, a bool, None or a list."""


def physical(column: Column) -> list[str]:
    """Return the names of the flat columns behind a name of a case."""
    return [column] if isinstance(column, str) else column.both()


def window_of(expression: Expression, scope: Scope) -> WindowColumns | None:
    """Return the columns of an expression that is the name of a window, else None."""
    found = scope.get(expression) if isinstance(expression, str) else None
    return found if isinstance(found, WindowColumns) else None


def translate(expression: Expression, scope: Scope) -> pl.Expr:
    """Return a case's expression as a Polars expression over the flat columns of ``scope``; NotSupportedError names an unknown op."""
    match expression:
        case str():
            return _column(expression, scope)
        case _Length():
            return _length(expression.gap, scope)
        case bool() | None | float():
            return pl.lit(expression)
        case int():
            return pl.lit(expression, dtype=pl.Int64)
        case [str() as op, *arguments] if op in _RAW:
            return _RAW[op](arguments, scope)
        case [str() as op, *arguments] if op in _OPERATIONS:
            return _OPERATIONS[op](*(translate(a, scope) for a in arguments))
        case _:
            msg = f"expression {expression[0] if isinstance(expression, list) else expression}"
            raise NotSupportedError(msg)


def _column(name: str, scope: Scope) -> pl.Expr:
    found = scope.get(name)
    if isinstance(found, str):
        return pl.col(found)
    if found is not None:
        return pl.struct(pl.col(found.start).alias("start"), pl.col(found.end).alias("end"))
    owner, _, field = name.rpartition(".")
    if owner in scope:
        inside = scope[owner]
        return pl.col(inside).struct.field(field) if isinstance(inside, str) else pl.col({"start": inside.start, "end": inside.end}[field])
    # Let the engine say that there is no such column.
    return pl.col(name)


def remainder(dividend: pl.Expr, divisor: pl.Expr) -> pl.Expr:
    """Return the remainder with the sign of the dividend, as SQL has it (Polars takes that of the divisor)."""
    return pl.when(dividend >= 0).then(dividend % divisor.abs()).otherwise(-((-dividend) % divisor.abs()))


def null_safe_key(key: pl.Expr) -> pl.Expr:
    """Return a key for which ordinary equality is ``<=>``: null becomes a text no value has."""
    return key.cast(pl.String).fill_null("\0null")


def conjuncts(condition: Expression) -> list[Expression]:
    """Return the parts of a condition that must all hold; a ``between`` becomes two comparisons."""
    match condition:
        case ["and", *parts]:
            return [c for part in parts for c in conjuncts(part)]
        case ["between", value, low, high]:
            return [[">=", value, low], ["<=", value, high]]
        case _:
            return [condition]


def names_in(expression: Expression) -> set[str]:
    """Return the columns an expression names, fields of structs as ``column.field``."""
    match expression:
        case str():
            return {expression}
        case ["lit", _]:
            return set()
        case ["contains", value, str()]:
            return names_in(value)
        case ["shift", value, _]:
            return names_in(value)
        case ["case", *branches]:
            return {n for b in branches for part in (b if _is_branch(b) else [b]) for n in names_in(part)}
        case [str(), *arguments]:
            return {n for a in arguments for n in names_in(a)}
        case _:
            return set()


def belongs_to(expression: Expression, scope: Scope) -> bool:
    """Return True if every column of an expression is one of ``scope``."""
    return all(n in scope or n.rpartition(".")[0] in scope for n in names_in(expression))


def _is_branch(part: Expression) -> bool:
    if not isinstance(part, list) or len(part) != 2:
        return False
    return isinstance(part[0], list) or (part[0] not in _RAW and part[0] not in _OPERATIONS)


def _literal(arguments: list[Any], scope: Scope) -> pl.Expr:
    value = arguments[0]
    return pl.lit(value, dtype=pl.Int64) if isinstance(value, int) and not isinstance(value, bool) else pl.lit(value)


def _contains(arguments: list[Any], scope: Scope) -> pl.Expr:
    value, part = arguments
    wanted = pl.lit(part) if isinstance(part, str) else translate(part, scope)
    return translate(value, scope).cast(pl.String).str.contains(wanted, literal=True)


def _case(arguments: list[Any], scope: Scope) -> pl.Expr:
    branches = [b for b in arguments if _is_branch(b)]
    default = next((translate(a, scope) for a in arguments if not _is_branch(a)), pl.lit(None))
    for condition, value in reversed(branches):
        default = pl.when(translate(condition, scope)).then(translate(value, scope)).otherwise(default)
    return default


def gap_argument(gap: Expression, scope: Scope) -> str | pl.Expr:
    """Return the gap of a session: a text as it is; an expression of texts, such as one by case, as a Duration."""
    match gap:
        case str() if gap not in scope:
            return gap
        case ["lit", str() as text]:
            return text
        case _:
            return _length(gap, scope)


def _length(gap: Expression, scope: Scope) -> pl.Expr:
    """Return a Duration from an expression whose values are texts such as "10 seconds"; null where a text is none."""
    match gap:
        case ["lit", str() as text]:
            return engine.duration(text)
        case ["case", *parts]:
            values = [[p[0], _Length(p[1])] if _is_branch(p) else _Length(p) for p in parts]
            return _case(values, scope)
        case _:
            return engine.duration_of(translate(gap, scope).cast(pl.String))


@dataclass(frozen=True, slots=True)
class _Length:
    """A part of an expression that is a length of time."""

    gap: Expression


def _shift(arguments: list[Any], scope: Scope) -> pl.Expr:
    time, by = arguments
    return translate(time, scope) + engine.duration(str(by[1] if isinstance(by, list) else by))


def _window_time(arguments: list[Any], scope: Scope) -> pl.Expr:
    columns = window_of(arguments[0], scope)
    if columns is None:
        msg = f"window_time of {arguments[0]!r}"
        raise NotSupportedError(msg)
    time: pl.Expr = engine.feature(mb, "window_time")(columns.end)
    return time


def _equal(arguments: list[Any], scope: Scope) -> pl.Expr:
    left, right = (window_of(a, scope) for a in arguments)
    if left and right:
        return (pl.col(left.start) == pl.col(right.start)) & (pl.col(left.end) == pl.col(right.end))
    a, b = (translate(x, scope) for x in arguments)
    return a == b


def _is_null(arguments: list[Any], scope: Scope) -> pl.Expr:
    columns = window_of(arguments[0], scope)
    return pl.col(columns.start).is_null() if columns else translate(arguments[0], scope).is_null()


def _struct(arguments: list[Any], scope: Scope) -> pl.Expr:
    return pl.struct(translate(a, scope).alias(a if isinstance(a, str) else f"col{i}") for i, a in enumerate(arguments, start=1))


def _round(arguments: list[Any], scope: Scope) -> pl.Expr:
    digits = int(arguments[1]) if len(arguments) > 1 else 0
    return translate(arguments[0], scope).round(digits, mode="half_away_from_zero")


def _other_rows(arguments: list[Any], scope: Scope) -> pl.Expr:
    """A position among rows: no stream has one, so the engine must refuse it."""
    return pl.int_range(pl.len())


def _batch_time_secs(arguments: list[Any], scope: Scope) -> pl.Expr:
    now = engine.feature(mb, "batch_time", "current_time", "now")()
    return _whole_seconds(now)


def _whole_seconds(time: pl.Expr) -> pl.Expr:
    return time.dt.timestamp("us") // 1_000_000


def _to_time(seconds: pl.Expr) -> pl.Expr:
    return (seconds * 1_000_000).cast(pl.Int64).cast(engine.UTC_TIME)


_RAW: dict[str, Callable[[list[Any], Scope], pl.Expr]] = {
    "lit": _literal,
    "contains": _contains,
    "case": _case,
    "shift": _shift,
    "window_time": _window_time,
    "==": _equal,
    "is_null": _is_null,
    "struct": _struct,
    "round": _round,
    "row_number": _other_rows,
    "monotonic_id": _other_rows,
    "batch_time_secs": _batch_time_secs,
}
"""Operations whose arguments are not all expressions, or may be windows."""

_OPERATIONS: dict[str, Callable[..., pl.Expr]] = {
    "+": lambda *parts: reduce(lambda a, b: a + b, parts),
    "-": lambda a, *rest: -a if not rest else reduce(lambda x, y: x - y, rest, a),
    "*": lambda *parts: reduce(lambda a, b: a * b, parts),
    "/": lambda a, b: a / b,
    "%": remainder,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<=>": lambda a, b: a.eq_missing(b),
    "and": lambda *parts: reduce(lambda a, b: a & b, parts),
    "or": lambda *parts: reduce(lambda a, b: a | b, parts),
    "not": lambda a: ~a,
    "between": lambda a, low, high: (a >= low) & (a <= high),
    "words": lambda text: text.str.split(" "),
    "array": pl.concat_list,
    "size": lambda a: a.list.len().cast(pl.Int64),
    "sort_array": lambda a: a.list.sort(),
    "to_int": lambda a: a.cast(pl.Int64, strict=False),
    "to_str": lambda a: a.cast(pl.String),
    "secs": _whole_seconds,
    "micros": lambda a: a.dt.timestamp("us"),
    "to_ts": _to_time,
}
