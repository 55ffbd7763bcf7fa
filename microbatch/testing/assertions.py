"""What the kits for sources and sinks check with: plain functions that raise AssertionError and say what was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, TypeVar

import polars as pl
from polars.testing import assert_frame_equal

Place = TypeVar("Place")


class NotOwedError(Exception):
    """A check does not apply, because the connector does not promise what it looks at; not a failure."""


def ensure(condition: bool, message: str) -> None:
    """Raise AssertionError with ``message`` unless ``condition``; unlike ``assert`` also under ``python -O``."""
    if not condition:
        fail(message)


def fail(message: str) -> NoReturn:
    """Raise AssertionError."""
    raise AssertionError(message)


def owed(condition: bool, reason: str) -> None:
    """Raise NotOwedError with ``reason`` unless ``condition``."""
    if not condition:
        raise NotOwedError(reason)


def ensure_type(value: object, kind: type, what: str) -> None:
    """Raise unless ``value``, named ``what`` in the message, is of a type."""
    ensure(isinstance(value, kind), f"{what} must be a {kind.__name__}, not {value!r}")


def ensure_line(text: object, again: object) -> None:
    """Raise unless a description is one line of text and the same when asked again."""
    ensure(isinstance(text, str) and bool(text.strip()) and "\n" not in text, f"the description must be one line of text, not {text!r}")
    ensure(text == again, f"the description changed from {text!r} to {again!r}")


def ensure_figures(metrics: Mapping[str, str]) -> None:
    """Raise unless metrics are texts by name."""
    for name, value in metrics.items():
        ensure_type(name, str, "the name of a metric")
        ensure_type(value, str, f"the metric {name!r}")


def ensure_same_rows(seen: pl.DataFrame, expected: pl.DataFrame, when: str, *, in_order: bool = False) -> None:
    """Raise unless both frames have the same columns, dtypes and rows, NaN being NaN; ``when`` begins the message."""
    if seen.schema != expected.schema:
        fail(f"{when}: the columns are {dict(seen.schema)}, they should be {dict(expected.schema)}")
    if seen.height != expected.height:
        fail(f"{when}: {seen.height} rows are there, it should be {expected.height}; there are\n{seen}\nbut should be\n{expected}")
    try:
        assert_frame_equal(seen, expected, check_row_order=in_order, check_exact=True)
    except AssertionError as difference:
        msg = f"{when}: other rows than expected: {difference}"
        raise AssertionError(msg) from None


def run_checks(checks: Iterable[Callable[[Place], None]], make_place: Callable[[], Place]) -> dict[str, str]:
    """Run each check on a fresh place and return the names of those not owed, with the reason.

    Raises the first AssertionError, named after its check.
    """
    not_owed: dict[str, str] = {}
    for check in checks:
        name = check.__name__
        try:
            check(make_place())
        except NotOwedError as reason:
            not_owed[name] = str(reason)
        except AssertionError as broken:
            msg = f"{name}: {broken}"
            raise AssertionError(msg) from broken
    return not_owed
