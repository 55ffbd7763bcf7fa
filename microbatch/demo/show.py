"""What the demo shows: the code of the job, its progress, the result as tables, bars and a picture."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table

import microbatch as mb
from microbatch.demo import job

_ZONE = "America/New_York"
_BAR_CELLS = 40


def code(console: Console) -> None:
    """Print the whole job, as it stands in ``job``."""
    console.print(
        Syntax(
            inspect.getsource(job.departures) + "\n\n" + inspect.getsource(job.query), "python", background_color="default", word_wrap=True
        )
    )


class BatchBar(mb.StreamingQueryListener):
    """A bar over the rows, with the last batch and its watermark; silent until the end where output is no terminal."""

    def __init__(self, console: Console, n_rows: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows"),
            TimeElapsedColumn(),
            console=console,
        )
        self._n_rows = n_rows
        self._task: TaskID = self._bar.add_task("batch -", total=n_rows)

    def on_query_progress(self, progress: mb.Progress) -> None:
        """Move the bar by one batch."""
        mark = progress["eventTime"].get("watermark", "not set")
        label = f"batch {progress['batchId']}, watermark {mark[:16]}"
        self._bar.update(self._task, advance=progress["numInputRows"], description=label)

    def complete(self) -> None:
        """Fill the bar: a killed child may have died before it told of its last batch."""
        self._bar.update(self._task, completed=self._n_rows)

    def __enter__(self) -> BatchBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def by_airport(hours: pl.DataFrame) -> Table:
    """Return flights, departures, cancellations and mean delay of each airport as a table."""
    figures = _weighted(hours, "origin").sort("origin")
    table = Table(title="departures, by airport", title_justify="left")
    for name in ("airport", "hours", "flights", "departed", "cancelled", "mean delay"):
        table.add_column(name, justify="left" if name == "airport" else "right")
    columns: list[list[Any]] = [figures[c].to_list() for c in ("origin", "hours", "flights", "departed", "mean")]
    for origin, n_hours, flights, departed, mean in zip(*columns, strict=True):
        table.add_row(origin, f"{n_hours:,}", f"{flights:,}", f"{departed:,}", f"{flights - departed:,}", _minutes(mean))
    return table


def bars(hours: pl.DataFrame) -> Table:
    """Return the mean delay of each hour of the day in New York as bars."""
    figures = _weighted(_local(hours), "hour").sort("hour")
    longest = max([mean for mean in figures["mean"].to_list() if mean is not None] or [1.0])
    table = Table(title="mean departure delay, by hour of scheduled departure in New York", title_justify="left", box=None)
    for name in ("hour", "departed", "mean delay", ""):
        table.add_column(name, justify="left" if name == "" else "right")
    columns: list[list[Any]] = [figures[c].to_list() for c in ("hour", "departed", "mean")]
    for hour, departed, mean in zip(*columns, strict=True):
        cells = round(_BAR_CELLS * max(mean or 0.0, 0.0) / max(longest, 1.0))
        table.add_row(f"{hour:02}", f"{departed:,}", _minutes(mean), "█" * cells)
    return table


def picture(hours: pl.DataFrame, file: Path) -> None:
    """Write a PNG: the mean delay by hour of the day, a line for each airport."""
    # Not pyplot: a figure by itself needs no display and leaves no global state.
    from matplotlib.figure import Figure

    figures = _weighted(_local(hours), "origin", "hour").sort("origin", "hour")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (origin,), rows in figures.partition_by("origin", as_dict=True).items():
        axes.plot(rows["hour"].to_list(), rows["mean"].to_list(), marker="o", markersize=3, label=str(origin))
    axes.set(xlabel="hour of scheduled departure, New York", ylabel="mean departure delay, minutes", title="Flights from New York, 2013")
    axes.set_xticks(range(0, 24, 2))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def _local(hours: pl.DataFrame) -> pl.DataFrame:
    return hours.with_columns(hour=pl.col("window_start").dt.convert_time_zone(_ZONE).dt.hour())


def _weighted(hours: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """Return sums over hours; an hour's mean delay counts as often as it has departures."""
    total = (pl.col("mean_delay_minutes") * pl.col("departed")).sum()
    return hours.group_by(keys).agg(
        pl.len().alias("hours"),
        pl.col("flights").sum(),
        pl.col("departed").sum(),
        (total / pl.col("departed").sum()).fill_nan(None).alias("mean"),
    )


def _minutes(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.1f} min"
