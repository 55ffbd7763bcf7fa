"""What a job left behind: the state of its checkpoint as rows, and whether all of it is what one batch gives."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

import microbatch as mb
from tests.recovery import jobs, join_job


def open_windows(checkpoint: str | Path, operator: str | None = None) -> pl.DataFrame:
    """Return window_start and key of the groups in the state of the newest version, each once; ``operator`` None: the only one."""
    return mb.read_state(checkpoint, operator).select("window_start", "key").unique().collect()


def check(root: Path, sink: str) -> None:
    """The table is what one Polars query over all files gives, and the state what the watermark has not closed."""
    if sink == "delta-join":
        check_join(root)
        return
    order = ["window_start", "key"]
    wanted = jobs.expected(root, sink)
    assert_frame_equal(jobs.table(root, sink).select(wanted.columns).sort(order), wanted.sort(order))
    left = jobs.left_groups(root, sink)
    state = open_windows(jobs.checkpoint_of(root, sink), jobs.OPERATORS.get(sink))
    assert_frame_equal(state.sort(order), left.select(order).sort(order))
    if sink == "delta-late":
        late = jobs.expected_late_rows(root)
        assert late.height > 0
        assert_frame_equal(jobs.late_rows(root).sort(late.columns), late.sort(late.columns))


def check_join(root: Path) -> None:
    """Assert the same of the job that joins: its table holds pairs and rows alone, its state the rows that may meet others."""
    events, watermark = pl.read_parquet(root / "landing" / "*.parquet"), jobs.watermark(root)
    wanted, kept = join_job.expected(events, watermark), join_job.kept(events, watermark)
    assert wanted["at_right"].null_count() > 0
    assert_frame_equal(jobs.table(root, "delta-join").select(wanted.columns).sort(wanted.columns), wanted.sort(wanted.columns))
    assert_frame_equal(join_job.state(root / "checkpoint").sort(kept.columns), kept.sort(kept.columns))
