"""The state of a checkpoint as rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from microbatch.checkpoint.checkpoint import Checkpoint
from microbatch.engine.recovery import recover


def open_windows(checkpoint: Path) -> pl.DataFrame:
    """Return window_start and key of the groups in the state of the newest version, each once."""
    from microbatch.checkpoint.state.delta_file import read_footer
    from microbatch.checkpoint.state.manifest import runs_of

    opened = Checkpoint.open(checkpoint)
    try:
        position = recover(opened, 1)
    finally:
        opened.close()
    root = checkpoint / "state"
    assert position.state is not None
    (entry,) = read_footer(root / position.state)["tables"].values()
    rows = pl.concat(run.frame for run in runs_of(root, entry))
    if entry["evicted_to"] is not None:
        rows = rows.filter(pl.col("__t") > entry["evicted_to"])
    return rows.select("window_start", "key").unique()
