"""The state of a checkpoint as rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl

import microbatch as mb


def open_windows(checkpoint: Path, operator: str | None = None) -> pl.DataFrame:
    """Return window_start and key of the groups in the state of the newest version, each once; ``operator`` None: the only one."""
    return mb.read_state(checkpoint, operator).select("window_start", "key").unique().collect()
