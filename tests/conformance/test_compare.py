"""The comparison of rows: what counts as the same."""

from __future__ import annotations

import polars as pl

from tests.conformance.compare import difference, rows_of


def times(*micros: int | None) -> pl.DataFrame:
    return pl.DataFrame({"t": micros}, schema={"t": pl.Int64}).cast(pl.Datetime("us"))


def test_rows_are_compared_as_bags() -> None:
    assert difference([[1], [2], [2]], [[2], [1], [2]]) is None
    assert difference([[1], [2]], [[2], [1], [2]]) is not None
    assert difference([[1], [1]], [[1]]) is not None


def test_order_counts_when_asked_for() -> None:
    assert difference([[1], [2]], [[2], [1]], ordered=True) is not None


def test_floats_may_differ_in_their_last_bits() -> None:
    assert difference([[0.3]], [[0.1 + 0.2]]) is None
    assert difference([[0.3]], [[0.3001]]) is not None
    assert difference([[float("nan")]], [[float("nan")]]) is None


def test_an_int_is_not_a_float_and_not_a_bool() -> None:
    assert difference([[1.0]], [[1]]) is not None
    assert difference([[1]], [[1.0]]) is not None
    assert difference([[1]], [[True]]) is not None


def test_null_equals_null_only() -> None:
    assert difference([[None, 1]], [[None, 1]]) is None
    assert difference([[None]], [[0]]) is not None
    assert difference([[None]], [[""]]) is not None


def test_times_are_seconds_or_milliseconds_since_1970() -> None:
    frame = times(10_000_000, -1_000_000, None)
    assert rows_of(frame) == [[10], [-1], [None]]
    assert rows_of(frame, per_second=1_000) == [[10_000], [-1_000], [None]]


def test_half_a_second_is_a_float_of_seconds() -> None:
    assert rows_of(times(500_000)) == [[0.5]]


def test_structs_and_lists_are_lists() -> None:
    frame = times(0).select(pl.struct(start="t", end=pl.col("t") + pl.duration(seconds=5)), l=pl.lit([1, 2]))
    assert rows_of(frame) == [[[0, 5], [1, 2]]]
