"""Sessions one row at a time, in plain Python: what the stream must give, late rows and restarts included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SECOND = 1_000_000


@dataclass
class Row:
    """A row as it arrives: time and gap in microseconds, or None."""

    time: int | None
    key: Any
    gap: int | None
    value: int | None


@dataclass
class Session:
    """An open session: bounds in microseconds, and its rows by arrival."""

    start: int
    end: int
    rows: list[tuple[int, int | None]]


@dataclass
class Model:
    """Open sessions per key, the two marks of the next batch, and what came out; ``delay`` None: no watermark."""

    delay: int | None
    open: dict[Any, list[Session]] = field(default_factory=dict[Any, list[Session]])
    over: list[tuple[Any, Session]] = field(default_factory=list[tuple[Any, Session]])
    late_mark: int | None = None
    mark: int | None = None
    late_rows: int = 0
    arrived: int = 0

    def run(self, rows: Iterable[Row], *, no_data_batches: bool) -> None:
        """Run a batch with these rows, and one without any if the watermark moved."""
        seen = self.mark
        for row in rows:
            if self.delay is not None and row.time is not None:
                seen = max(row.time - self.delay, seen if seen is not None else row.time - self.delay)
            self.take(row)
        self.close()
        self.late_mark, self.mark = self.mark, seen
        if no_data_batches and self.mark is not None and self.mark != self.late_mark:
            self.close()
            self.late_mark = self.mark

    def take(self, row: Row) -> None:
        """Put a row into the sessions it touches, which become one."""
        self.arrived += 1
        if row.time is None or row.gap is None or row.gap <= 0:
            return
        one = Session(start=row.time, end=row.time + row.gap, rows=[(self.arrived, row.value)])
        if self.late_mark is not None and one.end <= self.late_mark:
            self.late_rows += 1
            return
        apart = []
        for other in self.open.get(row.key, []):
            if other.start <= one.end and one.start <= other.end:
                one = Session(start=min(one.start, other.start), end=max(one.end, other.end), rows=sorted(one.rows + other.rows))
            else:
                apart.append(other)
        self.open[row.key] = [*apart, one]

    def close(self) -> None:
        """Move the sessions the mark has passed to ``over``."""
        if self.mark is None:
            return
        for key, sessions in self.open.items():
            self.over += [(key, s) for s in sessions if s.end <= self.mark]
            self.open[key] = [s for s in sessions if s.end > self.mark]

    @property
    def open_count(self) -> int:
        """How many sessions are open."""
        return sum(map(len, self.open.values()))
