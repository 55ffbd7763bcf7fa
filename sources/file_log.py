"""Which files make which batch: lines of the source's own log, as Spark's FileStreamSourceLog writes them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from urllib.parse import unquote

import polars as pl

from microbatch.errors import CheckpointCorruptError

LOGGED = pl.Schema({"path": pl.String, "mtime_us": pl.Int64, "batch_id": pl.Int64})
"""Files of the log; ``batch_id`` is the id of the log's entry, the ``logOffset`` of the source's offset."""

_LINE = pl.Schema({"path": pl.String, "timestamp": pl.Int64, "batchId": pl.Int64})
_LOCAL = "file://"
# What java.net.URI quotes in a path, so that Spark finds the file by our line; letters beyond ASCII stay.
_QUOTED = {code: f"%{code:02X}" for code in [*range(33), *map(ord, '"#%<>?[\\]^`{|}'), 127]}


def to_lines(files: pl.DataFrame, entry_id: int) -> list[str]:
    """Return one JSON text per file (columns ``path``, ``mtime_us``), in their order.

    Examples
    --------
    >>> to_lines(pl.DataFrame({"path": ["/in/a b.csv"], "mtime_us": [5000]}), 3)
    ['{"path":"file:///in/a%20b.csv","timestamp":5,"batchId":3}']
    """
    met = zip(files["path"].to_list(), (files["mtime_us"] // 1_000).to_list(), strict=True)
    return [_line(path.translate(_QUOTED), timestamp, entry_id) for path, timestamp in met]


def _line(path: str, timestamp_ms: int, entry_id: int) -> str:
    entry = {"path": f"{_LOCAL}{path}" if path.startswith("/") else path, "timestamp": timestamp_ms, "batchId": entry_id}
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))


def from_lines(lines: Sequence[str], where: str) -> pl.DataFrame:
    """Return ``LOGGED`` for lines of the log; CheckpointCorruptError, naming ``where``, if one of them is none.

    Examples
    --------
    >>> from_lines(['{"path":"file:///in/a%20b.csv","timestamp":5,"batchId":3}'], "sources/0").row(0)
    ('/in/a b.csv', 5000, 3)
    """
    if not lines:
        return LOGGED.to_frame()
    try:
        entries = pl.read_ndjson(io.BytesIO("\n".join(lines).encode()), schema=_LINE)
    except pl.exceptions.PolarsError as error:
        msg = f"the file log {where} holds a line that is no file entry ({error}); restore the folder from a copy"
        raise CheckpointCorruptError(msg) from error
    if entries.height != len(lines) or entries.null_count().sum_horizontal().item():
        msg = f"the file log {where} holds a line without path, timestamp or batchId; restore the folder from a copy"
        raise CheckpointCorruptError(msg)
    return entries.select(_decoded(entries["path"]), mtime_us=pl.col("timestamp") * 1_000, batch_id="batchId")


def _decoded(urls: pl.Series) -> pl.Series:
    # Hadoop writes a local path as file:/x or file:///x.
    paths = urls.str.replace(r"^file:/+", "/")
    if not paths.str.contains("%", literal=True).any():
        return paths
    return pl.Series("path", [unquote(path) if "%" in path else path for path in paths.to_list()])
