"""Observes event times as they pass; the watermark moves after the batch (Spark: EventTimeWatermarkExec)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from microbatch.operators.base import Batch
from microbatch.plan.window import to_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTimes:
    """Event times that passed a watermark operator in one batch, microseconds; all None if no row had one."""

    max_us: int | None
    min_us: int | None
    mean_us: int | None


NOTHING_SEEN = EventTimes(max_us=None, min_us=None, mean_us=None)


class ObserveEventTime:
    """Passes all rows on and notes the largest, smallest and mean event time of the batch; null times are no times."""

    def __init__(self, operator_id: str, column: str, dtype: pl.Datetime, delay_us: int) -> None:
        self.operator_id = operator_id
        self.delay_us = delay_us
        self._time = to_micros(pl.col(column), dtype)
        self.seen = NOTHING_SEEN

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the rows unchanged; the figures ride along in the pass that reads them."""
        self.seen = NOTHING_SEEN
        time = self._time
        batch.observe(inputs[0].select(max=time.max(), min=time.min(), mean=time.mean().cast(pl.Int64)), self._take)
        return inputs[0]

    def _take(self, figures: pl.DataFrame) -> None:
        largest, smallest, mean = figures.row(0)
        self.seen = EventTimes(max_us=largest, min_us=smallest, mean_us=mean)
