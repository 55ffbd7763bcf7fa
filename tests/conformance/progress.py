"""Figures of a batch against a case's ``expect_progress``, whose names may be dotted, nested, in snake or camel case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from tests.conformance.compare import check_equal, same
from tests.conformance.report import MismatchError, NotSupportedError

_ALSO = {"inputrows": "numinputrows", "rows": "numinputrows", "outputrows": "sink.numoutputrows", "numoutputrows": "sink.numoutputrows"}


def check_progress(expected: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    """Raise MismatchError unless every expected figure is there with that value; event times are seconds."""
    known = {_plain(name): value for name, value in _leaves(progress)}
    for name, value in _leaves(expected):
        wanted = _ALSO.get(_plain(name), _plain(name))
        if wanted in known:
            _check(name, value, known[wanted])
        elif value is not None and wanted.startswith("eventtime"):
            msg = f"expect_progress {name}: expected {value!r}, the batch has none"
            raise MismatchError(msg)
        elif value is not None:
            msg = f"progress figure {name}"
            raise NotSupportedError(msg)


def _check(name: str, expected: Any, got: Any) -> None:
    if _plain(name).startswith("eventtime") and isinstance(got, str):
        got = datetime.fromisoformat(got).timestamp()
        expected = float(expected)
    if not same(expected, got) and not (expected == ">0" and got > 0):
        check_equal(f"expect_progress {name}", expected, got)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of every figure; the items of a list are numbered, and a list of one is also its item."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{number}")
    else:
        yield path, value


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
