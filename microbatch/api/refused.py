"""Verbs of ``pl.LazyFrame`` that a stream does not have, with what to write instead."""

from __future__ import annotations

import polars as pl

from microbatch.errors import PlanError

_INSTEAD = {
    "collect": "frame.as_batch().collect() for what is there now, or frame.sink_memory(...).run() to run it as a stream",
    "collect_async": "frame.as_batch().collect_async()",
    "head": "limit(n)",
    "tail": "frame.as_batch().tail(n) to look",
    "first": "group_by(...).agg(pl.col(...).first())",
    "last": "group_by(...).agg(pl.col(...).last())",
    "top_k": 'group_by(...).agg(...), then sort and limit, in mode="complete"',
    "bottom_k": 'group_by(...).agg(...), then sort and limit, in mode="complete"',
    "shift": "carry the earlier value in the row, or do it where the result is read",
    "with_row_index": "a key of the source (file and line, partition and offset); a batch's own numbering starts anew each time",
    "group_by_dynamic": "group_by(mb.window(column, every), ...)",
    "rolling": "group_by(mb.window(column, size, slide), ...)",
    "join_asof": "a join with a bounded frame on equal keys",
    "join_where": "join(...) on equal keys, then filter(...)",
    "pivot": "group_by(...).agg(...) with .filter(...) inside each aggregate",
    "sum": "group_by().agg(pl.all().sum())",
    "mean": "group_by().agg(pl.all().mean())",
    "min": "group_by().agg(pl.all().min())",
    "max": "group_by().agg(pl.all().max())",
    "count": "group_by().agg(pl.all().count())",
    "sink_parquet": 'sink_files(path, format="parquet", checkpoint=...)',
    "sink_csv": 'sink_files(path, format="csv", checkpoint=...)',
    "sink_ndjson": 'sink_files(path, format="ndjson", checkpoint=...)',
    "sink_batches": "sink_foreach_batch(function)",
}


class _NoSuchVerbError(PlanError, AttributeError):
    """A PlanError that ``hasattr`` understands."""


def refused_verb(name: str, owner: type) -> AttributeError:
    """Return the error for an attribute that a StreamFrame does not have."""
    if name.startswith("_") or not hasattr(pl.LazyFrame, name):
        return AttributeError(f"{owner.__name__!r} object has no attribute {name!r}")
    why = f"{name}() looks at more than one row at a time (or at all of them), and a batch is only a piece of the stream"
    return _NoSuchVerbError(f"a stream has no {name}(): {why}; write instead: {_INSTEAD.get(name, 'frame.as_batch().' + name + '(...)')}")
