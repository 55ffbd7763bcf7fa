"""The demo from beginning to end: land the files, run the job, show the table, compare it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import polars as pl
from rich.console import Console

from microbatch.clock import stopwatch_us
from microbatch.demo import crash, job, show
from microbatch.demo.flights import first_days, land, read_flights
from microbatch.errors import PlanError

_MARKER = ".microbatch-demo"
_OURS = ("landing", "checkpoint", "departures", "departures.png")


def run(output: Path, *, days: int, kills: int, seed: int) -> bool:
    """Run the demo in ``output`` and return True if the table equals one Polars query over all input.

    Parameters
    ----------
    output
        Folder for input, checkpoint, table and picture; what an earlier demo left there is removed.
    days
        How many days of 2013, from January 1.
    kills
        How often the job is killed on its way; 0: it runs in this process.
    seed
        Chooses the moments of the kills.

    Raises
    ------
    PlanError
        ``output`` holds files that no demo made.
    SourceError
        The package with the flights is not installed.
    """
    console = Console()
    flights = first_days(read_flights(), days)
    begin_anew(output)
    n_files = land(flights, output / "landing")
    console.print(f"{flights.height:,} flights landed as {n_files} files, one a day, in {output / 'landing'}. The job:\n")
    show.code(console)
    _work(console, output, flights.height, kills, seed)
    table = pl.read_delta(str(output / "departures"))
    _present(console, table, output)
    return _compare(console, table, flights)


def begin_anew(output: Path) -> None:
    """Make ``output`` an empty folder of the demo; PlanError if it holds what is not ours."""
    taken = output.exists() and not (output.is_dir() and not any(output.iterdir()))
    if taken and not (output / _MARKER).exists():
        msg = f"{output} is not empty or no folder, and was not made by `microbatch demo`; name another folder with --output"
        raise PlanError(msg)
    output.mkdir(parents=True, exist_ok=True)
    (output / _MARKER).touch()
    for name in _OURS:
        if (output / name).is_dir():
            shutil.rmtree(output / name)
        (output / name).unlink(missing_ok=True)


def _work(console: Console, output: Path, n_rows: int, kills: int, seed: int) -> None:
    started_us = stopwatch_us()
    died = 0
    with show.BatchBar(console, n_rows) as bar:
        if kills:
            rng = random.Random(seed)  # noqa: S311 - chooses moments, keeps no secret
            died = crash.run_killed(output, kills, rng, bar.on_query_progress)
        else:
            job.query(output).run(listeners=[bar])
        bar.complete()
    seconds = (stopwatch_us() - started_us) / 1e6
    console.print(f"{n_rows:,} rows in {seconds:.1f} s" + (f", killed with SIGKILL and resumed {died} times" if kills else ""))


def _present(console: Console, table: pl.DataFrame, output: Path) -> None:
    console.print()
    console.print(show.by_airport(table))
    console.print(show.bars(table))
    show.picture(table, output / "departures.png")
    console.print(f"\nDelta table: {output / 'departures'}, picture: {output / 'departures.png'}")


def _compare(console: Console, table: pl.DataFrame, flights: pl.DataFrame) -> bool:
    """Compare the table with one plain Polars query over all flights, hours the watermark has not passed left aside."""
    hours, mark = job.in_plain_polars(flights), job.watermark(flights)
    final = job.closed(hours, mark)
    wait = hours.filter(~final)
    console.print(
        f"{wait.height} airport hours ({wait['flights'].sum()} flights) wait in the state: they end after the watermark "
        f"{mark:%Y-%m-%d %H:%M} UTC, so a flight may still count to them, and append mode writes an hour once, when it is final."
    )
    different = job.difference(table, hours.filter(final))
    if different is None:
        console.print(f"[green]equal[/green]: the {table.height:,} rows of the table are those of one Polars query over all flights")
        return True
    console.print(f"[red]not equal[/red] to one Polars query over all flights: {different}", soft_wrap=True)
    return False
