from __future__ import annotations

import random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.testing.generate import random_cuts, random_rows

EVERY_TYPE = pl.Schema(
    {
        "bool": pl.Boolean(),
        "i8": pl.Int8(),
        "i64": pl.Int64(),
        "u64": pl.UInt64(),
        "i128": pl.Int128(),
        "f32": pl.Float32(),
        "f64": pl.Float64(),
        "decimal": pl.Decimal(12, 3),
        "string": pl.String(),
        "binary": pl.Binary(),
        "category": pl.Categorical(),
        "enum": pl.Enum(["low", "high"]),
        "date": pl.Date(),
        "time": pl.Time(),
        "ms": pl.Datetime("ms"),
        "us": pl.Datetime("us", "Europe/Berlin"),
        "ns": pl.Datetime("ns"),
        "duration": pl.Duration("ns"),
        "list": pl.List(pl.Int16()),
        "array": pl.Array(pl.Float64(), 2),
        "struct": pl.Struct({"a": pl.String(), "b": pl.List(pl.Date())}),
        "null": pl.Null(),
    }
)


@pytest.mark.parametrize("n_rows", [0, 1, 300])
def test_frame_has_the_asked_schema_and_height(n_rows: int) -> None:
    rows = random_rows(random.Random(7), EVERY_TYPE, n_rows=n_rows)
    assert rows.schema == EVERY_TYPE
    assert rows.height == n_rows


def test_same_seed_gives_the_same_frame() -> None:
    first = random_rows(random.Random(3), EVERY_TYPE, n_rows=100)
    assert_frame_equal(first, random_rows(random.Random(3), EVERY_TYPE, n_rows=100))


def test_another_seed_gives_another_frame() -> None:
    one, other = (random_rows(random.Random(seed), {"n": pl.Float64}, n_rows=50) for seed in (1, 2))
    assert not one.equals(other)


def test_nulls_come_as_often_as_asked() -> None:
    schema = {"n": pl.Int64, "s": pl.String}
    assert random_rows(random.Random(1), schema, n_rows=100, null_share=0).null_count().row(0) == (0, 0)
    assert random_rows(random.Random(1), schema, n_rows=100, null_share=1).null_count().row(0) == (100, 100)


def test_integers_reach_both_ends_of_their_type() -> None:
    values = random_rows(random.Random(1), {"n": pl.Int8}, n_rows=400)["n"]
    assert (values.min(), values.max()) == (-128, 127)


def test_floats_hold_nan_and_both_infinities() -> None:
    values = random_rows(random.Random(1), {"x": pl.Float64}, n_rows=400)["x"]
    assert values.is_nan().any()
    assert set(values.filter(values.is_infinite())) == {float("inf"), float("-inf")}


def test_without_extremes_floats_are_finite_and_texts_are_words() -> None:
    rows = random_rows(random.Random(1), {"x": pl.Float64, "s": pl.String}, n_rows=400, null_share=0, extreme_share=0)
    assert rows["x"].is_finite().all()
    assert rows["s"].str.contains("^[a-z]+$").all()


def test_few_distinct_values_make_groups() -> None:
    rows = random_rows(random.Random(1), {"key": pl.Int64}, n_rows=400, null_share=0, extreme_share=0, n_distinct=3)
    assert rows["key"].n_unique() <= 3


def test_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no random values for the type Object"):
        random_rows(random.Random(1), {"o": pl.Object}, n_rows=1)


@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_the_frame_in_order(seed: int) -> None:
    rng = random.Random(seed)
    frame = random_rows(rng, {"n": pl.Int64, "s": pl.String}, n_rows=rng.randint(0, 20))
    pieces = random_cuts(rng, frame, max_batches=5)
    assert 1 <= len(pieces) <= 5
    assert_frame_equal(pl.concat(pieces), frame)


def test_some_cuts_leave_a_piece_without_rows() -> None:
    frame = pl.DataFrame({"n": range(5)})
    heights = {piece.height for seed in range(20) for piece in random_cuts(random.Random(seed), frame)}
    assert 0 in heights
