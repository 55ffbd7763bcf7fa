"""The kit finds what it is there to find: sources that are wrong in one way fail the check of that name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from microbatch.model import Offset
from microbatch.protocols import SourceContext
from microbatch.testing.assertions import NotOwedError
from microbatch.testing.source_kit import SOURCE_CHECKS, SourcePlace, check_source

SCHEMA = pl.Schema({"n": pl.Int64(), "text": pl.String()})


class Good:
    """Rows in memory, offset = number of rows; ``wrong`` names the one thing it does wrong."""

    description = "Good[memory]"

    def __init__(self, *, wrong: str = "", limit: int | None = None) -> None:
        self.wrong = wrong
        self.limit = limit
        self.frame = SCHEMA.to_frame()
        self.n_asked = 0
        self.gone = 0

    def schema(self) -> pl.Schema:
        self.n_asked += 1
        return pl.Schema({"n": pl.Int64()}) if self.wrong == "schema" and self.n_asked > 1 else SCHEMA

    def open(self, context: SourceContext) -> GoodReader:
        return GoodReader(self)

    def read_all(self) -> pl.LazyFrame:
        return self.frame.head(1 if self.wrong == "read_all" else self.frame.height).lazy()


class GoodReader:
    def __init__(self, source: Good) -> None:
        self.source = source
        self.frozen: int | None = None
        self.latest = 0
        self.n_reads = 0

    def latest_offset(self, start: Offset, *, limited: bool) -> Offset:
        source, wrong = self.source, self.source.wrong
        there = source.frame.height if self.frozen is None or wrong == "freeze" else self.frozen
        begin = position(start)
        limit = source.limit if limited or wrong == "limit" else None
        self.latest = end = min(there, begin + (limit or there))
        if wrong == "restless":
            end += self.n_reads
            self.n_reads += 1
        if end == begin and wrong != "zero":
            return start
        return (end,) if wrong == "offset" else end  # type: ignore[return-value]

    def freeze(self) -> None:
        self.frozen = self.latest if self.source.wrong == "freeze at last look" else self.source.frame.height

    def read(self, start: Offset, end: Offset) -> pl.LazyFrame:
        wrong, begin, stop = self.source.wrong, position(start), position(end)
        self.n_reads += 1
        if wrong == "up to now":
            stop = self.source.frame.height
        if wrong == "needs latest" and self.latest == 0:
            stop = begin
        if wrong == "overlap":
            begin = max(begin - 1, 0)
        if wrong == "commit" and self.source.gone:
            begin = max(begin, self.source.gone + 1)
        rows = self.source.frame.slice(begin, stop - begin)
        if wrong == "order" and self.n_reads % 2:
            rows = rows.reverse()
        if wrong == "eager":
            return rows  # type: ignore[return-value]
        if wrong == "columns":
            rows = rows.with_columns(extra=1)
        return rows.lazy()

    def row_count(self, start: Offset, end: Offset) -> int | None:
        return None if self.source.wrong == "no count" else position(end) - position(start) + (self.source.wrong == "count")

    def commit(self, end: Offset) -> None:
        self.source.gone = position(end)

    def metrics(self) -> Mapping[str, str]:
        return {"malformed": 0} if self.source.wrong == "metrics" else {}  # type: ignore[dict-item]

    def close(self) -> None:
        if self.source.wrong == "close":
            self.source.frame = self.source.frame.clear()


def position(offset: Any) -> int:
    return (offset[0] if isinstance(offset, list | tuple) else offset) or 0


def arrival(k: int) -> pl.DataFrame:
    return pl.DataFrame({"n": [10 * k, 10 * k + 1, 10 * k + 2], "text": [f"row {k}", None, ""]}, schema=SCHEMA)


def place(folder: Path, wrong: str = "", *, known: bool = True) -> SourcePlace:
    source, limited = Good(wrong=wrong), Good(wrong=wrong, limit=3)

    def arrive(k: int) -> pl.DataFrame | None:
        for each in (source, limited):
            each.frame = pl.concat([each.frame, arrival(k)])
        return arrival(k) if known else None

    return SourcePlace(make=lambda: source, arrive=arrive, checkpoint=folder, limited=lambda: limited)


def failing(make_place: Callable[[], SourcePlace]) -> set[str]:
    failed: set[str] = set()
    for check in SOURCE_CHECKS:
        try:
            check(make_place())
        except NotOwedError:
            continue
        except (AssertionError, pl.exceptions.PolarsError, AttributeError):
            failed.add(check.__name__.removeprefix("check_"))
    return failed


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ("schema", "schema_stays"),
        ("columns", "schema_stays"),
        ("zero", "nothing_there_means_no_progress"),
        ("restless", "end_stays_without_arrivals"),
        ("offset", "offsets_are_json"),
        ("order", "same_range_gives_same_rows"),
        ("up to now", "same_range_gives_same_rows"),
        ("up to now", "range_nobody_read_can_be_read_later"),
        ("needs latest", "restart_reads_the_logged_range"),
        ("overlap", "ranges_join_without_gap_or_overlap"),
        ("overlap", "empty_range_has_no_rows"),
        ("count", "row_count_is_right_or_unknown"),
        ("eager", "arrival_moves_the_end"),
        ("limit", "limit_cuts_the_backlog"),
        ("freeze", "freeze_fixes_the_end"),
        ("freeze at last look", "freeze_before_the_first_look"),
        ("commit", "commit_keeps_later_rows"),
        ("read_all", "read_all_gives_everything"),
        ("metrics", "metrics_are_texts"),
        ("close", "closed_source_opens_again"),
    ],
)
def test_source_that_is_wrong_fails_the_check_of_that_name(wrong: str, check: str, tmp_path: Path) -> None:
    assert check in failing(lambda: place(tmp_path, wrong))


@pytest.mark.parametrize("wrong", ["", "no count"])
def test_source_that_keeps_the_contract_passes(wrong: str, tmp_path: Path) -> None:
    assert check_source(lambda: place(tmp_path, wrong)) == {}


@pytest.mark.parametrize("wrong", ["overlap", "order", "needs latest"])
def test_faults_show_also_when_only_the_source_knows_its_rows(wrong: str, tmp_path: Path) -> None:
    assert failing(lambda: place(tmp_path, known=False)) == set()
    assert failing(lambda: place(tmp_path, wrong, known=False))


def test_first_failure_is_named_after_its_check(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"check_row_count_is_right_or_unknown: row_count says 4, the range has 3 rows"):
        check_source(lambda: place(tmp_path, "count"))
