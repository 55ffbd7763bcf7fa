"""The offset log gives back what was decided, also from entries Spark wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.offset_log import OffsetLog
from microbatch.errors import CheckpointCorruptError, CheckpointMismatchError
from microbatch.model import BatchPlan, Marks, Offset

NO_MARKS = Marks(late_us=None, eviction_us=None)


@pytest.fixture
def log(tmp_path: Path) -> OffsetLog:
    return OffsetLog(LocalFolder(tmp_path))


def plan(batch_id: int, *offsets: Offset) -> BatchPlan:
    return BatchPlan(batch_id=batch_id, offsets=offsets, marks=NO_MARKS, batch_time_us=1_700_000_000_123_456)


def test_empty_log_has_no_plan(log: OffsetLog) -> None:
    assert log.latest() is None
    assert log.get(0) is None
    assert log.ids() == []


def test_plan_comes_back_whole(log: OffsetLog) -> None:
    decided = BatchPlan(
        batch_id=3,
        offsets=({"t": {"0": 5}}, None, 7, "x", [1, 2.5, None], True),
        marks=Marks(late_us=-1, eviction_us=1_700_000_000_000_001),
        batch_time_us=1_700_000_000_123_456,
        conf={"spark.sql.shuffle.partitions": "1"},
    )
    assert log.add(decided)

    assert log.get(3) == decided
    assert log.latest() == decided


def test_each_source_has_its_slot_and_a_second_plan_of_a_batch_is_refused(log: OffsetLog) -> None:
    assert log.add(plan(0, 0, 1, 2))
    assert log.latest() == plan(0, 0, 1, 2)
    assert log.add(plan(1, "one", "two", "three"))
    assert log.get(0) == plan(0, 0, 1, 2)
    assert log.get(1) == plan(1, "one", "two", "three")

    assert not log.add(plan(1, 3))
    assert log.get(1) == plan(1, "one", "two", "three")


def test_source_without_an_offset_yet_keeps_its_slot(log: OffsetLog, tmp_path: Path) -> None:
    log.add(plan(0, None, {"logOffset": 0}, None))

    assert (tmp_path / "0").read_text().split("\n")[2:] == ["-", '{"logOffset":0}', "-"]
    assert log.get(0) == plan(0, None, {"logOffset": 0}, None)


def test_line_separators_inside_json_text_do_not_cut_it(log: OffsetLog) -> None:
    decided = plan(0, "a\u2028b\u0085c\x0bd\ne\rf", 1)
    log.add(decided)

    assert log.get(0) == decided


def test_watermark_for_spark_is_never_below_zero(log: OffsetLog, tmp_path: Path) -> None:
    log.add(BatchPlan(batch_id=0, offsets=(), marks=Marks(late_us=None, eviction_us=-1), batch_time_us=0))

    assert '"batchWatermarkMs":0,' in (tmp_path / "0").read_text()


def test_purge_leaves_the_newest(log: OffsetLog) -> None:
    for batch_id in range(4):
        log.add(plan(batch_id, batch_id))
    log.purge_below(2)

    assert log.ids() == [2, 3]
    assert log.latest() == plan(3, 3)


def test_entry_of_spark_has_its_watermark_as_eviction_mark_and_no_late_mark(log: OffsetLog, tmp_path: Path) -> None:
    (tmp_path / "4").write_text('v1\n{"batchWatermarkMs":1500,"batchTimestampMs":1700000000123,"conf":{"a":"b"}}\n{"logOffset":4}')

    assert log.get(4) == BatchPlan(
        batch_id=4,
        offsets=({"logOffset": 4},),
        marks=Marks(late_us=None, eviction_us=1_500_000),
        batch_time_us=1_700_000_000_123_000,
        conf={"a": "b"},
    )


@pytest.mark.parametrize("metadata", ["{}", "", '{"newField":[1],"batchWatermarkMs":0}'])
def test_missing_metadata_reads_as_zero_and_unknown_is_ignored(log: OffsetLog, tmp_path: Path, metadata: str) -> None:
    (tmp_path / "0").write_text(f"v1\n{metadata}\n5\n")

    assert log.get(0) == BatchPlan(batch_id=0, offsets=(5,), marks=NO_MARKS, batch_time_us=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v1", "/0 holds a version line and nothing more; expected a line of metadata and one offset a source"),
        ("v1\n", "holds a version line and nothing more"),
        ('v1\n{"batchWatermarkMs":0', """/0 holds '{"batchWatermarkMs":0'; expected JSON (Expecting"""),
        ("v1\n[]\n1", "/0 holds '[]'; expected a JSON object"),
        ('v1\n{"batchWatermarkMs":"0"}\n1', """/0, field batchWatermarkMs holds '"0"'; expected a whole number"""),
        ('v1\n{"batchTimestampMs":true}\n1', "/0, field batchTimestampMs holds 'true'; expected a whole number"),
        ('v1\n{"conf":{"a":1}}\n1', "/0, conf, field a holds '1'; expected text"),
        ('v1\n{"microbatch":{"lateUs":1.5}}\n1', "/0, microbatch, field lateUs holds '1.5'; expected a whole number"),
        ('v1\n{}\n{"logOffset":', """/0 holds '{"logOffset":'; expected JSON"""),
        ("v1\n{}\n1\n\n2", "/0 holds ''; expected JSON"),
        ("v2\n{}\n1", "was written by a newer version"),
    ],
)
def test_torn_and_foreign_entries_are_refused(log: OffsetLog, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "0").write_text(text)

    with pytest.raises(CheckpointCorruptError, match=re.escape(said)):
        log.latest()


def test_another_number_of_sources_is_refused(log: OffsetLog, tmp_path: Path) -> None:
    log.add(plan(0, 1, 2))
    changed = OffsetLog(LocalFolder(tmp_path), n_sources=3)

    with pytest.raises(
        CheckpointMismatchError, match=re.escape(f"{tmp_path}/0 has offsets of 2 sources, the query reads 3; restore the old query")
    ):
        changed.latest()
    with pytest.raises(CheckpointMismatchError):
        changed.add(plan(1, 1, 2))
    assert changed.ids() == [0]


def test_offset_that_is_no_json_is_refused_before_anything_is_written(log: OffsetLog) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        log.add(plan(0, float("nan")))

    assert log.ids() == []
