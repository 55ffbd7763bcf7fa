"""A version of the state as JSON: which files and which deltas its tables are made of."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from microbatch.checkpoint.state.delta_file import Footer, read_stream, read_version
from microbatch.checkpoint.state.files import StateFiles
from microbatch.checkpoint.state.hashing import HASH, TIME
from microbatch.checkpoint.state.run import DeltaRef, FileRef, Run, map_run
from microbatch.checkpoint.state.table import Table
from microbatch.errors import CheckpointMismatchError
from microbatch.protocols import TableSpec

_NAME_LENGTH = 100


def table_entry(table: Table) -> dict[str, Any]:
    """Return what makes up a table now: run files, newest first, and deltas not yet in one, oldest first."""
    return {
        "schema": [[name, str(dtype)] for name, dtype in table.spec.schema.items()],
        "arrow": table.arrow_schema,
        "keys": list(table.spec.keys),
        "time_key": table.spec.time_key,
        "log": table.spec.reduce is not None,
        "removable": table.spec.removable,
        "expiry": table.spec.expiry,
        "runs": [_as_json(run.file) for run in table.runs if run.file is not None],
        "deltas": [_as_json(ref) for run in reversed(table.runs) if run.file is None for ref in run.deltas],
        "evicted_to": table.evicted_to,
        "rows": table.keys,
    }


def schema_in(entry: dict[str, Any]) -> pl.Schema:
    """Return the columns of a stored table."""
    return pl.read_ipc_stream(io.BytesIO(zlib.decompress(base64.b64decode(entry["arrow"])))).schema


def _as_json(ref: FileRef | DeltaRef) -> dict[str, Any]:
    return {name: getattr(ref, name) for name in ref.__slots__}


def check_entry(table: Table, entry: dict[str, Any]) -> None:
    """Raise CheckpointMismatchError unless the stored table has the keys the query asks for, and no column of another dtype.

    Value columns may come (null in the rows that are there) and go; whether they should is not the store's business.
    """
    asked = table_entry(table)
    stored = dict(entry["schema"])
    other = [
        f"column {name!r} as {stored[name]}, the query keeps {dtype}" for name, dtype in asked["schema"] if stored.get(name, dtype) != dtype
    ]
    other += [f"{f} {entry[f]}, the query has {asked[f]}" for f in ("keys", "time_key", "log") if entry[f] != asked[f]]
    if other:
        msg = f"state of {table.name} was stored with {'; with '.join(other)}; restore the old query, or take a new checkpoint"
        raise CheckpointMismatchError(msg)


def folder_of(table: str) -> str:
    """Return the folder of a table's runs, below the state's: its name as a file may be called, which a user's column may not."""
    name = quote(table, safe=" ").replace(".", "%2E")
    return f"runs/{name if len(name) <= _NAME_LENGTH else f'{name[:_NAME_LENGTH]}~{zlib.crc32(table.encode()):08x}'}"


def with_columns_of(run: Run, spec: TableSpec) -> Run:
    """Return a stored run with exactly the columns of the table: those that are new hold nulls."""
    asked = [*(c for c in (TIME, HASH) if c in run.frame.columns), *spec.schema]
    if run.frame.columns == asked:
        return run
    new = [pl.lit(None, dtype).alias(name) for name, dtype in spec.schema.items() if name not in run.frame.columns]
    return replace(run, frame=run.frame.with_columns(new).select(asked))


def runs_of(root: Path, entry: dict[str, Any], *, verify: bool = False, cold: bool = False) -> list[Run]:
    """Return the runs of a table, newest first: deltas read and verified, files mapped (``verify``, ``cold``: as for ``map_run``).

    Raises CheckpointCorruptError.
    """
    deltas = [DeltaRef(**delta) for delta in entry["deltas"]]
    files = [FileRef(**run) for run in entry["runs"]]
    return [
        *(Run(frame=read_stream(root, ref), deltas=(ref,)) for ref in reversed(deltas)),
        *(map_run(root, ref, verify=verify, cold=cold) for ref in files),
    ]


def fetch_version(files: StateFiles, delta: str, version: int) -> Footer:
    """Return the footer of the delta that makes a version, whose files are below ``files.root`` then. Raises CheckpointCorruptError."""
    files.fetch([delta])
    footer = read_version(files.root / delta, version)
    files.fetch(files_in(footer))
    return footer


def files_in(footer: Footer) -> Iterable[str]:
    """Yield the files a version is made of, by their paths below the state folder."""
    for entry in footer["tables"].values():
        yield from (run["file"] for run in entry["runs"])
        yield from (delta["file"] for delta in entry["deltas"])


def bytes_in(footer: Footer) -> int:
    """Return the size of all run files a version is made of."""
    return sum(run["bytes"] for entry in footer["tables"].values() for run in entry["runs"])
