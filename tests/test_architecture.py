"""Which room may import which, and what no room may do: read from the source, so that a wrong import fails before it is merged."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

_BASE = {"model", "errors", "clock", "durations", "faults"}
_PORTS = {"protocols", *_BASE}
_ENGINE = {"checkpoint", "engine", "operators", "plan", "planner", "registry", *_PORTS}
# "microbatch" is the package's own __init__: the public names.
_USERS = {"api", "microbatch", *_ENGINE}

MAY_IMPORT = {
    "errors": set[str](),
    "model": {"errors"},
    "clock": {"errors"},
    "durations": {"errors"},
    "faults": {"errors"},
    "protocols": _BASE,
    "registry": _BASE,
    "plan": _PORTS,
    "operators": {"plan", *_PORTS},
    "planner": {"operators", "plan", *_PORTS},
    "sources": _PORTS,
    "sinks": _PORTS,
    "checkpoint": _PORTS,
    "engine": _ENGINE,
    "api": _USERS - {"microbatch"},
    "testing": _USERS,
    "microbatch": _USERS,
    "demo": _USERS,
    "cli": {"demo", *_USERS},
}

MAY_STAND = {
    # A listener is a guest: what it raises is logged and must not stop the query.
    ("microbatch/engine/loop.py", "except Exception"),
    # A function per key is what the user asked for: its rows become tuples here, and only here.
    ("microbatch/operators/per_key.py", ".rows("),
    # What a user's function raises may be anything: it is told with its key and batch, the cause chained, and stops the query.
    ("microbatch/operators/per_key.py", "except Exception"),
    ("microbatch/plan/state_call.py", "except Exception"),
}


def source_files() -> list[Path]:
    """Return every module of the package, each once: rglob does not follow the three links."""
    return [f for top in ("microbatch", "sources", "sinks", "checkpoint") for f in sorted((ROOT / top).rglob("*.py"))]


FILES = source_files()


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def room_of(file: Path) -> str:
    """Return the room a file stands in: its top folder, or below microbatch its folder or module."""
    first, *rest = file.relative_to(ROOT).parts
    if first != "microbatch":
        return first
    inner = rest[0].removesuffix(".py")
    return "microbatch" if inner == "__init__" else inner


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything imported, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from microbatch import plan` names the room in the second half.
            yield from ((node.lineno, f"{module}.{alias.name}" if module == "microbatch" else module) for alias in node.names)


def room_imported(dotted: str) -> str | None:
    """Return the room of ours a dotted name leads to, None for other people's modules."""
    first, *rest = dotted.split(".")
    if first != "microbatch":
        return None
    return rest[0] if rest and rest[0] in MAY_IMPORT else "microbatch"


def wrong_imports(files: list[Path]) -> list[str]:
    found = []
    for file in files:
        room = room_of(file)
        allowed = {room, *MAY_IMPORT.get(room, set())}
        for line, dotted in imports(tree_of(file)):
            target = room_imported(dotted)
            if target is not None and target not in allowed:
                found.append(f"{name_of(file)}:{line}: {room} may not import {dotted}")
    return found


def test_every_module_is_looked_at_once() -> None:
    assert len({file.resolve() for file in FILES}) == len(FILES)
    assert {"microbatch/protocols.py", "sources/__init__.py", "checkpoint/offset_log.py"} <= set(map(name_of, FILES))


def test_every_room_stands_in_the_table() -> None:
    assert sorted({room_of(file) for file in FILES} - set(MAY_IMPORT)) == []


def test_imports_run_downwards_only() -> None:
    assert wrong_imports(FILES) == []


def test_no_room_below_the_api_may_import_what_users_touch() -> None:
    top = {"microbatch", "api", "testing", "demo", "cli"}
    assert [room for room in sorted(set(MAY_IMPORT) - top) if MAY_IMPORT[room] & top] == []


def test_sources_sinks_and_checkpoint_know_only_the_ports() -> None:
    assert MAY_IMPORT["sources"] == MAY_IMPORT["sinks"] == MAY_IMPORT["checkpoint"] == _PORTS


def test_a_sink_that_imports_the_engine_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "sinks" / "broken.py"
    file.parent.mkdir()
    file.write_text("def write():\n    from microbatch.engine import loop\n    from microbatch import api, errors\n")
    assert wrong_imports([file]) == [
        "sinks/broken.py:2: sinks may not import microbatch.engine",
        "sinks/broken.py:3: sinks may not import microbatch.api",
    ]


def test_imports_are_absolute_and_of_the_package() -> None:
    bare = {"sources", "sinks", "checkpoint", "tests", "benchmarks"}
    found = [
        f"{name_of(file)}:{line}: {dotted}"
        for file in FILES
        for line, dotted in imports(tree_of(file))
        if dotted.startswith(".") or dotted.split(".")[0] in bare
    ]
    assert found == []


def modules_that_import(module: str) -> list[str]:
    return [name_of(f) for f in FILES if any(d.split(".")[0] == module for _, d in imports(tree_of(f)))]


@pytest.mark.parametrize("module", ["time", "uuid"])
def test_only_the_clock_asks_for_time_and_identity(module: str) -> None:
    assert modules_that_import(module) == ["microbatch/clock.py"]


def test_asyncio_stays_in_the_kafka_modules() -> None:
    assert [name for name in modules_that_import("asyncio") if "kafka" not in name] == []


def test_pandas_is_imported_nowhere() -> None:
    assert modules_that_import("pandas") == []


_ROW_METHODS = {"iter_rows", "to_dicts", "rows_by_key"}


def forbidden(node: ast.AST, room: str) -> str | None:
    """Return the name of what must not stand in a room, None if the node is fine."""
    if isinstance(node, ast.Attribute) and node.attr in _ROW_METHODS:
        return node.attr
    # The kits of the testing room have methods of that name that return frames.
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "rows" and room != "testing":
        return ".rows("
    if isinstance(node, ast.ExceptHandler) and (node.type is None or "'Exception'" in ast.dump(node.type)):
        return "except Exception"
    if isinstance(node, ast.Attribute) and node.attr == "sleep":
        return "sleep"
    return None


def test_no_rows_in_python_no_blanket_except_no_sleep() -> None:
    found = [
        f"{name_of(file)}:{getattr(node, 'lineno', 0)}: {what}"
        for file in FILES
        for node in ast.walk(tree_of(file))
        if (what := forbidden(node, room_of(file))) and (name_of(file), what) not in MAY_STAND
    ]
    assert found == []
