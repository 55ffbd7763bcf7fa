"""The names users import, and that each says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import microbatch as mb

ROOT = Path(__file__).parents[1]

# A name added or removed here is a line in CHANGELOG.md.
PUBLIC_NAMES = [
    "CheckpointCorruptError",
    "CheckpointInUseError",
    "CheckpointMismatchError",
    "DataError",
    "KeyState",
    "MemorySink",
    "MemoryStream",
    "MicrobatchError",
    "PlanError",
    "Progress",
    "Query",
    "QueryFailedError",
    "QueryOptions",
    "QueryResult",
    "SessionWindow",
    "SinkError",
    "SourceError",
    "StateBatch",
    "StateChange",
    "StreamFrame",
    "StreamingQuery",
    "StreamingQueryListener",
    "Window",
    "__version__",
    "batch_time",
    "concat",
    "read_file_sink",
    "read_state",
    "read_state_changes",
    "rollback",
    "scan_files",
    "scan_rate",
    "session_window",
    "static",
    "window",
    "window_time",
]

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def test_public_names_are_exactly_these() -> None:
    assert sorted(mb.__all__) == PUBLIC_NAMES


def test_every_public_name_is_there() -> None:
    assert [name for name in mb.__all__ if getattr(mb, name, None) is None] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert getattr(mb, "no_such_name", None) is None


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, _Definition]]:
    """Yield public functions and classes, and the public methods of public classes."""
    for node in body:
        if isinstance(node, _Definition) and not node.name.startswith("_") and not _is_completed_elsewhere(node):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{prefix}{node.name}.")


def _is_completed_elsewhere(node: _Definition) -> bool:
    """True for overloads and property setters, whose sibling carries the docstring."""
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    return any(mark.split(".")[-1] in ("overload", "setter", "deleter") for mark in marks)


def test_everything_public_has_a_docstring() -> None:
    missing = []
    for top in ("microbatch", "sources", "sinks", "checkpoint"):
        for file in sorted((ROOT / top).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            named = [("", tree), *public_definitions(tree.body)]
            missing += [f"{file.relative_to(ROOT)}: {name or 'the module'}" for name, node in named if not ast.get_docstring(node)]
    assert missing == []
