from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.clock import ManualClock
from microbatch.errors import PlanError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import EntryLog, SinkBatch, SinkContext, SinkWriter
from microbatch.sinks.foreach_batch import ForeachBatchSink

ROWS = pl.DataFrame({"n": [1, 2]})


def no_log(path: str, every: int) -> EntryLog:
    raise AssertionError(path, every)


def open_writer(sink: ForeachBatchSink) -> SinkWriter:
    return sink.open(
        SinkContext(
            query_id="q", query_name=None, mode=OutputMode.APPEND, schema=ROWS.schema, keys=(), clock=ManualClock(), open_log=no_log
        )
    )


def take(rows: pl.DataFrame, batch_id: int) -> None: ...


def test_function_gets_rows_and_id() -> None:
    calls: list[tuple[pl.DataFrame, int]] = []
    writer = open_writer(ForeachBatchSink(lambda rows, batch_id: calls.append((rows, batch_id))))
    writer.write(SinkBatch(batch_id=5, rows=ROWS, info={}))
    ((rows, batch_id),) = calls
    assert_frame_equal(rows, ROWS)
    assert batch_id == 5


def test_function_is_called_again_for_a_batch_that_comes_again_and_for_batches_without_rows() -> None:
    ids: list[int] = []
    writer = open_writer(ForeachBatchSink(lambda rows, batch_id: ids.append(batch_id)))
    for batch in (
        SinkBatch(batch_id=0, rows=ROWS, info={}),
        SinkBatch(batch_id=0, rows=ROWS, info={}),
        SinkBatch(batch_id=1, rows=ROWS.clear(), info={}),
    ):
        writer.write(batch)
    assert ids == [0, 0, 1]


def test_exception_of_the_function_passes_as_it_is() -> None:
    error = KeyError("no such customer")

    def fail(rows: pl.DataFrame, batch_id: int) -> None:
        raise error

    with pytest.raises(KeyError) as raised:
        open_writer(ForeachBatchSink(fail)).write(SinkBatch(batch_id=0, rows=ROWS, info={}))
    assert raised.value is error


class Taker:
    def __call__(self, rows: pl.DataFrame, batch_id: int) -> None: ...

    def method(self, rows: pl.DataFrame, batch_id: int, extra: int = 1) -> None: ...


@pytest.mark.parametrize("function", [take, Taker(), Taker().method, partial(lambda a, rows, batch_id: None, 1), lambda *args: None, max])
def test_anything_that_takes_two_arguments_is_accepted(function: Any) -> None:
    ForeachBatchSink(function)


async def coroutine(rows: pl.DataFrame, batch_id: int) -> None: ...


class AsyncCallable:
    async def __call__(self, rows: pl.DataFrame, batch_id: int) -> None: ...


def generator(rows: pl.DataFrame, batch_id: int) -> Iterator[int]:
    yield batch_id


def keyword_only(rows: pl.DataFrame, *, batch_id: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("print", r"needs a function, not 'print' of type str; write def function\(rows: pl.DataFrame, batch_id: int\) -> None"),
        (None, r"needs a function, not None of type NoneType"),
        (lambda rows: None, r"does not fit .* with arguments \(rows\) \(too many positional arguments\)"),
        (lambda rows, batch_id, spare: None, r"missing a required argument: 'spare'"),
        (keyword_only, r"does not fit .*keyword_only.* with arguments"),
        (coroutine, r"cannot await .*coroutine.*: its work would never be done"),
        (AsyncCallable(), r"cannot await"),
        (generator, r"is a generator, so calling it would do nothing"),
    ],
)
def test_what_cannot_be_called_with_a_batch_is_refused_when_defined(function: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        ForeachBatchSink(function)


def test_sink_is_named_by_its_function_unless_told() -> None:
    assert ForeachBatchSink(take).description == "ForeachBatchSink[take]"
    assert ForeachBatchSink(Taker()).description == "ForeachBatchSink[Taker]"
    assert ForeachBatchSink(take, description="orders to mail").description == "ForeachBatchSink[orders to mail]"


def test_sink_says_what_it_promises() -> None:
    sink = ForeachBatchSink(take)
    assert (sink.delivery, sink.durable) == (Delivery.AT_LEAST_ONCE, False)
