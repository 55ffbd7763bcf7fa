"""Every source against the whole contract. To add one: a function that makes a place in a folder, and a line in PLACES."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from microbatch.clock import ManualClock
from microbatch.testing.assertions import NotOwedError
from microbatch.testing.source_kit import SOURCE_CHECKS, SourcePlace

SCHEMA = pl.Schema({"n": pl.Int64(), "text": pl.String(), "at": pl.Datetime("us")})


def arrival(k: int) -> pl.DataFrame:
    """Three rows that no other arrival has."""
    rows = {"n": [10 * k, 10 * k + 1, None], "text": [f"row {k}", None, ""], "at": [k, None, -k]}
    return pl.DataFrame(rows, schema={"n": pl.Int64, "text": pl.String, "at": pl.Int64}).cast({"at": pl.Datetime("us")})


def memory(folder: Path) -> SourcePlace:
    from microbatch.sources.memory import MemorySource

    source, limited = MemorySource(SCHEMA), MemorySource(SCHEMA, max_rows_per_trigger=4)

    def arrive(k: int) -> pl.DataFrame:
        MemorySource.add_together({source: arrival(k), limited: arrival(k)})
        return arrival(k)

    return SourcePlace(make=lambda: source, arrive=arrive, checkpoint=folder / "checkpoint", limited=lambda: limited)


def files(folder: Path) -> SourcePlace:
    from microbatch.sources.files import FileSource

    landing = folder / "landing"
    landing.mkdir()

    def arrive(k: int) -> pl.DataFrame:
        arrival(k).write_parquet(landing / f"{k:03}.parquet")
        return arrival(k)

    pattern = str(landing / "*.parquet")
    return SourcePlace(
        make=lambda: FileSource(pattern, schema=SCHEMA),
        arrive=arrive,
        checkpoint=folder / "checkpoint",
        limited=lambda: FileSource(pattern, schema=SCHEMA, max_files_per_trigger=1),
    )


def rate(folder: Path) -> SourcePlace:
    from microbatch.sources.rate import RateSource

    begin_us = 1_700_000_000_000_000
    clock = ManualClock(begin_us)
    return SourcePlace(
        make=lambda: RateSource(5, start_us=begin_us),
        arrive=lambda k: clock.advance_us(2_000_000),
        checkpoint=folder / "checkpoint",
        clock=clock,
        # As in Spark its first offset is 0, not None: a first batch without rows, before the first second is over.
        begins_empty=False,
        reads_all=False,  # by the machine's clock
    )


PLACES: dict[str, Callable[[Path], SourcePlace]] = {
    name: place for name, place in {"memory": memory, "files": files, "rate": rate}.items() if find_spec(f"microbatch.sources.{name}")
}


@pytest.mark.parametrize("check", SOURCE_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("place", PLACES)
def test_source_keeps_the_contract(place: str, check: Callable[[SourcePlace], None], tmp_path: Path) -> None:
    try:
        check(PLACES[place](tmp_path))
    except NotOwedError as reason:
        pytest.skip(str(reason))
