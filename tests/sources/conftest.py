"""A folder into which files fall at times the test says, and runs of a source on one checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.entry_log import CompactibleLog
from microbatch.clock import ManualClock
from microbatch.model import Offset
from microbatch.protocols import Source, SourceContext, SourceReader
from microbatch.sources.files import FileSource

SCHEMA = {"n": pl.Int64, "s": pl.String}


class Landing:
    """A folder of files, and one checkpoint."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "landing"
        self.folder.mkdir()
        self.checkpoint = root / "checkpoint" / "sources" / "0"
        self.clock = ManualClock(1_700_000_000_000_000)

    def add(self, name: str, content: str | bytes | pl.DataFrame, mtime_s: float = 1_000) -> Path:
        """Let a file lie there, whole, last changed at a time."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            getattr(content, {".parquet": "write_parquet", ".arrow": "write_ipc"}[path.suffix])(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(path, (mtime_s, mtime_s))
        return path

    def rows(self, name: str, *numbers: int, mtime_s: float = 1_000) -> Path:
        """Add a CSV file with the numbers in column n and the file's name in column s."""
        return self.add(name, "n,s\n" + "".join(f"{number},{name}\n" for number in numbers), mtime_s)

    def source(self, pattern: str = "*.csv", **options: Any) -> FileSource:
        """Describe the files of the folder."""
        path = f"{self.folder}/{pattern}" if pattern else str(self.folder)
        return FileSource(path, **{"schema": SCHEMA, **options})

    def open(self, pattern: str = "*.csv", **options: Any) -> SourceReader:
        """Begin a run on the checkpoint."""
        return self.run(self.source(pattern, **options))

    def run(self, source: Source, folder: Path | None = None) -> SourceReader:
        """Begin a run of a source on the checkpoint, or on another one."""
        context = SourceContext(folder=LocalFolder(folder or self.checkpoint), clock=self.clock, open_log=CompactibleLog)
        return source.open(context)

    def read(self, pattern: str = "*.csv", **options: Any) -> pl.DataFrame:
        """Return all rows a first batch without limits has."""
        reader = self.open(pattern, **options)
        return reader.read(None, reader.latest_offset(None, limited=False)).collect()

    def log(self, entry: int | str) -> list[str]:
        """Return the lines of a file of the source's log."""
        return (self.checkpoint / str(entry)).read_text().split("\n")


def batches_of(reader: SourceReader, start: Offset = None) -> list[list[int]]:
    """Return column n of each batch until nothing is left."""
    found: list[list[int]] = []
    while (end := reader.latest_offset(start, limited=True)) != start:
        found.append(reader.read(start, end).collect()["n"].to_list())
        start = end
    return found


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    """An empty folder and a new checkpoint."""
    return Landing(tmp_path)


@pytest.fixture
def batches() -> Callable[..., list[list[int]]]:
    """Return column n of each batch of a reader until nothing is left."""
    return batches_of
