"""Where a case's rows come in: memory streams, and folders into which files fall."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.registry import connector
from tests.conformance import engine
from tests.conformance.report import NotSupportedError

TEXT_COLUMNS = {"value": "str"}


class MemoryPort:
    """Rows wait here until the runner lets them arrive, all at once."""

    def __init__(self, columns: Mapping[str, str], *, per_second: int = 1) -> None:
        self.columns = dict(columns)
        self.stream = engine.feature(mb, "MemoryStream")(engine.schema(columns))
        self._per_second = per_second
        self._waiting: list[pl.DataFrame] = []

    def frame(self) -> Any:
        """Return the stream; always the same source."""
        return self.stream.frame()

    def add(self, rows: list[list[Any]]) -> None:
        """Put rows behind those that wait."""
        self._waiting.append(engine.frame(rows, self.columns, per_second=self._per_second))

    def take(self) -> pl.DataFrame | None:
        """Return the rows that wait, which then wait no more; None if nothing was added."""
        waiting, self._waiting = self._waiting, []
        return pl.concat(waiting) if waiting else None


class FilePort:
    """A folder of files, read by the engine's file source."""

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.format = str(spec.get("format", "text"))
        self._declared: dict[str, str] | None = spec.get("schema") or (TEXT_COLUMNS if self.format == "text" else None)
        self.columns: dict[str, str] = dict(self._declared or {})
        self.options: dict[str, Any] = dict(spec.get("options") or {})
        self._pattern = f"{folder}{spec.get('glob') or ''}"
        self._newest_ns = 0

    def frame(self) -> Any:
        """Return the stream of the folder's files, with the options of now."""
        scan = engine.feature(mb, "scan_files")
        options = file_options(self.format, self.options)
        if "archive_dir" in options:  # a case cannot know where it runs
            options["archive_dir"] = str(self.folder.parent / options["archive_dir"])
        known = inspect.signature(connector("source:files")).parameters
        for name in options:
            if name not in known:
                msg = f"file source option {name}"
                raise NotSupportedError(msg)
        schema = None if self._declared is None else engine.schema(self._declared)
        frame = scan(self._pattern, format={"json": "ndjson"}.get(self.format, self.format), schema=schema, **options)
        self.columns = self._declared or dict.fromkeys(frame.columns, "inferred")
        return frame

    def write(self, name: str, lines: list[str], mtime: float | None) -> None:
        """Let a file appear, whole; without ``mtime`` it is younger than all before it."""
        staged = self.folder.parent / f"staged-{self.folder.name}"
        staged.write_text("".join(f"{line}\n" for line in lines))
        if mtime is None:
            self._newest_ns = max(self._newest_ns + 10_000_000, staged.stat().st_mtime_ns)
        mtime_ns = self._newest_ns if mtime is None else int(mtime * 1_000_000_000)
        os.utime(staged, ns=(mtime_ns, mtime_ns))
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)


Port = MemoryPort | FilePort


def open_port(name: str, spec: Mapping[str, Any], folder: Path) -> Port:
    """Return the way in for one input of a case."""
    kind = spec.get("kind", "memory") if isinstance(spec.get("kind", "memory"), str) else "memory"
    if kind == "file":
        return FilePort(spec, folder / name)
    if kind in ("delta", "kafka"):
        msg = f"{kind} source"
        raise NotSupportedError(msg)
    return MemoryPort(spec)


_OTHERWISE_CALLED = {"source_archive_dir": "archive_dir", "recursive_file_lookup": "recursive"}
_OF_FORMAT = {"header": "has_header", "sep": "separator", "delimiter": "separator", "null_value": "null_values", "quote": "quote_char"}


def file_options(file_format: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return Spark's options of a file source under our names; a CSV file has a header only if it says so."""
    options: dict[str, Any] = {}
    of_format: dict[str, Any] = {"has_header": False} if file_format == "csv" else {}
    for name, value in given.items():
        ours = _names().get(_plain(name), snake(name))
        if ours in _OF_FORMAT.values():
            of_format[ours] = value
        else:
            options[ours] = _option_value(value)
    return options | ({"format_options": of_format} if of_format else {})


def _names() -> dict[str, str]:
    """Return our names under all names without case and underscores, in which Spark's do not differ."""
    known = inspect.signature(connector("source:files")).parameters
    return {_plain(theirs): ours for theirs, ours in ({n: n for n in known} | _OTHERWISE_CALLED | _OF_FORMAT).items()}


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


_BYTES = {"b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}


def _option_value(value: Any) -> Any:
    """Return a value that Spark takes as text (``"10"``, ``"1k"``, ``"true"``) as the number or flag it means."""
    text = value.lower() if isinstance(value, str) else ""
    if text in ("true", "false"):
        return text == "true"
    size = re.fullmatch(r"(\d+)(b|kb?|mb?|gb?)?", text)
    return int(size[1]) * _BYTES.get(size[2], 1) if size else value


def snake(name: str) -> str:
    """Return an option of Spark under the name ours has: maxFilesPerTrigger is max_files_per_trigger."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
