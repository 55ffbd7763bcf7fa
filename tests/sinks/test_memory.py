from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.clock import ManualClock
from microbatch.errors import SinkError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import EntryLog, SinkBatch, SinkContext
from microbatch.sinks.memory import MemorySink

SCHEMA = pl.Schema({"n": pl.Int64()})


def no_log(path: str, every: int) -> EntryLog:
    raise AssertionError(path, every)


def context(query_id: str = "q", mode: OutputMode = OutputMode.APPEND) -> SinkContext:
    return SinkContext(query_id=query_id, query_name=None, mode=mode, schema=SCHEMA, keys=(), clock=ManualClock(), open_log=no_log)


def batch(batch_id: int, *values: int) -> SinkBatch:
    return SinkBatch(batch_id=batch_id, rows=frame(*values), info={})


def frame(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"n": values}, schema=SCHEMA)


def test_rows_of_batches_stand_in_their_order() -> None:
    sink = MemorySink()
    writer = sink.open(context())
    writer.write(batch(0, 1, 2))
    writer.write(batch(1, 3))
    assert_frame_equal(sink.rows(), frame(1, 2, 3))


def test_update_mode_adds_rows_and_ignores_a_batch_it_has() -> None:
    # The case memsink-update: three new batches, and the second one once more with other rows.
    sink = MemorySink()
    writer = sink.open(context(mode=OutputMode.UPDATE))
    writer.write(batch(0, 1, 2, 3))
    writer.write(batch(1, 4, 5, 6))
    writer.write(batch(1, 7, 8, 9))
    assert_frame_equal(sink.rows(), frame(1, 2, 3, 4, 5, 6))
    assert sink.last_batch_id == 1
    writer.write(batch(2, 7, 8, 9))
    assert_frame_equal(sink.rows(), frame(1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert sink.last_batch_id == 2


def test_complete_mode_replaces_the_rows() -> None:
    sink = MemorySink()
    writer = sink.open(context(mode=OutputMode.COMPLETE))
    writer.write(batch(0, 1, 2))
    writer.write(batch(1, 3))
    assert_frame_equal(sink.rows(), frame(3))
    writer.write(batch(2))
    assert_frame_equal(sink.rows(), frame())


def test_complete_mode_remembers_a_hundred_results() -> None:
    sink = MemorySink()
    writer = sink.open(context(mode=OutputMode.COMPLETE))
    for batch_id in range(105):
        writer.write(batch(batch_id, batch_id))
    assert [batch_id for batch_id, _ in sink.batches()] == list(range(5, 105))
    assert_frame_equal(sink.rows(), frame(104))


def test_batches_without_rows_are_listed() -> None:
    sink = MemorySink()
    writer = sink.open(context())
    writer.write(batch(0, 1))
    writer.write(batch(1))
    assert [(batch_id, rows.height) for batch_id, rows in sink.batches()] == [(0, 1), (1, 0)]
    assert sink.last_batch_id == 1


def test_restarted_query_finds_its_ids() -> None:
    sink = MemorySink()
    sink.open(context()).write(batch(0, 1))
    again = sink.open(context())
    again.write(batch(0, 1))
    again.write(batch(1, 2))
    assert_frame_equal(sink.rows(), frame(1, 2))


def test_query_of_another_id_begins_an_empty_result() -> None:
    sink = MemorySink()
    sink.open(context("first")).write(batch(0, 1))
    second = sink.open(context("second"))
    assert sink.rows().is_empty()
    second.write(batch(0, 2))
    assert_frame_equal(sink.rows(), frame(2))


def test_query_whose_sink_was_taken_over_is_told() -> None:
    sink = MemorySink()
    first = sink.open(context("first"))
    sink.open(context("second"))
    with pytest.raises(
        SinkError, match=r"opened by query second while query first still writes to it \(batch 4\); give each running query"
    ):
        first.write(batch(4, 1))


def test_clear_keeps_the_ids() -> None:
    sink = MemorySink()
    writer = sink.open(context())
    writer.write(batch(0, 1))
    sink.clear()
    writer.write(batch(0, 1))
    assert sink.rows().is_empty()
    assert (sink.batches(), sink.last_batch_id) == ([], 0)


def test_clear_that_forgets_ids_takes_a_batch_again() -> None:
    sink = MemorySink()
    writer = sink.open(context())
    writer.write(batch(0, 1))
    sink.clear(forget_ids=True)
    assert sink.last_batch_id is None
    writer.write(batch(0, 2))
    assert_frame_equal(sink.rows(), frame(2))


def test_result_has_the_columns_of_the_query_before_its_first_batch() -> None:
    sink = MemorySink()
    assert sink.rows().is_empty()
    sink.open(context())
    assert sink.rows().schema == SCHEMA


def test_looking_does_not_hand_out_the_list_itself() -> None:
    sink = MemorySink()
    sink.open(context()).write(batch(0, 1))
    sink.batches().clear()
    assert len(sink.batches()) == 1


def test_sink_says_what_it_promises() -> None:
    sink = MemorySink()
    assert (sink.description, sink.delivery, sink.durable) == ("MemorySink", Delivery.EXACTLY_ONCE, False)
