"""Sliding windows from panes: rows are reduced once per slide, and a window is put together from the panes it covers.

Instead of repeating each row in size/slide windows before the reduction (Krishnamurthy, Wu, Franklin: On-the-fly sharing for streamed
aggregation, 2006). Aggregates that ask for the order of arrival are left out: rows of two panes may have arrived in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from microbatch.operators.base import engine_for
from microbatch.plan.aggregates import SplitAggregate
from microbatch.plan.nodes import Aggregate, AssignWindow
from microbatch.plan.schema import schema_of
from microbatch.plan.window import assign_window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panes:
    """Puts windows together from panes; ``at`` is the node of the windows."""

    at: AssignWindow
    split: SplitAggregate
    keys: tuple[str, ...]

    @property
    def node(self) -> AssignWindow:
        """The node that gives rows their pane in the place of their windows."""
        return replace(self.at, window=replace(self.at.window, size_us=self.at.window.slide_us))

    def spread(self, panes: pl.LazyFrame) -> pl.LazyFrame:
        """Return each row, which stands in its pane, once per window it is in."""
        start = self.at.names[0]
        dtype = schema_of(self.at)[start]
        assert isinstance(dtype, pl.Datetime)
        return assign_window(panes, replace(self.at.window, time=pl.col(start)), self.at.names, dtype)

    def windows(self, panes: pl.DataFrame, *more: pl.Expr) -> pl.DataFrame:
        """Return partial aggregates per window from those per pane; ``more`` are aggregates of other columns."""
        merged = self.split.merge(self.spread(panes.lazy()), self.keys, *more)
        return self.split.checked(merged.collect(engine=engine_for(panes.height * self.at.window.per_row)))


def panes_of(node: Aggregate, split: SplitAggregate) -> Panes | None:
    """Return how an aggregation's windows are put together, None if it has no sliding windows, or must see them row by row."""
    at = node.input
    if not isinstance(at, AssignWindow) or at.window.per_row == 1 or at.window.size_us % at.window.slide_us:
        return None
    reads = {name for part in split.parts for name in part.reduce.meta.root_names()}
    if any(part.by_arrival for part in split.parts) or reads & set(at.names) or not set(at.names) <= set(node.keys):
        return None
    return Panes(at=at, split=split, keys=node.keys)
