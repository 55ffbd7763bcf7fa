"""Where streams begin: ``scan_*`` describe sources, ``static`` a bounded frame. Nothing is read but, where asked for, a schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, cast

import polars as pl

from microbatch.api.options import make
from microbatch.api.stream_frame import StreamFrame
from microbatch.errors import PlanError
from microbatch.model import Offset
from microbatch.plan.checks import check_union
from microbatch.plan.nodes import Scan, Static, Union
from microbatch.registry import connector


def scan_files(
    path: str | PathLike[str] | Sequence[str | PathLike[str]], *, schema: Mapping[str, Any] | pl.Schema | None = None, **options: Any
) -> StreamFrame:
    """Return the rows of files that land in a folder: new files, oldest first, each once.

    All options: ``microbatch.sources.files.FileSource``; the usual ones are ``format``, ``max_files_per_trigger``,
    ``max_bytes_per_trigger``, ``malformed`` ("fail", "drop", "rescue"), ``clean_source``.

    Parameters
    ----------
    path
        Folder, glob (``"landing/*.csv"``), a list of them, or an fsspec URL.
    schema
        Columns and dtypes; None: inferred once from the first file and pinned in the checkpoint.
    """
    return StreamFrame(Scan(source=make(connector("source:files"), (path,), {"schema": schema, **options})))


def scan_rate(rows_per_second: int = 1, **options: Any) -> StreamFrame:
    """Return rows made at a steady rate, for trying things: ``timestamp`` Datetime("us", "UTC"), ``value`` Int64 from 0.

    All options: ``microbatch.sources.rate.RateSource``.
    """
    return StreamFrame(Scan(source=make(connector("source:rate"), (rows_per_second,), options)))


def static(frame: pl.LazyFrame | pl.DataFrame) -> StreamFrame:
    """Return a bounded frame with the verbs of a stream: one side of a join, or a check of a query on fixed rows with ``as_batch``."""
    return StreamFrame(Static(frame=frame.lazy()))


_CONCAT_HOW = ("vertical", "vertical_relaxed", "diagonal", "diagonal_relaxed")


def concat(frames: Sequence[StreamFrame], *, how: str = "vertical") -> StreamFrame:
    """Return the rows of all frames, as ``pl.concat`` does. Rows of a batch stand in the order of the frames.

    Parameters
    ----------
    how
        ``"vertical"`` (default): all have the same columns and dtypes. ``"diagonal"``: a column that a frame lacks is null in its rows.
        ``"vertical_relaxed"``, ``"diagonal_relaxed"``: dtypes that differ become their common supertype; event time that is cast is
        event time no more, so write ``with_watermark`` after it.
    """
    if not frames:
        msg = "concat needs at least one frame"
        raise PlanError(msg)
    if how not in _CONCAT_HOW:
        msg = f"concat(how={how!r}) is not known on a stream, where rows have no partner beside them; it can be {', '.join(_CONCAT_HOW)}"
        raise PlanError(msg)
    nodes = tuple(frame.plan for frame in (frames if how == "vertical" else _aligned(frames, how)))
    check_union(nodes)
    return frames[0] if len(frames) == 1 else StreamFrame(Union(inputs=nodes))


def _aligned(frames: Sequence[StreamFrame], how: str) -> list[StreamFrame]:
    """Return the frames with the columns and dtypes Polars gives their concatenation."""
    schemas = [frame.collect_schema() for frame in frames]
    try:
        target = pl.concat([pl.LazyFrame(schema=s) for s in schemas], how=cast("Any", how)).collect_schema()
    except pl.exceptions.PolarsError as cause:
        msg = f"concat(how={how!r}) does not fit {' and '.join(str(dict(s)) for s in schemas)}: {str(cause).splitlines()[0]}"
        raise PlanError(msg) from cause
    return [_with_schema(frame, have, target) for frame, have in zip(frames, schemas, strict=True)]


def _with_schema(frame: StreamFrame, have: pl.Schema, target: pl.Schema) -> StreamFrame:
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in target.items() if name not in have]
    recast = {name: dtype for name, dtype in target.items() if name in have and have[name] != dtype}
    return frame.cast(recast).with_columns(missing).select(*target)


class MemoryStream:
    """Rows added by hand, for notebooks and tests. The rows live with this object: a query restarted in this process reads them again.

    Examples
    --------
    >>> import microbatch as mb
    >>> clicks = mb.MemoryStream({"page": pl.String})
    >>> out = mb.MemorySink()
    >>> query = clicks.frame().group_by("page").len().sink_memory(out, mode="complete")
    >>> offset = clicks.add({"page": ["a", "b", "a"]})
    >>> result = query.run()
    >>> out.rows().sort("page").to_dict(as_series=False)
    {'page': ['a', 'b'], 'len': [2, 1]}
    """

    def __init__(self, schema: Mapping[str, Any] | pl.Schema, **options: Any) -> None:
        self._source = make(connector("source:memory"), (schema,), options)
        self._frame = StreamFrame(Scan(source=self._source))

    def frame(self) -> StreamFrame:
        """Return the stream; always the same source, so that a union or join with itself reads it once."""
        return self._frame

    def add(self, rows: pl.DataFrame | Mapping[str, Sequence[Any]]) -> Offset:
        """Let rows arrive, all at once, and return the offset behind them; PlanError if they do not fit the schema."""
        offset: Offset = self._source.add(rows)
        return offset

    @staticmethod
    def add_together(rows: Mapping[MemoryStream, pl.DataFrame | Mapping[str, Sequence[Any]]]) -> None:
        """Let rows arrive on several streams at once: a batch sees all of them or none."""
        sources = {stream._source: frame for stream, frame in rows.items()}
        connector("source:memory").add_together(sources)
