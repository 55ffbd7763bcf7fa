"""The commit log gives back what a batch left, also from entries Spark wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.commit_log import CommitLog
from microbatch.errors import CheckpointCorruptError
from microbatch.model import BatchCommit


@pytest.fixture
def log(tmp_path: Path) -> CommitLog:
    return CommitLog(LocalFolder(tmp_path))


def test_empty_log_has_no_commit(log: CommitLog) -> None:
    assert log.latest() is None
    assert log.get(0) is None
    assert log.ids() == []


@pytest.mark.parametrize(
    "commit",
    [
        BatchCommit(batch_id=2, next_watermark_us=None),
        BatchCommit(batch_id=2, next_watermark_us=0),
        BatchCommit(batch_id=2, next_watermark_us=-7, operator_watermarks_us={"w0": -7}),
        BatchCommit(batch_id=2, next_watermark_us=1_001, operator_watermarks_us={"w0": 1_001, "w1": 5_000}, state="3-ab.delta"),
    ],
)
def test_commit_comes_back_whole(log: CommitLog, commit: BatchCommit) -> None:
    assert log.add(commit)

    assert log.get(2) == commit
    assert log.latest() == commit


def test_second_commit_of_a_batch_changes_nothing_and_says_so(log: CommitLog) -> None:
    first = BatchCommit(batch_id=0, next_watermark_us=1, state="first")
    log.add(first)

    assert not log.add(BatchCommit(batch_id=0, next_watermark_us=2, state="second"))
    assert log.latest() == first


def test_purge_leaves_the_newest(log: CommitLog) -> None:
    for batch_id in range(4):
        log.add(BatchCommit(batch_id=batch_id, next_watermark_us=None))
    log.purge_below(3)

    assert log.ids() == [3]


@pytest.mark.parametrize(
    ("line", "watermark_us"),
    [
        ("{}", None),
        ('{"nextBatchWatermarkMs":0}', None),
        ('{"nextBatchWatermarkMs":1500}', 1_500_000),
        ('{"nextBatchWatermarkMs":1500,"stateUniqueIds":{"0":[["a"]]}}', 1_500_000),
    ],
)
def test_entry_of_spark_reads(log: CommitLog, tmp_path: Path, line: str, watermark_us: int | None) -> None:
    (tmp_path / "5").write_text(f"v1\n{line}")

    assert log.latest() == BatchCommit(batch_id=5, next_watermark_us=watermark_us)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "/0 holds nothing, it is empty"),
        ("v1", "/0 holds ''; expected JSON"),
        ('v1\n{"nextBatch', """/0 holds '{"nextBatch'; expected JSON"""),
        ("v1\n7", "/0 holds '7'; expected a JSON object"),
        ('v1\n{"nextBatchWatermarkMs":null}', "/0, field nextBatchWatermarkMs holds 'null'; expected a whole number"),
        ('v1\n{"microbatch":{"state":3}}', "/0, microbatch, field state holds '3'; expected text"),
        ('v1\n{"microbatch":{"operatorWatermarksUs":{"w0":"x"}}}', "operatorWatermarksUs, field w0"),
        ("v3\n{}", "has version v3, this program reads v1"),
    ],
)
def test_torn_and_foreign_entries_are_refused(log: CommitLog, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "0").write_text(text)

    with pytest.raises(CheckpointCorruptError, match=re.escape(said)):
        log.latest()
