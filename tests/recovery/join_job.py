"""The job of the crash matrix that joins: each row with rows of its key that are negative and at most two seconds away, or alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

import microbatch as mb

APART = timedelta(seconds=2)
ORDER = ["at", "key", "n", "at_right", "n_right"]
_IS_RIGHT = pl.col("n") < 0


def joined(events: mb.StreamFrame) -> mb.StreamFrame:
    """Return the left outer join of the rows that are not negative with those that are."""
    return events.filter(~_IS_RIGHT).join(events.filter(_IS_RIGHT), on="key", how="left", within=APART, name="pairs")


def expected(events: pl.DataFrame, watermark: datetime) -> pl.DataFrame:
    """Return the pairs of all rows, and the rows without one that can get none any more."""
    left, right = events.filter(~_IS_RIGHT).with_row_index("row"), events.filter(_IS_RIGHT)
    pairs = left.join(right, on="key").filter((pl.col("at") - pl.col("at_right")).abs() <= APART)
    alone = left.filter(~pl.col("row").is_in(pairs["row"].implode()), pl.col("at") < watermark - APART)
    return pl.concat([pairs, alone], how="diagonal").select(ORDER)


def kept(events: pl.DataFrame, watermark: datetime) -> pl.DataFrame:
    """Return the rows that may still meet others: those that are not negative, then the others."""
    return events.filter(pl.col("at") >= watermark - APART).select("at", "key", "n")


def state(checkpoint: Path) -> pl.DataFrame:
    """Return the rows in the state of both sides."""
    left, right = mb.read_state(checkpoint, "pairs/left"), mb.read_state(checkpoint, "pairs/right")
    return pl.concat([left, right.rename(lambda name: name.removesuffix("_right"))]).select("at", "key", "n").collect()
