"""Files of every format, written by hand: they read, and what we write equals them byte for byte (no newline at the end)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.commit_log import CommitLog
from microbatch.checkpoint.entry_log import CompactibleLog
from microbatch.checkpoint.offset_log import OffsetLog
from microbatch.checkpoint.query_metadata import read_facts, read_query_id, write_facts
from microbatch.model import BatchCommit, BatchPlan, Json, Marks

GOLDEN = Path(__file__).parent / "golden"
OURS, SPARK = GOLDEN / "ours", GOLDEN / "spark"

PLANS = [
    BatchPlan(
        batch_id=0,
        offsets=({"logOffset": 0}, None),
        marks=Marks(late_us=None, eviction_us=None),
        batch_time_us=1_700_000_000_123_456,
        conf={"spark.sql.shuffle.partitions": "1"},
    ),
    BatchPlan(
        batch_id=7,
        offsets=({"logOffset": 6}, {"bestellungen-ü": {"0": 123, "1": -2}}),
        marks=Marks(late_us=1_699_999_980_000_001, eviction_us=1_699_999_990_000_999),
        batch_time_us=1_700_000_010_000_000,
        conf={"spark.sql.shuffle.partitions": "1", "spark.sql.streaming.multipleWatermarkPolicy": "min"},
    ),
    BatchPlan(
        batch_id=8,
        offsets=("a \u2028 line", 17),
        marks=Marks(late_us=0, eviction_us=-5_000_001),
        batch_time_us=1_700_000_020_000_000,
    ),
]

COMMITS = [
    BatchCommit(batch_id=0, next_watermark_us=None),
    BatchCommit(
        batch_id=7,
        next_watermark_us=1_700_000_000_000_500,
        operator_watermarks_us={"watermark0": 1_700_000_000_000_500, "watermark1": 1_700_000_003_000_000},
        state="00000000000000000008-1a2b3c4d.delta",
    ),
]

FACTS: dict[str, Json] = {
    "engine": "0.1.0",
    "operators": {"agg0": {"kind": "aggregate", "keys": [["Größe", "String"]]}},
    "sources": {"0": None},
}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def source_line(n: int, batch_id: int) -> str:
    return f'{{"path":"file:///landing/orders/{n}.csv","timestamp":17000000{n:02d}000,"batchId":{batch_id}}}'


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"batch {plan.batch_id}")
def test_golden_offsets_read(plan: BatchPlan) -> None:
    assert OffsetLog(LocalFolder(OURS / "offsets"), n_sources=2).get(plan.batch_id) == plan


def test_offsets_are_written_as_the_golden_ones(tmp_path: Path) -> None:
    log = OffsetLog(LocalFolder(tmp_path))
    for plan in PLANS:
        log.add(plan)

    assert contents(tmp_path) == contents(OURS / "offsets")


@pytest.mark.parametrize("commit", COMMITS, ids=lambda commit: f"batch {commit.batch_id}")
def test_golden_commits_read(commit: BatchCommit) -> None:
    assert CommitLog(LocalFolder(OURS / "commits")).get(commit.batch_id) == commit


def test_commits_are_written_as_the_golden_ones(tmp_path: Path) -> None:
    log = CommitLog(LocalFolder(tmp_path))
    for commit in COMMITS:
        log.add(commit)

    assert contents(tmp_path) == contents(OURS / "commits")


def test_golden_identity_and_facts_read() -> None:
    assert read_query_id(LocalFolder(OURS)) == "6f1c0b7e-3f5d-4c36-9a55-0d5a4f0c9a11"
    assert read_facts(LocalFolder(OURS)) == FACTS


def test_facts_are_written_as_the_golden_ones(tmp_path: Path) -> None:
    write_facts(LocalFolder(tmp_path), FACTS)

    assert (tmp_path / "microbatch.json").read_bytes() == (OURS / "microbatch.json").read_bytes()


def test_golden_entry_log_reads() -> None:
    log = CompactibleLog(LocalFolder(OURS / "entries"))

    assert [log.get(entry_id) for entry_id in range(4)] == [[source_line(0, 0), source_line(1, 0)], [source_line(2, 1)], [], None]
    assert log.all_lines() == [source_line(0, 0), source_line(1, 0), source_line(2, 1)]


def test_entry_log_is_written_as_the_golden_one(tmp_path: Path) -> None:
    log = CompactibleLog(LocalFolder(tmp_path), every=2)
    log.add(0, [source_line(0, 0), source_line(1, 0)])
    log.add(1, [source_line(2, 1)])
    log.add(2, [])

    assert contents(tmp_path) == contents(OURS / "entries")


def test_offsets_of_spark_read() -> None:
    log = OffsetLog(LocalFolder(SPARK / "offsets"))
    first, second = log.get(0), log.get(1)

    assert first is not None
    assert (first.offsets, first.marks.eviction_us) == (({"logOffset": 0},), None)
    assert second is not None
    assert second.offsets == ({"logOffset": 1}, {"orders": {"1": 6, "0": 6}}, None)
    assert second.marks == Marks(late_us=None, eviction_us=1_699_999_990_000_000)
    assert second.batch_time_us == 1_700_000_010_456_000
    assert (len(second.conf), second.conf["spark.sql.shuffle.partitions"]) == (8, "200")


@pytest.mark.parametrize("batch_id", [0, 1])
def test_our_offsets_without_our_field_are_spark_s_text(tmp_path: Path, batch_id: int) -> None:
    plan = OffsetLog(LocalFolder(SPARK / "offsets")).get(batch_id)
    assert plan is not None
    OffsetLog(LocalFolder(tmp_path)).add(plan)
    version, metadata, *offsets = (tmp_path / str(batch_id)).read_text().split("\n")
    spark_s_fields = {name: value for name, value in json.loads(metadata).items() if name != "microbatch"}

    as_spark = "\n".join([version, json.dumps(spark_s_fields, separators=(",", ":")), *offsets])
    assert as_spark == (SPARK / "offsets" / str(batch_id)).read_text()


def test_commits_of_spark_read() -> None:
    log = CommitLog(LocalFolder(SPARK / "commits"))

    assert log.get(0) == BatchCommit(batch_id=0, next_watermark_us=1_699_999_990_000_000)
    assert log.get(1) == BatchCommit(batch_id=1, next_watermark_us=None)


def test_identity_of_spark_reads() -> None:
    assert read_query_id(LocalFolder(SPARK)) == "0e1a8f4e-8a55-4f7e-9f6a-3b6f2f3f7c55"


def test_entry_log_of_spark_reads_and_is_written_alike(tmp_path: Path) -> None:
    spark = CompactibleLog(LocalFolder(SPARK / "entries"))
    ours = CompactibleLog(LocalFolder(tmp_path), every=2)
    for entry_id in range(3):
        assert spark.get(entry_id) == [source_line(entry_id, entry_id)]
        ours.add(entry_id, [source_line(entry_id, entry_id)])

    assert contents(tmp_path) == contents(SPARK / "entries")
