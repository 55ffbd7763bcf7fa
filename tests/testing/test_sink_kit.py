"""The kit finds what it is there to find: sinks that are wrong in one way fail the check of that name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from microbatch.errors import PlanError, SinkError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import SinkBatch, SinkContext
from microbatch.testing.assertions import NotOwedError
from microbatch.testing.sink_kit import DEFAULT_SCHEMA, SINK_CHECKS, SinkPlace, check_sink

ALL = frozenset(OutputMode)


class Good:
    """A sink in memory that keeps the contract; ``wrong`` names the one thing it does wrong."""

    description = "Good[memory]"
    delivery = Delivery.EXACTLY_ONCE
    durable = False

    def __init__(self, *, wrong: str = "", folder: Path | None = None) -> None:
        self.wrong = wrong
        self.folder = folder
        self.frame = DEFAULT_SCHEMA.to_frame()
        self.seen: dict[str, int] = {}
        self.down = False
        if wrong == "description":
            self.description = "two\nlines"
        if wrong == "delivery":
            self.delivery = "exactly once"  # type: ignore[assignment]

    def check(self, mode: OutputMode, schema: pl.Schema, keys: tuple[str, ...]) -> None:
        if self.wrong == "touching" and self.folder:
            (self.folder / "made").write_text("")
        if mode is OutputMode.COMPLETE and self.wrong != "modes":
            msg = "no such mode" if self.wrong == "unnamed mode" else "no complete mode"
            raise PlanError(msg)

    def open(self, context: SinkContext) -> GoodWriter:
        if self.wrong == "rows at open":
            self.frame = pl.DataFrame([{"key": 1}], schema=DEFAULT_SCHEMA)
        return GoodWriter(self, context)


class GoodWriter:
    def __init__(self, sink: Good, context: SinkContext) -> None:
        self.sink = sink
        self.mode = context.mode
        self.query_id = "the same" if sink.wrong == "queries" else context.query_id
        self.last = -1
        self.waiting: list[pl.DataFrame] = []

    def write(self, batch: SinkBatch) -> None:
        sink = self.sink
        if sink.down and sink.wrong != "half of a failed batch":
            raise OSError if sink.wrong == "other error" else SinkError("the outside is down")
        last = self.last if sink.wrong == "restart" else sink.seen.get(self.query_id, -1)
        if batch.batch_id <= last and sink.wrong != "repeats" and not (sink.wrong == "older" and batch.batch_id < last):
            return
        if batch.rows.is_empty() and sink.wrong == "empty":
            raise SinkError(sink.wrong)
        self.last = sink.seen[self.query_id] = batch.batch_id
        self._add(batch.rows)
        if sink.down:
            raise SinkError(sink.wrong)

    def _add(self, rows: pl.DataFrame) -> None:
        sink = self.sink
        if sink.wrong == "late":
            self.waiting.append(rows)
            rows = self.waiting.pop(0) if len(self.waiting) > 1 else rows.clear()
        rows = rows.head(3) if sink.wrong == "lost rows" else rows
        rows = rows.with_columns(pl.col("amount").fill_nan(None)) if sink.wrong == "values" else rows
        sink.frame = pl.concat([sink.frame, rows])

    def metrics(self) -> Mapping[str, str]:
        return {"rows": 3} if self.sink.wrong == "metrics" else {"rows": "3"}  # type: ignore[dict-item]

    def close(self) -> None:
        if self.sink.wrong == "close":
            self.sink.frame = self.sink.frame.clear()


def place(folder: Path, wrong: str = "", **options: Any) -> SinkPlace:
    sink = Good(wrong=wrong, folder=folder)

    @contextmanager
    def down() -> Iterator[None]:
        sink.down = True
        try:
            yield
        finally:
            sink.down = False

    given: dict[str, Any] = {
        "modes": frozenset({OutputMode.APPEND, OutputMode.UPDATE}),
        "breaking": down,
        "folder": folder,
        "extremes": 0.3,
    } | options
    return SinkPlace(make=lambda: sink, read=lambda: sink.frame, **given)


def failing(make_place: Callable[[], SinkPlace]) -> set[str]:
    failed: set[str] = set()
    for check in SINK_CHECKS:
        try:
            check(make_place())
        except NotOwedError:
            continue
        except (AssertionError, SinkError, OSError):
            failed.add(check.__name__.removeprefix("check_"))
    return failed


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ("description", "description_is_one_line"),
        ("delivery", "promises_are_stated"),
        ("touching", "describing_touches_nothing"),
        ("modes", "other_modes_are_refused"),
        ("unnamed mode", "other_modes_are_refused"),
        ("rows at open", "opening_shows_no_rows"),
        ("late", "batch_is_visible_when_write_returns"),
        ("lost rows", "batch_is_visible_when_write_returns"),
        ("values", "batches_add_up"),
        ("empty", "first_batch_may_be_empty"),
        ("repeats", "repeated_batch_changes_nothing"),
        ("restart", "many_batches_and_restarts"),
        ("restart", "repeated_batch_changes_nothing"),
        ("older", "older_batch_changes_nothing"),
        ("queries", "other_query_is_not_taken_for_this_one"),
        ("metrics", "metrics_are_texts"),
        ("close", "closed_sink_opens_again"),
        ("other error", "failed_write_shows_nothing"),
        ("half of a failed batch", "failed_write_shows_nothing"),
    ],
)
def test_sink_that_is_wrong_fails_the_check_of_that_name(wrong: str, check: str, tmp_path: Path) -> None:
    assert check in failing(lambda: place(tmp_path, wrong))


def test_sink_that_keeps_the_contract_passes_and_what_is_not_owed_is_told(tmp_path: Path) -> None:
    assert check_sink(lambda: place(tmp_path)) == {
        "check_complete_mode_replaces_the_result": "the sink does not take complete mode",
        "check_update_mode_replaces_by_key": "the sink does not upsert",
    }


def test_sink_that_adds_in_complete_mode_fails(tmp_path: Path) -> None:
    assert "complete_mode_replaces_the_result" in failing(lambda: place(tmp_path, "modes", modes=ALL))


def test_sink_that_adds_instead_of_replacing_by_key_fails(tmp_path: Path) -> None:
    assert "update_mode_replaces_by_key" in failing(lambda: place(tmp_path, upserts=True))


def test_sink_that_does_not_fail_when_its_outside_does_is_found(tmp_path: Path) -> None:
    assert "failed_write_shows_nothing" in failing(lambda: place(tmp_path, breaking=nullcontext))


def test_first_failure_is_named_after_its_check(tmp_path: Path) -> None:
    with pytest.raises(
        AssertionError, match=r"check_repeated_batch_changes_nothing: after the same batch came twice in one run: 14 rows are there"
    ):
        check_sink(lambda: place(tmp_path, "repeats"))
