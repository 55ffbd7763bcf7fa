"""Cases about the file sink's own log, the file source's log, and files cleaned up behind the query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

import microbatch as mb
from tests.conformance import engine
from tests.conformance.compare import check_equal, check_rows
from tests.conformance.ports import FilePort, snake
from tests.conformance.runners import rows
from tests.conformance.sinks import Batch
from tests.conformance.steps import Do, Script, Step

_FORMAT = "parquet"


class FileRecorder:
    """The engine's file sink; its content is read as a reader would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options: dict[str, Any] = {}

    def query(self, frame: Any, options: dict[str, Any]) -> Any:
        return engine.feature(frame, "sink_files")(str(self.folder), **{"format": _FORMAT, **self.options}, **options)

    def table(self) -> pl.DataFrame:
        """Return the rows of all committed files."""
        rows = engine.feature(mb, "read_file_sink")(str(self.folder))
        found: pl.DataFrame = rows.collect() if isinstance(rows, pl.LazyFrame) else rows
        return found

    def batches(self) -> list[Batch]:
        return [(0, self.table())]

    def clear(self, *, with_ids: bool) -> None:
        engine.feature(self, "clearing a file sink")


def run(body: dict[str, Any], folder: Path) -> str:
    """Run the case's steps; file-sink cases write to a folder, the others to memory."""
    return rows.run(body, folder, FileRecorder(folder / "sink") if body["runner"] == "file-sink" else None, _STEPS)


def _stray_file(script: Script, value: dict[str, Any], step: Step) -> None:
    recorder = script.subject.recorder
    assert isinstance(recorder, FileRecorder)
    (recorder.folder / value["name"]).write_text("".join(f"{line}\n" for line in value["lines"]))


def _sink_option(script: Script, value: dict[str, Any], step: Step) -> None:
    recorder = script.subject.recorder
    assert isinstance(recorder, FileRecorder)
    recorder.options |= {snake(name): option for name, option in value.items()}


def _sink_table(script: Script, value: list[list[Any]], step: Step) -> None:
    recorder = script.subject.recorder
    assert isinstance(recorder, FileRecorder)
    script.subject.look()
    check_rows("expect_sink_table", value, script.rows(recorder.table()))


def _source_option(script: Script, value: dict[str, Any], step: Step) -> None:
    for port in script.subject.ports.values():
        if isinstance(port, FilePort):
            port.options |= value


def _source_log(script: Script, value: list[str], step: Step) -> None:
    """The names of the entries in the log of the first source, wherever below its folder they lie."""
    script.subject.look()
    check_equal("expect_source_log", value, _entries(script.subject.checkpoint / "sources" / "0"))


def _entries(folder: Path) -> list[str]:
    """Return the names of a log's entries in a folder or below it, in the order of their numbers."""
    names = [f.name for f in folder.rglob("*") if f.is_file()]
    return sorted((n for n in names if n.removesuffix(".compact").isdigit()), key=lambda n: int(n.partition(".")[0]))


def _sink_log(script: Script, value: list[str], step: Step) -> None:
    """The names of the entries in the sink's own log."""
    recorder = script.subject.recorder
    assert isinstance(recorder, FileRecorder)
    script.subject.look()
    check_equal("expect_sink_log", value, _entries(recorder.folder / "_spark_metadata"))


def _files(script: Script, value: Any, step: Step) -> None:
    """The files left in the folders of the inputs, by input, or those of the first file source."""
    script.subject.look()
    folders = {name: port.folder for name, port in script.subject.ports.items() if isinstance(port, FilePort)}
    for name, names in (value if isinstance(value, dict) else {next(iter(folders)): value}).items():
        left = sorted(str(f.relative_to(folders[name])) for f in folders[name].rglob("*") if f.is_file())
        check_equal(f"expect_files {name}", sorted(names), left)


_STEPS: dict[str, Do] = {
    "sink_add_stray_file": _stray_file,
    "sink_option": _sink_option,
    "expect_sink_table": _sink_table,
    "source_option": _source_option,
    "expect_source_log": _source_log,
    "expect_sink_log": _sink_log,
    "expect_files": _files,
}
