"""What the demo shows, on four airport hours."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from rich.console import Console

import microbatch as mb
from microbatch.demo import show

HOURS = pl.DataFrame(
    {
        # 17:00 UTC is 12:00 in New York in January and 13:00 in July.
        "window_start": [datetime(2013, 1, 1, 17, tzinfo=UTC), datetime(2013, 7, 1, 16, tzinfo=UTC), datetime(2013, 7, 1, 17, tzinfo=UTC)]
        * 2,
        "origin": ["EWR"] * 3 + ["JFK"] * 3,
        "flights": [4, 3, 1, 0, 0, 5],
        "departed": [3, 1, 0, 0, 0, 5],
        "mean_delay_minutes": [10.0, 30.0, None, None, None, -2.0],
    },
    schema_overrides={"window_start": pl.Datetime("us", "UTC")},
)


def text(thing: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_mean_of_an_airport_counts_each_departure_once() -> None:
    lines = text(show.by_airport(HOURS)).splitlines()
    ewr = next(line for line in lines if "EWR" in line)
    assert [cell.strip() for cell in ewr.strip("│ ").split("│")] == ["EWR", "3", "8", "4", "4", "15.0 min"]


def test_hours_of_the_day_are_those_of_new_york_in_winter_and_summer() -> None:
    lines = [line.split() for line in text(show.bars(HOURS)).splitlines()]
    assert ["12", "4", "15.0", "min", "█" * 40] in lines  # (3 * 10 + 1 * 30) / 4
    assert ["13", "5", "-2.0", "min"] in lines


def test_an_airport_where_nothing_departed_has_no_mean() -> None:
    assert "-" in text(show.by_airport(HOURS.filter(pl.col("departed") == 0)))
    assert "█" not in text(show.bars(HOURS.filter(pl.col("departed") == 0)))


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    show.picture(HOURS, tmp_path / "departures.png")
    assert (tmp_path / "departures.png").read_bytes().startswith(b"\x89PNG")


def test_the_code_shown_is_the_code_run() -> None:
    console = Console(file=io.StringIO(), width=160)
    show.code(console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "with_watermark" in shown
    assert "sink_delta" in shown


def test_the_bar_tells_batch_and_watermark() -> None:
    console = Console(file=io.StringIO(), width=160)
    with show.BatchBar(console, 10) as bar:
        bar.on_query_progress(mb.Progress(batchId=3, numInputRows=4, eventTime={"watermark": "2013-01-01T10:00:00.000Z"}))
        bar.on_query_progress(mb.Progress(batchId=4, numInputRows=4, eventTime={}))
        bar.on_query_progress(mb.Progress(batchId=5, numInputRows=0, eventTime={"watermark": "2013-01-01T12:00:00.000Z"}))
        bar.complete()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "batch 5, watermark 2013-01-01T12:00" in shown
    assert "10/10" in shown
