"""Rows and aggregates cut into pieces and put together again, for the tests of split aggregates."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import polars as pl
import polars.selectors as cs
from polars.testing import assert_frame_equal

from microbatch.plan.aggregates import SplitAggregate
from microbatch.plan.partials import OLD

SCHEMA = pl.Schema(
    {
        "k": pl.String(), "i": pl.Int64(), "j": pl.Int16(), "f": pl.Float64(), "h": pl.Float32(), "s": pl.String(), "g": pl.Boolean(),
        "t": pl.Datetime("us"), "u": pl.UInt8(), "l": pl.List(pl.Int64()),
    }
)  # fmt: skip

TIME_TOLERANCE = 2  # microseconds: Polars adds up times as floats


def rows_of(rng: random.Random, n_rows: int) -> pl.DataFrame:
    start = datetime(2024, 1, 1)
    columns: dict[str, Callable[[], object]] = {
        "k": lambda: rng.choice([None, "x", "y", "z"]),
        "i": lambda: rng.choice([None, -5, 0, 1, 1, 2, 3]),
        "j": lambda: rng.choice([None, -300, 0, 7, 1000]),
        "f": lambda: rng.choice([None, float("nan"), -0.0, 0.0, 1.5, -2.25, 1e6]),
        "h": lambda: rng.choice([None, 0.5, -1.5, 2.0]),
        "s": lambda: rng.choice([None, "", "a", "b", "c"]),
        "g": lambda: rng.choice([None, True, True, False]),
        "t": lambda: rng.choice([None, start, start - timedelta(days=20_000, microseconds=1), start + timedelta(hours=5)]),
        "u": lambda: rng.randrange(6),
        "l": lambda: rng.choice([None, [], [1], [2, None]]),
    }
    return pl.DataFrame({name: [draw() for _ in range(n_rows)] for name, draw in columns.items()}, schema=SCHEMA)


def reduced(split: SplitAggregate, rows: pl.DataFrame, keys: list[str], engine: Literal["in-memory", "streaming"]) -> pl.DataFrame:
    piece = split.checked(split.reduce(rows.lazy(), keys).collect(engine=engine))
    assert dict(list(piece.schema.items())[len(keys) :]) == dict(split.state_schema)
    return piece


def merged(split: SplitAggregate, older: pl.DataFrame, newer: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return split.checked(split.merge(pl.concat([older, newer]).lazy(), keys).collect())


def paired(split: SplitAggregate, older: pl.DataFrame, newer: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    held = older.rename({name: name + OLD for name in split.state_schema})
    if not keys:
        return split.checked(split.combine(newer.hstack(held)))
    pairs = newer.join(held, on=keys, how="left", nulls_equal=True, maintain_order="left")
    both = split.checked(split.combine(pairs))
    assert_frame_equal(both.select(keys), newer.select(keys))
    return pl.concat([older.join(newer, on=keys, how="anti", nulls_equal=True), both])


def in_pieces(split: SplitAggregate, rows: pl.DataFrame, keys: list[str], rng: random.Random) -> pl.DataFrame:
    """Return the result put together from random pieces in a random order of neighbours, by merging and by pairing."""
    cuts = [0, *sorted(rng.randrange(rows.height + 1) for _ in range(rng.randrange(5))), rows.height]
    engine: Literal["in-memory", "streaming"] = rng.choice(["in-memory", "streaming"])
    pieces = [reduced(split, rows[start:end], keys, engine) for start, end in itertools.pairwise(cuts)]
    while len(pieces) > 1:
        at = rng.randrange(len(pieces) - 1)
        join = rng.choice([merged, paired])
        pieces[at : at + 2] = [join(split, pieces[at], pieces[at + 1], keys)]
    return split.finish(pieces[0], keys)


def plainly(aggs: list[pl.Expr], rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return rows.group_by(keys).agg(aggs) if keys else rows.select(aggs)


def assert_same(left: pl.DataFrame, right: pl.DataFrame, keys: list[str]) -> None:
    """Compare by key; integers that only differ in width, Float32 to 1e-5, times to the microsecond or two."""
    assert left.columns == right.columns
    loose = (
        left.with_columns(cs.temporal().to_physical().cast(pl.Float64)),
        right.cast(left.schema).with_columns(cs.temporal().to_physical().cast(pl.Float64)),
    )
    tolerance = 1e-5 if pl.Float32 in left.dtypes else 1e-9
    in_order = [frame.sort(keys) if keys else frame for frame in loose]
    times = bool(left.select(cs.temporal()).columns)
    assert_frame_equal(*in_order, rel_tol=0 if times else tolerance, abs_tol=TIME_TOLERANCE if times else tolerance)


def frame_of(columns: Mapping[str, Sequence[object]]) -> pl.DataFrame:
    n_rows = len(next(iter(columns.values())))
    return pl.DataFrame({name: columns.get(name, [None] * n_rows) for name in SCHEMA}, schema=SCHEMA)


def pieces_of(split: SplitAggregate, batches: list[pl.DataFrame]) -> pl.DataFrame:
    pieces = [reduced(split, rows, [], "in-memory") for rows in batches]
    result = pieces[0]
    for piece in pieces[1:]:
        result = paired(split, result, piece, [])
    return split.finish(result, [])
