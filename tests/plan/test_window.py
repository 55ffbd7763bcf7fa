"""Windows: where a time falls, drawn above each test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest

import microbatch as mb
from microbatch.plan.window import END, START, Window, assign_window, check_window

BOUNDS = [START, END]


def bounds(window: Window, times: list[object], dtype: pl.Datetime | None = None) -> list[tuple[object, ...]]:
    """Return (time, start, end) of each row as seconds since 1970."""
    rows = pl.LazyFrame({"t": times}, schema={"t": dtype or pl.Datetime("us")})
    placed = assign_window(rows, window, (START, END), check_window(window, rows.collect_schema()))
    return placed.select(pl.all().dt.epoch("s")).collect().rows()


def at(second: int) -> datetime:
    return datetime(1970, 1, 1) + timedelta(seconds=second)


def test_a_tumbling_window_holds_its_start_and_not_its_end() -> None:
    # [0 ---- 5)[5 ---- 10)
    assert bounds(mb.window("t", "5s"), [at(0), at(4), at(5)]) == [(0, 0, 5), (4, 0, 5), (5, 5, 10)]


def test_times_before_1970_fall_into_windows_before_1970() -> None:
    # [-10 ---- -5)[-5 ---- 0)
    assert bounds(mb.window("t", "5s"), [at(-1), at(-5), at(-6)]) == [(-1, -5, 0), (-5, -5, 0), (-6, -10, -5)]


def test_the_offset_shifts_all_starts() -> None:
    # [-7 ---- 3)[3 ---- 13)[13 ---- 23)
    assert bounds(mb.window("t", "10s", offset="3s"), [at(2), at(3), at(12), at(13)]) == [(2, -7, 3), (3, 3, 13), (12, 3, 13), (13, 13, 23)]


def test_a_row_is_in_size_over_slide_windows() -> None:
    # [-5 ------- 5)
    #      [0 ------- 10)
    assert bounds(mb.window("t", "10s", "5s"), [at(1)]) == [(1, -5, 5), (1, 0, 10)]


def test_when_slide_does_not_divide_size_only_windows_that_hold_the_row_count() -> None:
    # [-3 ------- 4)  [0 ------- 7)  [3 ------- 10): size 7, slide 3
    assert bounds(mb.window("t", "7s", "3s"), [at(3)]) == [(3, -3, 4), (3, 0, 7), (3, 3, 10)]
    assert bounds(mb.window("t", "7s", "3s"), [at(5)]) == [(5, 0, 7), (5, 3, 10)]


@pytest.mark.parametrize("slide", [None, "2s"])
def test_a_row_without_a_time_is_in_no_window(slide: str | None) -> None:
    assert bounds(mb.window("t", "4s", slide), [None]) == []


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_bounds_have_the_unit_of_the_time(unit: str) -> None:
    dtype = pl.Datetime(unit)  # type: ignore[arg-type]
    rows = pl.LazyFrame({"t": [at(7)]}, schema={"t": dtype})
    placed = assign_window(rows, mb.window("t", "5s"), (START, END), dtype).collect()
    assert placed.schema == {"t": dtype, START: dtype, END: dtype}
    assert placed.select(pl.col(BOUNDS).dt.epoch("s")).row(0) == (5, 10)


def test_windows_keep_their_length_over_a_change_of_daylight_saving() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    dtype = pl.Datetime("us", "Europe/Berlin")
    # On 2024-03-31 the clock went from 02:00 to 03:00; 03:30 summer time is 01:30 UTC.
    row = datetime(2024, 3, 31, 3, 30, tzinfo=berlin)
    rows = pl.LazyFrame({"t": [row]}, schema={"t": dtype})
    placed = assign_window(rows, mb.window("t", "2h"), (START, END), dtype).select(BOUNDS).collect()
    start, end = placed.row(0)
    assert start == datetime(2024, 3, 31, 0, 0, tzinfo=UTC)
    assert end == datetime(2024, 3, 31, 2, 0, tzinfo=UTC)
    assert placed.schema == {START: dtype, END: dtype}


def test_a_far_future_time_has_a_window() -> None:
    assert bounds(mb.window("t", "1h"), [datetime(9999, 12, 31, 22, 30)])[0][1:] == (253402293600, 253402297200)


@pytest.mark.parametrize(
    ("size", "slide", "message"),
    [
        ("5s", "6s", "rows between two windows would vanish"),
        ("0s", None, "must be longer than zero"),
        ("-1s", None, "must be longer than zero"),
        ("5 parsecs", None, "is no duration"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(size: str, slide: str | None, message: str) -> None:
    with pytest.raises(mb.PlanError, match=message):
        mb.window("t", size, slide)


def test_a_window_over_something_else_than_a_datetime_is_refused() -> None:
    with pytest.raises(mb.PlanError, match=r"needs a Datetime column, this one is Int64; cast it"):
        mb.static(pl.DataFrame({"t": [1]})).group_by(mb.window("t", "5s")).len()


def test_a_bound_between_two_milliseconds_does_not_fit_milliseconds() -> None:
    frame = mb.static(pl.DataFrame(schema={"t": pl.Datetime("ms")}))
    with pytest.raises(mb.PlanError, match=r"between two milliseconds"):
        frame.group_by(mb.window("t", "1500us")).len()


def test_window_time_is_the_last_microsecond_of_the_window() -> None:
    ends = pl.DataFrame({END: [at(5)]}, schema={END: pl.Datetime("us")})
    assert ends.select(mb.window_time()).item() == at(5) - timedelta(microseconds=1)
