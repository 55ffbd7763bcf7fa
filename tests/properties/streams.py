"""Random input, random cuts of it into batches, random restarts: what the properties of whole plans are checked on."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

import microbatch as mb

SCHEMA: dict[str, Any] = {"id": pl.Int64, "t": pl.Datetime("us"), "k": pl.String, "v": pl.Int64}
BEGIN = datetime(2024, 3, 30, 22)
JITTER_SECONDS = 20
NOTHING_IS_LATE = "45s"  # more than twice the jitter
END = "end"  # the key of the rows that close everything
_CLOSING_BATCHES = 4  # one for each mark of a chain of three, and one for the watermark to be used

Frames = tuple[mb.StreamFrame, mb.StreamFrame]
Verb = Callable[[Frames], mb.StreamFrame]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Batches of two streams, what is done after each, and the settings that must not matter.

    ``after`` holds "restart" (run to the end in a run of its own), "go on" (in the run there is) or "wait" (let rows pile up).
    """

    batches: tuple[tuple[pl.DataFrame, pl.DataFrame], ...]
    after: tuple[str, ...]
    no_data_batches: bool

    @property
    def left(self) -> pl.DataFrame:
        """All rows of the first stream."""
        return pl.concat([left for left, _ in self.batches])

    @property
    def right(self) -> pl.DataFrame:
        """All rows of the second stream."""
        return pl.concat([right for _, right in self.batches])

    @property
    def both(self) -> pl.DataFrame:
        """All rows of both streams."""
        return pl.concat([*(left for left, _ in self.batches), *(right for _, right in self.batches)])


def busy_case(seed: int) -> Case:
    """Return a case of five batches with many rows, a restart, a wait, and all that Hypothesis would have to come upon."""
    rng = random.Random(seed)

    def rows(begin: int) -> list[tuple[int | None, str | None, int | None]]:
        times = [rng.choice([None, *[begin + rng.randint(-JITTER_SECONDS, JITTER_SECONDS) for _ in range(9)]]) for _ in range(15)]
        return [(second, rng.choice(["a", "b", "c", None]), rng.choice([None, *range(-3, 4)])) for second in times]

    batches = tuple((frame(rows(25 * k), 1_000 * k), frame(rows(25 * k), 1_000 * k + 500)) for k in range(5))
    after = ["go on", "wait", "restart", "go on", "restart"]
    rng.shuffle(after)
    return Case(batches=batches, after=tuple(after), no_data_batches=rng.random() < 0.5)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a case whose times run forward in both streams, out of order by at most the jitter."""
    n = draw(st.integers(1, 6))
    begin = 0
    batches: list[tuple[pl.DataFrame, pl.DataFrame]] = []
    for _ in range(n):
        left, right = draw(_rows(begin)), draw(_rows(begin))
        batches.append((frame(left, len(batches) * 1_000), frame(right, len(batches) * 1_000 + 500)))
        begin += draw(st.integers(0, 60))
    after = tuple(draw(st.sampled_from(["restart", "go on", "wait"])) for _ in range(n))
    return Case(batches=tuple(batches), after=after, no_data_batches=draw(st.booleans()))


def _rows(begin: int) -> st.SearchStrategy[list[tuple[int | None, str | None, int | None]]]:
    seconds = st.integers(begin - JITTER_SECONDS, begin + JITTER_SECONDS)
    row = st.tuples(st.one_of(seconds, seconds, seconds, st.none()), st.sampled_from(["a", "b", "c", None]), st.integers(-3, 3) | st.none())
    return st.lists(row, max_size=8)


def frame(rows: list[tuple[int | None, str | None, int | None]], first_id: int = 0) -> pl.DataFrame:
    """Return rows of (seconds, k, v) with ids in their order."""
    times = [None if second is None else BEGIN + timedelta(seconds=second) for second, _, _ in rows]
    columns = {"id": range(first_id, first_id + len(rows)), "t": times, "k": [k for _, k, _ in rows], "v": [v for _, _, v in rows]}
    return pl.DataFrame(columns, schema=SCHEMA)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a sink and the table of late rows hold in the end, without what the closing rows made."""

    sink: mb.MemorySink
    late: pl.DataFrame

    @property
    def rows(self) -> pl.DataFrame:
        """The rows of all batches."""
        rows: pl.DataFrame = self.sink.rows()
        return rows.filter(pl.col("k").ne_missing(END)) if "k" in rows.columns else rows


def run(verb: Verb, case: Case, *, mode: str = "append", keep_late: bool = False, close: bool = True, **options: Any) -> Outcome:
    """Run the case and return what came of it; with ``close`` rows far ahead close all that event time can close."""
    streams = mb.MemoryStream(SCHEMA), mb.MemoryStream(SCHEMA)
    sink, late = mb.MemorySink(), mb.MemorySink()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"mode": mode, "checkpoint": Path(folder) / "c", "no_data_batches": case.no_data_batches, **options}
        query = verb((streams[0].frame(), streams[1].frame())).sink_memory(sink, **settings, **({"late_rows": late} if keep_late else {}))
        handle: mb.StreamingQuery | None = None
        try:
            for batch, after in _steps(case, close=close):
                mb.MemoryStream.add_together(dict(zip(streams, batch, strict=True)))
                if after == "wait":
                    continue
                if handle is not None and after == "restart":
                    handle.stop()
                    handle = None
                handle = handle or query.start()
                handle.process_all_available()
        finally:
            if handle is not None:
                handle.stop()
    return Outcome(sink=sink, late=late.rows())


def _steps(case: Case, *, close: bool) -> list[tuple[tuple[pl.DataFrame, pl.DataFrame], str]]:
    steps = [*zip(case.batches, case.after, strict=True)]
    for k in range(_CLOSING_BATCHES if close else 1):
        far = frame([(10_000_000 + 1_000_000 * k, END, 0)] if close else [])
        steps.append(((far, far), "go on"))
    return steps
