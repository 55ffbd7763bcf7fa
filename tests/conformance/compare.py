"""Rows of the engine and rows of a case, compared as bags: floats nearly, nulls exactly, ints never equal to floats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from tests.conformance.report import MismatchError

Row = list[Any]
_TOLERANCE = 1e-9
_SHOWN_ROWS = 12


def rows_of(frame: pl.DataFrame, columns: Sequence[str] | None = None, *, per_second: int = 1) -> list[Row]:
    """Return a frame's rows in the cases' values; times in units of 1/``per_second`` s since 1970, UTC."""
    chosen = frame if columns is None else frame.select(columns)
    return [[_plain(value, per_second) for value in row] for row in chosen.rows()]


def _plain(value: Any, per_second: int) -> Any:
    match value:
        case datetime():
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            micros = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * per_second
            return micros // 1_000_000 if micros % 1_000_000 == 0 else micros / 1_000_000
        case date():
            return value.isoformat()
        case bytes():
            return value.decode(errors="replace")
        case list():
            return [_plain(v, per_second) for v in value]
        case dict():
            return [_plain(v, per_second) for v in value.values()]
        case _:
            return value


def same(expected: Any, got: Any) -> bool:
    """Return True if two values of rows count as equal."""
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(same, expected, got))
    if type(expected) is not type(got):
        return False
    if isinstance(expected, float):
        both_nan = math.isnan(expected) and math.isnan(got)
        return both_nan or math.isclose(expected, got, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(expected == got)


def difference(expected: Sequence[Row], got: Sequence[Row], *, ordered: bool = False) -> str | None:
    """Return how the rows differ, in words, or None if they are the same bag (ordered: the same list)."""
    if ordered:
        return None if same(list(expected), list(got)) else f"expected in order {_show(expected)}, got {_show(got)}"
    left = list(got)
    missing: list[Row] = []
    for row in expected:
        found = next((i for i, other in enumerate(left) if same(row, other)), None)
        if found is None:
            missing.append(row)
        else:
            del left[found]
    if not missing and not left:
        return None
    return f"expected {_show(expected)}, got {_show(got)}; missing {_show(missing)}, too many {_show(left)}"


def check_rows(what: str, expected: Sequence[Row], got: Sequence[Row], *, ordered: bool = False) -> None:
    """Raise MismatchError unless the rows are the same."""
    words = difference(expected, got, ordered=ordered)
    if words is not None:
        msg = f"{what}: {words}"
        raise MismatchError(msg)


def check_equal(what: str, expected: object, got: object) -> None:
    """Raise MismatchError unless two values are equal."""
    if not same(expected, got):
        msg = f"{what}: expected {expected!r}, got {got!r}"
        raise MismatchError(msg)


def _show(rows: Sequence[Row]) -> str:
    shown = ", ".join(map(str, rows[:_SHOWN_ROWS]))
    return f"[{shown}{f', ... {len(rows)} rows' if len(rows) > _SHOWN_ROWS else ''}]"
