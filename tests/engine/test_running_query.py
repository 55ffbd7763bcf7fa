"""What a query that runs in the background tells of itself."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

import microbatch as mb


def test_a_query_that_failed_in_the_background_tells_why(tmp_path: Path) -> None:
    def fail(rows: pl.DataFrame, batch_id: int) -> None:
        msg = "no service"
        raise RuntimeError(msg)

    stream = mb.MemoryStream({"v": pl.Int64})
    stream.add({"v": [1]})
    query = stream.frame().sink_foreach_batch(fail, checkpoint=tmp_path / "c", name="q").start()
    with pytest.raises(mb.QueryFailedError, match=r"query q stopped at batch 0.*no service"):
        query.await_termination(timeout=30)
    assert not query.is_active
    assert isinstance(query.exception, mb.QueryFailedError)
    assert str(query.status["message"]).startswith("Terminated with exception")
    with pytest.raises(mb.QueryFailedError):
        query.process_all_available()
    query.stop()


def test_a_handle_knows_its_identity_plan_and_recent_batches(tmp_path: Path) -> None:
    stream = mb.MemoryStream({"v": pl.Int64})
    with stream.frame().filter(pl.col("v") > 0).sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c", name="q").start() as query:
        for v in range(3):
            stream.add({"v": [v]})
            query.process_all_available()
        assert (query.name, query.id) == ("q", json.loads((tmp_path / "c" / "metadata").read_text())["id"])
        assert query.id != query.run_id
        assert query.explain().startswith("FILTER")
        assert [p["batchId"] for p in query.recent_progress] == [0, 1, 2]
        assert query.last_progress == query.recent_progress[-1]
        assert query.await_termination(timeout=0) is False
    assert not query.is_active
    assert query.await_termination() is True


def test_every_batch_has_the_same_phases_also_without_data_and_when_run_again(tmp_path: Path) -> None:
    phases = {"triggerExecution", "latestOffset", "walCommit", "getBatch", "queryPlanning", "addBatch", "commitOffsets"}
    stream = mb.MemoryStream({"at": pl.Datetime("us")})
    frame = stream.frame().with_watermark("at", "1s").group_by(mb.window("at", "1s")).len()
    stream.add({"at": [datetime(2024, 1, 1)]})
    for _ in range(2):
        with frame.sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c").start() as query:
            query.process_all_available()
            assert query.recent_progress
            assert all(set(p["durationMs"]) == phases for p in query.recent_progress)
        (tmp_path / "c" / "commits" / "1").unlink()
