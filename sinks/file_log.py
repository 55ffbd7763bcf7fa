"""What a folder of batches says about itself: Spark's log of committed files, and ours of whose they are."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import polars as pl

from microbatch.errors import PlanError, SinkError

COMMITTED = "_spark_metadata"
"""The folder of the log of committed files, below the sink's (Spark: FileStreamSink.metadataDir)."""
OWNERS = "_microbatch"
"""The folder of the log whose only entry, 0, says which query writes here."""

_VERSION = "v1"
_COMPACT = ".compact"
_BLOCK_BYTES = 33_554_432  # what Hadoop says of local files
_LISTINGS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a folder is and how its files are read; fixed by the first batch."""

    query_id: str
    format: str
    reading: Mapping[str, Any]
    partition_by: tuple[str, ...]
    schema: pl.Schema

    def to_line(self) -> str:
        """Return this as JSON; ``columns`` is for people, ``schema`` an empty Arrow file, for exactness."""
        empty = io.BytesIO()
        self.schema.to_frame().write_ipc(empty)
        fields = {
            "queryId": self.query_id,
            "format": self.format,
            "reading": dict(self.reading),
            "partitionBy": list(self.partition_by),
            "columns": {name: str(dtype) for name, dtype in self.schema.items()},
            "schema": base64.b64encode(empty.getvalue()).decode(),
        }
        return json.dumps(fields)

    @staticmethod
    def from_line(line: str, where: str) -> Owner:
        """Return what ``to_line`` wrote; SinkError, naming ``where`` it was, for anything else."""
        try:
            fields = json.loads(line)
            schema = pl.read_ipc(io.BytesIO(base64.b64decode(fields["schema"]))).schema
            return Owner(
                query_id=fields["queryId"],
                format=fields["format"],
                reading=fields["reading"],
                partition_by=tuple(fields["partitionBy"]),
                schema=schema,
            )
        except (ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise _damaged(where, line) from error

    def check_same(self, other: Owner, folder: Path) -> None:
        """Raise unless ``other`` may go on in the folder this one began: SinkError for another query, PlanError for another shape."""
        if other.query_id != self.query_id:
            msg = (
                f"{folder} holds batches of query {self.query_id}, and this is query {other.query_id}: ids of one would be taken for the "
                "other's. Give each query a folder of its own; a query whose checkpoint is gone starts again in an empty folder"
            )
            raise SinkError(msg)
        for what, before, now in (
            ("format", self.format, other.format),
            ("format_options", dict(self.reading), dict(other.reading)),
            ("partition_by", list(self.partition_by), list(other.partition_by)),
            ("columns", _columns(self.schema, other.schema), _columns(other.schema, self.schema)),
        ):
            if before != now:
                msg = f"{folder} was begun with {what} {before}, and the query now has {now}; restore them, or take a new folder"
                raise PlanError(msg)


def local_folder(path: str) -> Path:
    """Return the absolute path of a folder given as path or ``file:`` URL; PlanError for other places and for patterns."""
    if path.startswith("file:"):
        return Path(url2pathname(urlsplit(path).path)).absolute()
    if "://" in path:
        msg = f"the file sink writes to local folders only, not to {path}; write a Delta table there with sink_delta"
        raise PlanError(msg)
    if not path or any(character in path for character in "*?"):
        msg = f"path={path!r} is no folder to write to; files are named by the sink, so give the folder alone"
        raise PlanError(msg)
    return Path(path).absolute()


def file_line(file: Path) -> str:
    """Return the line of the log for a file that exists (Spark: SinkFileStatus)."""
    status = file.stat()
    fields = {
        "path": file.as_uri(),
        "size": status.st_size,
        "isDir": False,
        "modificationTime": status.st_mtime_ns // 1_000_000,
        "blockReplication": 1,
        "blockSize": _BLOCK_BYTES,
        "action": "add",
    }
    return json.dumps(fields, separators=(",", ":"))


def committed_files(folder: Path) -> list[str] | None:
    """Return the paths of the files of all committed batches, in the batches' order; None if there is no log.

    Safe while a query writes. Raises SinkError for a log with a missing or malformed entry.
    """
    log = folder / COMMITTED
    # A compaction may remove entries between listing and reading; then a newer compact entry holds them.
    for _ in range(_LISTINGS):
        names = _entries_to_read(log)
        try:
            lines = [(name, line) for name in names for line in _lines(log / name)]
        except FileNotFoundError:
            continue
        return [_path(line, log / name) for name, line in lines] if names else None
    msg = f"the log {log} changed {_LISTINGS} times while it was read; read again"
    raise SinkError(msg, retryable=True)


def read_owner(folder: Path) -> Owner | None:
    """Return whose folder it is; None if nobody has written to it, or Spark has."""
    entry = folder / OWNERS / "0"
    try:
        (line,) = _lines(entry)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(str(entry), "") from error
    return Owner.from_line(line, str(entry))


def _entries_to_read(log: Path) -> list[str]:
    """Return the newest compact entry and the entries after it."""
    names = [entry.name for entry in log.iterdir() if entry.is_file()] if log.is_dir() else []
    plain = sorted(int(name) for name in names if name.isdigit())
    compact = max(
        (int(stem) for name in names if name.endswith(_COMPACT) and (stem := name.removesuffix(_COMPACT)).isdigit()), default=None
    )
    after = [entry_id for entry_id in plain if compact is None or entry_id > compact]
    if after and after != list(range(after[0] if compact is None else compact + 1, after[-1] + 1)):
        msg = f"the log {log} has entries {after} after {compact}, so some between are missing; restore the folder from a copy"
        raise SinkError(msg)
    return [*([] if compact is None else [f"{compact}{_COMPACT}"]), *map(str, after)]


def _lines(entry: Path) -> list[str]:
    version, *lines = entry.read_text().removesuffix("\n").split("\n")
    if version != _VERSION:
        raise _damaged(str(entry), version)
    return lines


def _path(line: str, entry: Path) -> str:
    try:
        return url2pathname(urlsplit(json.loads(line)["path"]).path)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(str(entry), line) from error


def _damaged(where: str, text: str) -> SinkError:
    return SinkError(f"{where} holds {text[:60]!r}, which is no entry of a file sink's log; restore the folder from a copy")


def _columns(schema: pl.Schema, other: pl.Schema) -> dict[str, str] | list[str]:
    """Return what a message should show of a schema: the columns that differ, or the order if only that does."""
    differing = {name: str(dtype) for name, dtype in schema.items() if other.get(name) != dtype}
    lacking: Iterable[str] = (name for name in other if name not in schema)
    differing |= dict.fromkeys(lacking, "absent")
    return differing or schema.names()
