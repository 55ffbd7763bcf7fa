"""The state as frames: names users know, versions, changes, and reading beside a running query."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch as mb

SCHEMA: dict[str, Any] = {"k": pl.Categorical(), "v": pl.Int64, "t": pl.Datetime("us")}


def at(second: int) -> datetime:
    return datetime(2024, 1, 1, 0, 0, second)


class Job:
    """A stream, and a checkpoint queries over it write to: one batch a call."""

    def __init__(self, folder: Path) -> None:
        self.stream = mb.MemoryStream(SCHEMA)
        self.checkpoint = folder / "checkpoint"

    def batch(self, query: mb.StreamFrame, rows: list[tuple[str | None, int, int]], mode: str = "update", **options: Any) -> None:
        keys, values, times = zip(*rows, strict=True)
        self.stream.add(pl.DataFrame({"k": keys, "v": values, "t": [at(t) for t in times]}, schema=SCHEMA))
        query.sink_memory(mb.MemorySink(), mode=mode, checkpoint=self.checkpoint, no_data_batches=False, **options).run()

    def rows(self, *args: Any, **options: Any) -> list[tuple[Any, ...]]:
        return sorted(mb.read_state(self.checkpoint, *args, **options).collect().rows(), key=repr)

    def changes(self, *args: Any) -> list[tuple[Any, ...]]:
        return mb.read_state_changes(self.checkpoint, *args).collect().rows()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_state_is_keys_and_partial_aggregates_at_any_retained_version(job: Job) -> None:
    query = job.stream.frame().group_by("k").agg(pl.col("v").max().alias("most"))
    job.batch(query, [("a", 1, 0), (None, 2, 0)])
    job.batch(query, [("a", 5, 1), ("b", 3, 1)])
    newest = mb.read_state(job.checkpoint)
    assert newest.collect_schema() == pl.Schema({"k": pl.String(), "max(v)": pl.Int64()})
    assert job.rows() == job.rows("aggregate-k", version=2) == [("a", 5), ("b", 3), (None, 2)]
    assert job.rows(version=1) == [("a", 1), (None, 2)]


def test_state_can_be_read_while_the_query_runs(job: Job) -> None:
    query = job.stream.frame().group_by("k").agg(pl.col("v").sum())
    with query.sink_memory(mb.MemorySink(), mode="update", checkpoint=job.checkpoint).start() as running:
        job.stream.add({"k": ["a"], "v": [1], "t": [at(0)]})
        running.process_all_available()
        assert job.rows() == [("a", 1)]
        job.stream.add({"k": ["a"], "v": [2], "t": [at(0)]})
        running.process_all_available()
        assert job.rows() == [("a", 3)]


def test_columns_of_the_engine_are_left_out_and_computed_keys_have_their_names(job: Job) -> None:
    s = job.stream.frame()
    job.batch(
        s.unique("v", name="once").group_by((pl.col("v") % 2).alias("v")).agg(pl.col("v").max().alias("m")), [("a", 1, 0), ("a", 2, 0)]
    )
    assert mb.read_state(job.checkpoint, "once").collect_schema().names() == ["v"]
    inner = mb.read_state(job.checkpoint, "aggregate-__key_v").collect()
    assert inner.columns == ["v", "max(v)"]
    assert sorted(inner.rows()) == [(0, 2), (1, 1)]


def test_the_state_of_append_mode_is_a_log_of_open_windows(job: Job) -> None:
    query = job.stream.frame().with_watermark("t", "0s").group_by(mb.window("t", "10s")).agg(pl.col("v").max())
    job.batch(query, [("a", 1, 1)], "append")
    job.batch(query, [("a", 2, 2)], "append")
    assert [row[2] for row in job.rows()] == [1, 2]
    job.batch(query, [("a", 3, 30)], "append")
    job.batch(query, [("a", 4, 31)], "append")
    assert job.rows() == [(at(30), at(40), 3), (at(30), at(40), 4)]


def test_state_that_is_empty_has_its_columns(job: Job) -> None:
    query = job.stream.frame().with_watermark("t", "0s").group_by(mb.window("t", "10s")).agg(pl.col("v").max())
    job.batch(query.filter(pl.col("v") > 0), [("a", 1, 1)])
    empty = mb.read_state(job.checkpoint).collect().clear()
    assert empty.schema == pl.Schema({"window_start": pl.Datetime("us"), "window_end": pl.Datetime("us"), "max(v)": pl.Int64()})


# -- changes ---------------------------------------------------------------------------------------------------------------


def test_changes_are_the_rows_written_and_those_the_watermark_removed(job: Job) -> None:
    query = job.stream.frame().with_watermark("t", "0s").group_by("t").agg(pl.col("v").max())
    job.batch(query, [("a", 1, 10)])
    job.batch(query, [("a", 2, 10), ("a", 3, 20)])
    job.batch(query, [("a", 4, 40)])
    assert job.changes(None, 0, 1) == [(at(10), 1, "update", 1)]
    # The watermark of a batch is used in the next one: 10 s in batch 1, 20 s in batch 2.
    assert job.changes("aggregate-t", 0, 3) == [
        (at(10), 1, "update", 1),
        (at(20), 3, "update", 2),
        (at(10), 1, "delete", 2),
        (at(40), 4, "update", 3),
        (at(20), 3, "delete", 3),
    ]


@pytest.mark.parametrize("begin", [0, 2])
def test_changes_applied_to_an_old_version_give_the_new_one(job: Job, begin: int) -> None:
    query = job.stream.frame().with_watermark("t", "3s").group_by("t", "k").agg(pl.col("v").sum())
    for batch in range(6):
        job.batch(query, [(key, batch, batch * 2 + second) for key in "ab" for second in (0, 1)])
    held = {row[:2]: row for row in job.rows(version=begin)} if begin else {}
    for *row, change, _ in job.changes(None, begin, 6):
        held.pop(tuple(row[:2]), None)
        held |= {tuple(row[:2]): tuple(row)} if change == "update" else {}
    assert sorted(held.values(), key=repr) == job.rows()


def test_no_versions_hold_no_changes(job: Job) -> None:
    query = job.stream.frame().group_by("k").agg(pl.col("v").max())
    job.batch(query, [("a", 1, 10)])
    nothing = mb.read_state_changes(job.checkpoint, None, 1, 1).collect()
    expected = {"k": pl.String(), "max(v)": pl.Int64(), "_change_type": pl.String(), "_version": pl.Int32()}
    assert_frame_equal(nothing, pl.DataFrame(schema=expected))


# -- refusals --------------------------------------------------------------------------------------------------------------


def test_tables_that_help_an_operator_need_not_be_told_from_its_own(job: Job) -> None:
    def count(key: Any, rows: list[Any], state: mb.KeyState) -> None:
        state["n"].update(state["n"].get(0) + len(rows))
        state.register_timer(at(30))

    options: dict[str, Any] = {"state_schema": {"n": pl.Int64}, "output_schema": {"n": pl.Int64}, "timers": "event_time", "ttl": "1d"}
    job.batch(job.stream.frame().with_watermark("t", "0s").group_by("k").map_state(count, **options), [("a", 1, 0), ("a", 2, 0)])
    assert job.rows() == job.rows("map_state-k") == [("a", 2)]
    assert job.rows("map_state-k/timers") == [("a",)]
    assert job.changes(None, 0, 1) == [("a", 2, "update", 1)]


def test_an_unknown_operator_is_refused_with_those_there_are(job: Job) -> None:
    query = job.stream.frame().unique("v").group_by("k").agg(pl.col("v").max())
    job.batch(query, [("a", 1, 0)])
    with pytest.raises(mb.PlanError, match="no operator 'totals' keeps state; at version 1 these do: 'unique-v', 'aggregate-k'"):
        mb.read_state(job.checkpoint, "totals")
    with pytest.raises(mb.PlanError, match=r"operator=\.\.\. is needed; at version 1 these do: 'unique-v', 'aggregate-k'"):
        mb.read_state(job.checkpoint)


def test_a_version_that_is_not_retained_is_refused_with_those_that_are(job: Job) -> None:
    query = job.stream.frame().group_by("k").agg(pl.col("v").max())
    for second in range(40):
        job.batch(query, [("a", 1, second)], retain_batches=3)
    with pytest.raises(mb.PlanError, match="version 9 of the state is not retained; retained are 37 to 40"):
        mb.read_state(job.checkpoint, version=9)
    assert job.rows(version=37) == [("a", 1)]
    with pytest.raises(mb.PlanError, match="version 35 of the state is not retained"):
        mb.read_state_changes(job.checkpoint, None, 35, 40)


def test_a_folder_without_checkpoint_or_state_is_refused(job: Job, tmp_path: Path) -> None:
    with pytest.raises(mb.PlanError, match="nothing is no checkpoint: it has no file 'metadata'"):
        mb.read_state(tmp_path / "nothing")
    job.batch(job.stream.frame(), [("a", 1, 0)], "append")
    with pytest.raises(mb.PlanError, match="version 0 of the state is not retained; retained are none"):
        mb.read_state(job.checkpoint)


def test_changes_run_from_the_older_version_to_the_newer(job: Job) -> None:
    with pytest.raises(mb.PlanError, match="from_version=3 is behind to_version=1"):
        mb.read_state_changes(job.checkpoint, None, 3, 1)
