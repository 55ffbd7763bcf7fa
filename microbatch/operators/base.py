"""What an operator is, and what a batch lends to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import polars as pl

from microbatch.model import Marks, OutputMode
from microbatch.protocols import Source

Engine = Literal["in-memory", "streaming"]

# Below this many rows Polars' in-memory engine starts faster than the streaming one; above, the streaming one takes half the time.
_STREAMING_ROWS = 200_000


def engine_for(rows: int) -> Engine:
    """Return the Polars engine for so many rows; the choice never changes a result, but for the last bits of float sums."""
    return "streaming" if rows > _STREAMING_ROWS else "in-memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRows:
    """Rows an operator refused in one batch, because ``time_column`` was at or before ``mark_us``."""

    operator_id: str
    time_column: str
    mark_us: int
    rows: pl.DataFrame


@dataclass(slots=True, kw_only=True)
class Batch:
    """One evaluation of the plan: the rows of each source, the marks, and figures that ride along in the same pass over the rows.

    An operator that only needs a figure (a maximum, a count) hands a tiny query to ``observe``; it is run by the next ``collect``,
    where Polars shares the common part, so that rows are read once. ``done`` holds the rows of each step that has run, by its identity.
    ``rows_of`` takes a source and in how many places of the plan its rows stand, as often as they are counted.

    ``operator_id`` is the name of the operator that looks at the batch, empty for one without state. ``late`` takes the rows that operators
    refuse as late; None: nobody keeps them, count them only.
    """

    batch_id: int
    rows_of: Callable[[Source, int], pl.LazyFrame]
    marks: Marks
    time_us: int
    mode: OutputMode
    engine: Engine = "in-memory"
    operator_id: str = ""
    late: list[LateRows] | None = None
    done: dict[int, pl.LazyFrame] = field(default_factory=dict[int, pl.LazyFrame])
    _waiting: list[tuple[pl.LazyFrame, Callable[[pl.DataFrame], None]]] = field(
        default_factory=list[tuple[pl.LazyFrame, Callable[[pl.DataFrame], None]]]
    )

    def behind(self, behind_us: int | None) -> Batch:
        """Return the same batch as an operator sees it whose event time is so far behind the query's watermark; None: it has none."""
        return replace(self, marks=self.marks.behind(behind_us))

    def named(self, operator_id: str) -> Batch:
        """Return the same batch, looked at by the operator of this name."""
        return replace(self, operator_id=operator_id)

    def observe(self, figures: pl.LazyFrame, take: Callable[[pl.DataFrame], None]) -> None:
        """Run ``figures`` together with the next ``collect`` and hand its frame to ``take``."""
        self._waiting.append((figures, take))

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Return the rows, and run all that was observed, in one pass."""
        waiting = self._waiting.copy()
        self._waiting.clear()
        result, *figures = pl.collect_all([rows, *(lazy for lazy, _ in waiting)], engine=self.engine)
        for (_, take), frame in zip(waiting, figures, strict=True):
            take(frame)
        return result


class Operator(Protocol):
    """One node of the plan as it runs on a batch."""

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the rows this node puts out for the batch; called once a batch, inputs first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorProgress:
    """What a stateful operator did in one batch; counts of rows. Before its first batch that is nothing."""

    name: str
    rows_total: int = 0
    rows_updated: int = 0
    rows_removed: int = 0
    rows_late: int = 0
    memory_bytes: int = 0
    update_ms: int = 0
    removal_ms: int = 0


class StatefulOperator(Operator, Protocol):
    """An operator that keeps state between batches."""

    @property
    def operator_id(self) -> str:
        """Its name in the checkpoint; the same at every restart."""
        ...

    def wants_batch(self, marks: Marks, time_us: int) -> bool:
        """Return True if a batch without data would do something.

        ``marks`` and ``time_us`` are those the batch would have for this operator; if it is made, they are logged.
        """
        ...

    def progress(self) -> OperatorProgress:
        """Return what the last batch did."""
        ...
