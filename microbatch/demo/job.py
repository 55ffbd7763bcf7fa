"""The job of the demo, and the plain Polars query its result must equal.

An hour is an hour of *scheduled* departure, as an instant (UTC): a cancelled flight has no other, and in local time one hour of
November 3 would come twice. New York is whole hours from UTC, so the hours are those of the clock on the wall as well.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

import microbatch as mb
from microbatch.demo.flights import SCHEMA

SCHEDULED = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC") + pl.duration(minutes="minute")
DELAY_HOURS = 2


def departures(landing: Path) -> mb.StreamFrame:
    """Return flights, departures and mean delay of each airport and hour, as a stream."""
    flights = mb.scan_files(landing / "*.csv", schema=SCHEMA, max_files_per_trigger=10)
    return (
        flights.with_columns(scheduled=SCHEDULED)
        .with_watermark("scheduled", f"{DELAY_HOURS}h")
        .group_by(mb.window("scheduled", "1h"), "origin")
        .agg(
            pl.len().alias("flights"),
            pl.col("dep_delay").count().alias("departed"),  # a cancelled flight has no delay: it is counted, but delays no mean
            pl.col("dep_delay").mean().alias("mean_delay_minutes"),
        )
    )


def query(output: Path) -> mb.Query:
    """Return the job: from ``output/landing`` into the Delta table ``output/departures``, each hour once, when it is final."""
    stream = departures(output / "landing")
    return stream.sink_delta(output / "departures", checkpoint=output / "checkpoint", mode="append", name="departures")


def in_plain_polars(flights: pl.DataFrame) -> pl.DataFrame:
    """Return the same figures for all hours by one Polars query that knows nothing of streams."""
    delay = pl.col("dep_delay")
    return (
        flights.lazy()
        .group_by(SCHEDULED.dt.truncate("1h").alias("window_start"), "origin")
        .agg(flights=pl.len(), departed=delay.count(), mean_delay_minutes=delay.mean())
        .collect()
    )


def watermark(flights: pl.DataFrame) -> datetime:
    """Return where the watermark stands after all flights: the latest scheduled departure less the delay."""
    latest: datetime = flights.select(SCHEDULED.max() - pl.duration(hours=DELAY_HOURS)).item()
    return latest


def closed(hours: pl.DataFrame, mark: datetime) -> pl.Series:
    """Return True for the hours that end at or before the watermark: only they are final, and in the table."""
    return hours.select(pl.col("window_start").dt.offset_by("1h") <= mark).to_series()


def difference(table: pl.DataFrame, expected: pl.DataFrame) -> str | None:
    """Return None if the tables hold the same rows, else what differs; means may differ in their last bits."""
    order = ["window_start", "origin"]
    try:
        assert_frame_equal(table.select(expected.columns).sort(order), expected.sort(order), check_dtypes=False, rel_tol=1e-9, abs_tol=1e-9)
    except AssertionError as error:
        return str(error)
    return None
