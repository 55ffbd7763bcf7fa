"""The state of a checkpoint as rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from microbatch.checkpoint.checkpoint import Checkpoint
from microbatch.engine.recovery import recover


def open_windows(checkpoint: Path) -> pl.DataFrame:
    """Return window_start and key of the groups in the state of the newest version, each once."""
    from microbatch.checkpoint.state.delta_file import read_footer, read_stream
    from microbatch.checkpoint.state.manifest import deltas_in, runs_in
    from microbatch.checkpoint.state.run import map_run

    opened = Checkpoint.open(checkpoint)
    try:
        position = recover(opened, 1)
    finally:
        opened.close()
    root = checkpoint / "state"
    assert position.state is not None
    (entry,) = read_footer(root / position.state)["tables"].values()
    frames = [read_stream(root, ref) for ref in deltas_in(entry)] + [map_run(root / ref.file, ref).frame for ref in runs_in(entry)]
    rows = pl.concat(frames)
    if entry["evicted_to"] is not None:
        rows = rows.filter(pl.col("__t") > entry["evicted_to"])
    return rows.select("window_start", "key").unique()
