"""The job of the demo and what it is compared with, on three flights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from polars.testing import assert_frame_equal

from microbatch.demo import job
from microbatch.demo.flights import SCHEMA

#            hour [10:00 - 11:00)               [11:00 - 12:00)         [13:00 - 14:00)
FLIGHTS = pl.DataFrame(
    {
        "carrier": ["UA", "UA", "AA", "B6", "DL"],
        "flight": [1, 2, 3, 4, 5],
        "origin": ["EWR", "EWR", "EWR", "JFK", "JFK"],
        "dest": ["IAH"] * 5,
        "dep_delay": [2, -4, None, None, 7],
        "minute": [15, 59, 30, 0, 5],
        "time_hour": ["2013-01-01T10:00:00Z"] * 3 + ["2013-01-01T11:00:00Z", "2013-01-01T13:00:00Z"],
    },
    schema=SCHEMA,
)


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2013, 1, 1, hour, minute, tzinfo=UTC)


def test_a_cancelled_flight_is_counted_and_delays_no_mean() -> None:
    assert_frame_equal(
        job.in_plain_polars(FLIGHTS).sort("window_start"),
        pl.DataFrame(
            {
                "window_start": [at(10), at(11), at(13)],
                "origin": ["EWR", "JFK", "JFK"],
                "flights": [3, 1, 1],
                "departed": [2, 0, 1],
                "mean_delay_minutes": [-1.0, None, 7.0],
            },
            schema_overrides={"flights": pl.UInt32, "departed": pl.UInt32, "window_start": pl.Datetime("us", "UTC")},
        ),
    )


def test_the_watermark_is_the_latest_scheduled_departure_less_the_delay() -> None:
    assert job.watermark(FLIGHTS) == at(13, 5) - timedelta(hours=2)


def test_an_hour_that_ends_at_the_watermark_is_closed() -> None:
    hours = job.in_plain_polars(FLIGHTS).sort("window_start")
    assert job.closed(hours, at(11)).to_list() == [True, False, False]
    assert job.closed(hours, at(11) - timedelta(microseconds=1)).to_list() == [False, False, False]
    assert job.closed(hours, at(12)).to_list() == [True, True, False]


def test_equal_tables_have_no_difference_in_any_order() -> None:
    hours = job.in_plain_polars(FLIGHTS)
    assert job.difference(hours.reverse().with_columns(pl.col("flights").cast(pl.Int64)), hours) is None


def test_the_last_bits_of_a_mean_are_no_difference() -> None:
    hours = job.in_plain_polars(FLIGHTS)
    assert job.difference(hours.with_columns(pl.col("mean_delay_minutes") * (1 + 1e-15)), hours) is None


def test_a_row_more_a_row_less_and_a_wrong_count_are_told() -> None:
    hours = job.in_plain_polars(FLIGHTS)
    assert job.difference(pl.concat([hours, hours.head(1)]), hours) is not None
    assert job.difference(hours.head(2), hours) is not None
    assert "flights" in (job.difference(hours.with_columns(pl.col("flights") + 1), hours) or "")
