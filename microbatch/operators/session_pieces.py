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
        partials = _in_order(self.split.checked(self.split.reduce(numbered.lazy(), [_SESSION]).collect()), sessions.count)
        arrival = np.arange(rows.height) + batch_id * _ROWS_A_BATCH
        return self._pieces(rows, sessions, arrival, arrival, partials)

    def merged(self, pieces: pl.DataFrame, sessions: Sessions) -> pl.DataFrame:
        """Return one piece a session, in their order."""
        if sessions.count == pieces.height:
            return pieces[sessions.order]
        since, until = pieces[SINCE].to_numpy(), pieces[UNTIL].to_numpy()
        partials = pieces.select(self.split.state_schema.names())
        return self._pieces(pieces, sessions, since, until, self._merged_partials(partials, sessions, since, until))

    def _merged_partials(self, partials: pl.DataFrame, sessions: Sessions, since: Index, until: Index) -> pl.DataFrame:
        """Return the partial aggregates of each session; of a session that is one piece they are those of the piece."""
        several = sessions.sizes > 1
        number = np.full(sessions.count, -1, dtype=np.int64)
        number[several] = np.arange(np.count_nonzero(several))
        of_rows = number[sessions.of_rows()]
        rows = np.flatnonzero(of_rows >= 0)

        def merged(arrival: Index) -> pl.DataFrame:
            at = rows[np.argsort(arrival[rows])]
            pieces = partials[at].with_columns(pl.Series(_SESSION, of_rows[at]))
            return _in_order(self.split.checked(self.split.merge(pieces.lazy(), [_SESSION]).collect()), int(number.max()) + 1)

        made = merged(since)
        if newest := [p.name for p in self.split.parts if p.newest]:
            made = made.with_columns(merged(until).select(newest))
        return pl.concat([partials, made])[np.where(several, partials.height + number, sessions.first_rows)]

    def _pieces(self, rows: pl.DataFrame, sessions: Sessions, since: Index, until: Index, partials: pl.DataFrame) -> pl.DataFrame:
        start, end = self.bounds
        bounds = pl.DataFrame({start: sessions.start, end: sessions.end}).cast({name: rows.schema[name] for name in self.bounds})
        arrived = pl.DataFrame({SINCE: sessions.lowest(since), UNTIL: sessions.highest(until)})
        keys = rows.select(self.keys)[sessions.first_rows]
        return pl.concat([keys, bounds, arrived, partials], how="horizontal")


def _in_order(partials: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return the rows, one for each of the numbers below ``count``, by number."""
    place = np.empty(count, dtype=np.int64)
    place[partials[_SESSION].to_numpy()] = np.arange(count)
    return partials.drop(_SESSION)[place]
