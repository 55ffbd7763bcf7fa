from __future__ import annotations

import io
import sys

import polars as pl
import pytest

from microbatch.clock import ManualClock
from microbatch.errors import PlanError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import EntryLog, SinkBatch, SinkContext
from microbatch.sinks.console import ConsoleSink


def no_log(path: str, every: int) -> EntryLog:
    raise AssertionError(path, every)


def printed(sink: ConsoleSink, rows: pl.DataFrame, batch_id: int = 0) -> str:
    assert isinstance(sink.file, io.StringIO)
    context = SinkContext(
        query_id="q", query_name=None, mode=OutputMode.APPEND, schema=rows.schema, keys=(), clock=ManualClock(), open_log=no_log
    )
    sink.open(context).write(SinkBatch(batch_id=batch_id, rows=rows, info={}))
    return sink.file.getvalue()


def test_batch_is_printed_with_its_id() -> None:
    text = printed(ConsoleSink(file=io.StringIO()), pl.DataFrame({"n": [1, 2]}), batch_id=7)
    assert text.splitlines()[:3] == ["-" * 43, "Batch: 7", "-" * 43]
    assert [line.strip("│ ") for line in text.splitlines() if line.startswith("│ ")] == ["n", "---", "i64", "1", "2"]


def test_batch_without_rows_shows_its_columns() -> None:
    assert "│ n   │" in printed(ConsoleSink(file=io.StringIO()), pl.DataFrame({"n": []}, schema={"n": pl.Int64}))


def test_more_rows_than_asked_are_counted_not_printed() -> None:
    text = printed(ConsoleSink(rows=3, file=io.StringIO()), pl.DataFrame({"n": range(100, 200)}))
    assert "102" in text
    assert "103" not in text
    assert text.endswith("only the first 3 of 100 rows\n")


def test_all_asked_rows_are_printed() -> None:
    text = printed(ConsoleSink(rows=50, file=io.StringIO()), pl.DataFrame({"n": range(100, 150)}))
    assert all(str(n) in text for n in range(100, 150))
    assert "only the first" not in text


def test_long_text_is_shortened_unless_told() -> None:
    rows = pl.DataFrame({"s": ["x" * 500]} | {f"c{k}": [k] for k in range(30)})
    assert "x" * 500 not in printed(ConsoleSink(file=io.StringIO()), rows)
    full = printed(ConsoleSink(truncate=False, file=io.StringIO()), rows)
    assert "x" * 500 in full
    assert all(f"c{k} " in full for k in range(30))


def test_table_format_of_the_process_stays(capsys: pytest.CaptureFixture[str]) -> None:
    before = str(pl.DataFrame({"n": range(100)}))
    printed(ConsoleSink(rows=50, truncate=False, file=io.StringIO()), pl.DataFrame({"n": range(60)}))
    assert str(pl.DataFrame({"n": range(100)})) == before


def test_without_a_file_it_prints_to_standard_output_of_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    sink, out = ConsoleSink(), io.StringIO()
    context = SinkContext(
        query_id="q", query_name=None, mode=OutputMode.APPEND, schema=pl.Schema(), keys=(), clock=ManualClock(), open_log=no_log
    )
    writer = sink.open(context)
    monkeypatch.setattr(sys, "stdout", out)
    writer.write(SinkBatch(batch_id=3, rows=pl.DataFrame({"n": [1]}), info={}))
    assert "Batch: 3" in out.getvalue()


def test_printing_no_rows_is_refused() -> None:
    with pytest.raises(PlanError, match=r"ConsoleSink\(rows=0\) would print no row; give 1 or more"):
        ConsoleSink(rows=0)


def test_sink_says_what_it_promises() -> None:
    sink = ConsoleSink()
    assert (sink.description, sink.delivery, sink.durable) == ("ConsoleSink[rows=20, truncate=True]", Delivery.AT_LEAST_ONCE, False)
