"""Pieces of sessions: what a batch's rows, or pieces that belong together, come to.

A piece is a session, or a part of one, as one row: the other keys, its bounds, the numbers of the first and the last row that arrived for
it, and partial aggregates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from microbatch.operators.intervals import Index, Sessions, find_sessions
from microbatch.plan.aggregates import SplitAggregate

SINCE, UNTIL = "__since", "__until"
_SESSION = "__session"
_ROWS_A_BATCH = 1 << 32  # arrival numbers: the batch in the upper half, the row in the lower


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pieces:
    """How pieces are made; ``bounds`` names the columns of start and end, ``keys`` the other keys."""

    split: SplitAggregate
    keys: Sequence[str]
    bounds: tuple[str, str]

    @property
    def columns(self) -> list[str]:
        """The columns of a frame of pieces, in order."""
        return [*self.keys, *self.bounds, SINCE, UNTIL, *self.split.state_schema]

    def sessions(self, frame: pl.DataFrame) -> Sessions:
        """Return which rows of a frame, each with the bounds of an interval, are one session."""
        start, end = (frame[name].to_physical().to_numpy() for name in self.bounds)
        return find_sessions(frame.select(self.keys), start, end)

    def of_rows(self, rows: pl.DataFrame, batch_id: int) -> pl.DataFrame:
        """Return the pieces of a batch, one a session, from its rows in the order they arrived."""
        sessions = self.sessions(rows)
        numbered = rows.with_columns(pl.Series(_SESSION, sessions.of_rows()))
        partials = self._in_order(self.split.reduce(numbered.lazy(), [_SESSION]))
        arrival = np.arange(rows.height) + batch_id * _ROWS_A_BATCH
        return self._pieces(rows, sessions, arrival, arrival, partials)

    def merged(self, pieces: pl.DataFrame, sessions: Sessions) -> pl.DataFrame:
        """Return one piece a session, in their order."""
        since, until = pieces[SINCE].to_numpy(), pieces[UNTIL].to_numpy()
        if sessions.count == pieces.height:
            return pieces[sessions.order]
        numbered = pieces.select(*self.split.state_schema, pl.Series(_SESSION, sessions.of_rows()))
        partials = self._in_order(self.split.merge(numbered[np.argsort(since)].lazy(), [_SESSION]))
        if newest := [p.name for p in self.split.parts if p.newest]:
            by_last = self._in_order(self.split.merge(numbered[np.argsort(until)].lazy(), [_SESSION]))
            partials = partials.with_columns(by_last.select(newest))
        return self._pieces(pieces, sessions, since, until, partials)

    def _in_order(self, partials: pl.LazyFrame) -> pl.DataFrame:
        return self.split.checked(partials.collect()).sort(_SESSION).drop(_SESSION)

    def _pieces(self, rows: pl.DataFrame, sessions: Sessions, since: Index, until: Index, partials: pl.DataFrame) -> pl.DataFrame:
        start, end = self.bounds
        bounds = pl.DataFrame({start: sessions.start, end: sessions.end}).cast({name: rows.schema[name] for name in self.bounds})
        arrived = pl.DataFrame({SINCE: sessions.lowest(since), UNTIL: sessions.highest(until)})
        keys = rows.select(self.keys)[sessions.first_rows]
        return pl.concat([keys, bounds, arrived, partials], how="horizontal")
