"""When the rows of a join of two streams are dead, by its condition. Offsets by hand: microseconds against the watermark."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

import microbatch as mb
from microbatch.plan.marks import behind_us
from microbatch.plan.nodes import JoinStreams
from microbatch.plan.schema import bounds_of_join, event_times

LEFT: dict[str, Any] = {"k": pl.Int64, "t": pl.Datetime("us"), "v": pl.Int64}
RIGHT: dict[str, Any] = {"k": pl.Int64, "u": pl.Datetime("us"), "w": pl.Int64}
S = 1_000_000
t, u = pl.col("t"), pl.col("u")
TEN = pl.duration(seconds=10)


def joined(where: pl.Expr | None = None, **options: Any) -> JoinStreams:
    left = mb.MemoryStream(LEFT).frame().with_watermark("t", "1s")
    right = mb.MemoryStream(RIGHT).frame().with_watermark("u", "1s")
    plan = left.join(right, where=where, **({"on": "k"} | options)).plan
    assert isinstance(plan, JoinStreams)
    return plan


# A left row is dead when its time is at or before the watermark plus the first figure, a right row likewise with the second.
@pytest.mark.parametrize(
    ("where", "left_us", "right_us"),
    [
        (t > u - TEN, -10 * S + 1, None),  # u is a microsecond behind wm at least, so t is behind wm - 10 s by two
        (t >= u - TEN, -10 * S - 1, None),
        (u - TEN < t, -10 * S + 1, None),
        (u < t + TEN, -10 * S + 1, None),
        (t < u + TEN, None, -10 * S + 1),
        (t + TEN > u, -10 * S + 1, None),
        (t.is_between(u - TEN, u + pl.duration(seconds=5)), -10 * S - 1, -5 * S - 1),
        (t.is_between(u - TEN, u + pl.duration(seconds=5), closed="none"), -10 * S + 1, -5 * S + 1),
        (t == u + TEN, 10 * S - 1, -10 * S - 1),
        (u - t <= timedelta(seconds=10), -10 * S - 1, None),
        ((u - t) < 2 * pl.duration(seconds=5), -10 * S + 1, None),
        (u <= t.dt.offset_by("10s"), -10 * S - 1, None),
        ((t > u - TEN) & (t > u - pl.duration(seconds=3)), -10 * S + 1, None),  # the least of several
        (pl.all_horizontal(t > u - TEN, t < u), -10 * S + 1, 1),
        # what says nothing about the distance of the two times
        (t.dt.offset_by("1mo") > u, None, None),
        (t.dt.offset_by("1d") > u, None, None),
        (t > pl.lit("2024-01-01").str.to_datetime("%Y-%m-%d"), None, None),
        ((t > u - TEN) | (pl.col("v") > 0), None, None),
        (t + pl.duration(seconds=pl.col("v")) > u, None, None),
        (t.dt.truncate("1h") > u - TEN, None, None),
        (pl.col("v") > pl.col("w"), None, None),
        (t != u, None, None),
        (None, None, None),
    ],
)
def test_a_linear_condition_bounds_a_side(where: pl.Expr | None, left_us: int | None, right_us: int | None) -> None:
    bounds = bounds_of_join(joined(where))
    assert (bounds.key, bounds.left_us, bounds.right_us) == (None, left_us, right_us)


def test_event_time_among_the_keys_bounds_both_sides() -> None:
    assert bounds_of_join(joined(on=None, left_on=["k", "t"], right_on=["k", "u"])).key == 1
    assert bounds_of_join(joined(on=None, left_on=["k", "t"], right_on=["k", pl.col("u") + TEN])).key == 1
    assert bounds_of_join(joined(on=None, left_on=["k", pl.col("v")], right_on=["k", "w"])).key is None


def test_what_comes_out_is_behind_the_watermark_by_the_larger_bound() -> None:
    assert behind_us(joined(t.is_between(u - TEN, u + pl.duration(seconds=5)))) == 10 * S + 1
    assert behind_us(joined(t >= u + TEN)) == 0
    assert behind_us(joined(on=None, left_on=["k", "t"], right_on=["k", "u"])) == 0


def test_both_times_are_event_time_of_the_result() -> None:
    assert event_times(joined(t > u)) == {"t": False, "u": False}
    assert event_times(joined(t > u, how="semi")) == {"t": False}


def test_explain_tells_how_long_rows_are_kept() -> None:
    left = mb.MemoryStream(LEFT).frame().with_watermark("t", "1s")
    right = mb.MemoryStream(RIGHT).frame().with_watermark("u", "1s")
    text = left.join(right, on="k", where=t < u + TEN).explain().splitlines()[0]
    assert "left rows kept for ever, right rows kept until the watermark reaches u + 10 s" in text
    assert "until the watermark reaches" in left.join(right, left_on="t", right_on="u").explain().splitlines()[0]
