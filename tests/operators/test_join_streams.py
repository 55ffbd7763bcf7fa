"""Joins of two streams against a model that works row by row, batch for batch, with restarts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb
from tests.operators.join_model import Model, Row

LEFT: dict[str, Any] = {"k": pl.String, "t": pl.Datetime("us"), "v": pl.Int64}
RIGHT: dict[str, Any] = {"k": pl.String, "u": pl.Datetime("us"), "w": pl.Int64}
BEGIN = datetime(2024, 1, 1)
SECOND = 1_000_000
Holds = Callable[[Row], bool]
Dead = Callable[[Row, int], bool]


def always(row: Row) -> bool:
    return True


def never(row: Row, mark: int) -> bool:
    return False


def dead_behind(us: int) -> Dead:
    """Return that a row is dead when its time is at or before the watermark less so much."""
    return lambda row, mark: row[1] is not None and row[1] <= mark - us


@dataclass(frozen=True, kw_only=True)
class Case:
    """A condition as users write it and as the model knows it; ``hows`` are the joins it bounds."""

    options: dict[str, Any]
    meets: Callable[[Row, Row], bool]
    left_dead: Dead
    right_dead: Dead
    left_holds: Holds = always
    right_holds: Holds = always
    keys: tuple[int, ...] = (0,)
    hows: tuple[str, ...] = ("inner", "left", "right", "full", "semi", "anti")


def timed(meets: Callable[[int, int], bool]) -> Callable[[Row, Row], bool]:
    return lambda a, b: a[1] is not None and b[1] is not None and meets(a[1], b[1])


LATER = pl.col("u").is_between(pl.col("t") - pl.duration(seconds=5), pl.col("t") + pl.duration(seconds=20), closed="right")
CASES = {
    # the range is inclusive: one microsecond more
    "within": Case(
        options={"within": "10s"},
        meets=timed(lambda t, u: abs(t - u) <= 10 * SECOND),
        left_dead=dead_behind(10 * SECOND + 1),
        right_dead=dead_behind(10 * SECOND + 1),
    ),
    # u > t - 5 s is strict: left rows wait for u up to t + 20 s, right ones for t below u + 5 s, a microsecond less
    "range and values": Case(
        options={"where": LATER & (pl.col("v") <= pl.col("w")) & (pl.col("v") > -2) & (pl.col("w") < 2)},
        meets=lambda a, b: timed(lambda t, u: -5 * SECOND < u - t <= 20 * SECOND)(a, b) and a[2] <= b[2],
        left_dead=dead_behind(20 * SECOND + 1),
        right_dead=dead_behind(5 * SECOND - 1),
        left_holds=lambda row: row[2] is not None and row[2] > -2,
        right_holds=lambda row: row[2] is not None and row[2] < 2,
    ),
    "equal times": Case(
        options={"left_on": ["k", "t"], "right_on": ["k", "u"]},
        meets=lambda a, b: True,
        keys=(0, 1),
        left_dead=dead_behind(0),
        right_dead=dead_behind(0),
    ),
    # u > t + 3 s: a right row dies when the watermark is a microsecond before u - 3 s, a left one never
    "one direction": Case(
        options={"where": pl.col("u") - pl.col("t") > pl.duration(seconds=3)},
        meets=timed(lambda t, u: u - t > 3 * SECOND),
        left_dead=never,
        right_dead=dead_behind(-3 * SECOND - 1),
        hows=("inner", "right", "full"),
    ),
    "no bound": Case(options={}, meets=lambda a, b: True, left_dead=never, right_dead=never, hows=("inner",)),
}
POINTS = [(name, how) for name, case in CASES.items() for how in case.hows]


def equal_keys(a: Row, b: Row, keys: tuple[int, ...], nulls_equal: bool) -> bool:
    return all(a[k] == b[k] and (nulls_equal or a[k] is not None) for k in keys)


def kept_rows(model: Model, keys: tuple[int, ...], nulls_equal: bool) -> int:
    """Return how many rows are in the state; one with a null key can meet none, so it is there only if that must be told."""
    sides = ((model.left, model.how in ("left", "full")), (model.right, model.how in ("right", "full")))
    return sum(preserved or nulls_equal or None not in [kept.row[k] for k in keys] for side, preserved in sides for kept in side)


def random_batch(rng: random.Random, second: int, spread: int) -> list[Row]:
    return [
        (
            rng.choice(["a", "b", "c", None]),
            None if rng.random() < 0.05 else (second + rng.randrange(-spread, spread)) * SECOND,
            rng.choice([None, *range(-3, 4)]),
        )
        for _ in range(rng.randrange(0, 9))
    ]


def frame(rows: list[Row], schema: dict[str, Any]) -> pl.DataFrame:
    placed = [(k, None if t is None else BEGIN + timedelta(microseconds=t), v) for k, t, v in rows]
    return pl.DataFrame(placed, schema=schema, orient="row")


def micros(row: Row) -> Row:
    return tuple((v - BEGIN) // timedelta(microseconds=1) if isinstance(v, datetime) else v for v in row)


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=repr)


class Marks:
    """The watermark of two inputs, each a largest time less a delay: the lower one counts once both have one, and it never falls."""

    def __init__(self, delays: tuple[int, int]) -> None:
        self.delays = delays
        self.own: list[int | None] = [None, None]
        self.mark: int | None = None

    def observe(self, batches: tuple[list[Row], list[Row]]) -> None:
        for k, rows in enumerate(batches):
            times = [row[1] for row in rows if row[1] is not None]
            if times:
                reached = max(times) - self.delays[k] * SECOND
                before = self.own[k]
                self.own[k] = reached if before is None else max(before, reached)
        if self.own[0] is not None and self.own[1] is not None:
            reached = min(self.own[0], self.own[1])
            self.mark = reached if self.mark is None else max(self.mark, reached)


def play(case: Case, how: str, rng: random.Random, folder: Path) -> None:
    nulls_equal, no_data = rng.random() < 0.3, rng.random() < 0.6
    delays = (rng.randrange(0, 8), rng.randrange(0, 8))
    lefts, rights, out = mb.MemoryStream(LEFT), mb.MemoryStream(RIGHT), mb.MemorySink()
    options = {"coalesce": False} | ({} if "left_on" in case.options else {"on": "k"}) | case.options
    joined = lefts.frame().with_watermark("t", f"{delays[0]}s")
    joined = joined.join(rights.frame().with_watermark("u", f"{delays[1]}s"), how=how, nulls_equal=nulls_equal, **options)
    query = joined.sink_memory(out, checkpoint=folder / "checkpoint", no_data_batches=no_data)
    model = Model(
        how=how,
        meets=lambda a, b: equal_keys(a, b, case.keys, nulls_equal) and case.meets(a, b),
        left_holds=case.left_holds,
        right_holds=case.right_holds,
        left_dead=case.left_dead,
        right_dead=case.right_dead,
    )
    marks, late, expected = Marks(delays), None, list[list[Row]]()
    ends = (case.left_dead, case.right_dead) != (never, never)
    handle = None
    for k in range(9):
        spread = rng.choice([1, 6, 20])
        batches = random_batch(rng, 6 * k, spread), random_batch(rng, 6 * k + rng.choice([0, 4, -10]), spread)
        if not batches[0] and not batches[1]:
            continue
        mb.MemoryStream.add_together({lefts: frame(batches[0], LEFT), rights: frame(batches[1], RIGHT)})
        if handle is None or rng.random() < 0.3:
            if handle is not None:
                handle.stop()
            handle = query.start()
        handle.process_all_available()
        expected.append(model.batch(*batches, late, marks.mark))
        late = marks.mark
        marks.observe(batches)
        if no_data and ends and marks.mark is not None and (late is None or marks.mark > late):
            expected.append(model.batch([], [], late, marks.mark))
            late = marks.mark
        if how not in ("semi", "anti"):  # which forget matched rows earlier
            assert handle.last_progress is not None
            assert handle.last_progress["stateOperators"][0]["numRowsTotal"] == kept_rows(model, case.keys, nulls_equal)
    if handle is not None:
        handle.stop()
    found = [in_order([micros(row) for row in rows.rows()]) for _, rows in out.batches()]
    assert found == [in_order(rows) for rows in expected]


@pytest.mark.parametrize(("name", "how"), POINTS)
def test_each_batch_gives_what_the_rows_one_by_one_give(tmp_path: Path, name: str, how: str) -> None:
    for seed in range(2):
        play(CASES[name], how, random.Random(f"{name} {how} {seed}"), tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), POINTS)
def test_many_more_batches_give_what_the_rows_one_by_one_give(tmp_path: Path, name: str, how: str) -> None:
    for seed in range(100, 160):
        play(CASES[name], how, random.Random(f"{name} {how} {seed}"), tmp_path / str(seed))
