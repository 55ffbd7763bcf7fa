"""A version of the state as JSON: which files and which deltas its tables are made of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from microbatch.checkpoint.state.delta_file import Footer, read_stream
from microbatch.checkpoint.state.run import DeltaRef, FileRef, Run, map_run
from microbatch.checkpoint.state.table import Table
from microbatch.errors import CheckpointMismatchError


def table_entry(table: Table) -> dict[str, Any]:
    """Return what makes up a table now: run files, newest first, and deltas not yet in one, oldest first."""
    return {
        "schema": [[name, str(dtype)] for name, dtype in table.spec.schema.items()],
        "keys": list(table.spec.keys),
        "time_key": table.spec.time_key,
        "log": table.spec.reduce is not None,
        "runs": [_as_json(run.file) for run in table.runs if run.file is not None],
        "deltas": [_as_json(ref) for run in reversed(table.runs) if run.file is None for ref in run.deltas],
        "evicted_to": table.evicted_to,
        "rows": table.keys,
    }


def _as_json(ref: FileRef | DeltaRef) -> dict[str, Any]:
    return {name: getattr(ref, name) for name in ref.__slots__}


def check_entry(table: Table, entry: dict[str, Any]) -> None:
    """Raise CheckpointMismatchError unless the stored table has the columns the query asks for."""
    asked = [[name, str(dtype)] for name, dtype in table.spec.schema.items()]
    if entry["schema"] != asked:
        msg = f"state of {table.name} was stored with columns {entry['schema']}, the query keeps {asked}; restore the old query"
        raise CheckpointMismatchError(msg)


def runs_of(root: Path, entry: dict[str, Any]) -> list[Run]:
    """Return the runs of a table, newest first: deltas read and verified, files mapped. Raises CheckpointCorruptError."""
    deltas = [DeltaRef(**delta) for delta in entry["deltas"]]
    files = [FileRef(**run) for run in entry["runs"]]
    return [*(Run(frame=read_stream(root, ref), deltas=(ref,)) for ref in reversed(deltas)), *(map_run(root, ref) for ref in files)]


def files_in(footer: Footer) -> Iterable[str]:
    """Yield the files a version is made of, by their paths below the state folder."""
    for entry in footer["tables"].values():
        yield from (run["file"] for run in entry["runs"])
        yield from (delta["file"] for delta in entry["deltas"])
