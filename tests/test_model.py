"""The records: frozen, comparable, with Spark's words for modes."""

from __future__ import annotations

import dataclasses

import pytest

from microbatch.model import BatchCommit, BatchPlan, Delivery, Marks, OutputMode

UNSET = Marks(late_us=None, eviction_us=None)


def test_modes_are_written_as_spark_writes_them() -> None:
    assert [mode.value for mode in OutputMode] == ["append", "update", "complete"]
    assert f"{OutputMode.APPEND}" == "append"


def test_deliveries_have_names_for_messages() -> None:
    assert [delivery.value for delivery in Delivery] == ["exactly_once", "at_least_once"]


@pytest.mark.parametrize("record", [Marks, BatchPlan, BatchCommit])
def test_records_are_keyword_only_and_have_slots(record: type) -> None:
    assert all(field.kw_only for field in dataclasses.fields(record))
    assert set(record.__slots__) == {field.name for field in dataclasses.fields(record)}  # type: ignore[attr-defined]


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        UNSET.late_us = 1  # type: ignore[misc]


def test_plans_with_the_same_content_are_equal() -> None:
    one = BatchPlan(batch_id=7, offsets=({"file": 42}, None), marks=UNSET, batch_time_us=5)
    other = BatchPlan(batch_id=7, offsets=({"file": 42}, None), marks=UNSET, batch_time_us=5, conf={})
    assert one == other
    assert one != dataclasses.replace(one, batch_time_us=6)


def test_records_do_not_share_their_default_mappings() -> None:
    one = BatchPlan(batch_id=0, offsets=(), marks=UNSET, batch_time_us=0)
    other = BatchPlan(batch_id=1, offsets=(), marks=UNSET, batch_time_us=0)
    assert one.conf is not other.conf


def test_a_commit_without_state_names_none() -> None:
    commit = BatchCommit(batch_id=0, next_watermark_us=None)
    assert commit.state is None
    assert commit.operator_watermarks_us == {}
