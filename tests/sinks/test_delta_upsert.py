"""Upserts by key: any key type, null and NaN keys, keys spread over files."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from microbatch.errors import PlanError
from microbatch.sinks.delta_upsert import check_keys, one_row_per_key, same_key

NAN = float("nan")
DRAW: dict[pl.DataType, Callable[[random.Random], Any]] = {
    pl.String(): lambda r: r.choice(["", "a", "ü'\"\\", "x" * 40 + "1", "x" * 40 + "2"]),
    pl.Int8(): lambda r: r.randint(-128, 127),
    pl.Int64(): lambda r: r.choice([-(2**62) - 1, 2**62 + 1, 2**62 + 3, r.randint(-5, 5)]),
    pl.Boolean(): lambda r: r.random() < 0.5,
    pl.Float64(): lambda r: r.choice([NAN, 0.0, -0.0, 1.5, float("inf"), float("-inf")]),
    pl.Float32(): lambda r: r.choice([NAN, 0.0, -0.0, 1.5]),
    pl.Decimal(38, 3): lambda r: Decimal(
        r.choice(["12345678901234567890123456789.123", "12345678901234567890123456789.124", "-0.001", "7"])
    ),
    pl.Binary(): lambda r: r.choice([b"", b"\xff\x00", b"a"]),
    pl.Date(): lambda r: date(1960, 1, 1) + timedelta(days=r.randint(0, 4)),
    pl.Datetime("us"): lambda r: (
        datetime(1969, 12, 31, 23, 59, 59, 999_998, UTC).replace(tzinfo=None) + timedelta(microseconds=r.randint(0, 4))
    ),
    pl.Datetime("us", "UTC"): lambda r: datetime(2024, 1, 1, 0, 0, 0, 456_789, UTC) + timedelta(microseconds=r.randint(0, 4)),
}


def upsert(table: Path, rows: pl.DataFrame, keys: list[str]) -> None:
    rows = one_row_per_key(rows, keys)
    merge = DeltaTable(table).merge(rows, same_key(rows, keys), source_alias="s", target_alias="t", streamed_exec=False)
    merge.when_matched_update_all().when_not_matched_insert_all().execute()


@pytest.mark.parametrize("with_nulls", [False, True])
@pytest.mark.parametrize("dtype", DRAW, ids=str)
def test_last_row_of_a_key_stands_whatever_its_type_and_file(tmp_path: Path, dtype: pl.DataType, with_nulls: bool) -> None:
    rng = random.Random(str(dtype))
    batches = [
        pl.DataFrame(
            {"k": [None if with_nulls and rng.random() < 0.3 else DRAW[dtype](rng) for _ in range(3)], "v": [n * 3 + i for i in range(3)]},
            schema={"k": dtype, "v": pl.Int64},
        )
        for n in range(5)
    ]
    write_deltalake(tmp_path, one_row_per_key(batches[0], ["k"]))
    for rows in batches[1:]:
        upsert(tmp_path, rows, ["k"])
    expected = pl.concat(batches).unique("k", keep="last")
    assert_frame_equal(pl.read_delta(str(tmp_path)).sort("v"), expected.sort("v"))


def test_null_is_a_key_of_its_own_in_each_column(tmp_path: Path) -> None:
    first = pl.DataFrame({"a": [None, "x", None, ""], "b": [1, None, None, 0], "v": [1, 2, 3, 4]})
    write_deltalake(tmp_path, first)
    upsert(tmp_path, first.with_columns(pl.col("v") * 10), ["a", "b"])
    assert_frame_equal(pl.read_delta(str(tmp_path)).sort("v"), first.with_columns(pl.col("v") * 10))


def test_null_partition_is_found(tmp_path: Path) -> None:
    rows = pl.DataFrame({"p": ["a", None], "v": [1, 2]})
    write_deltalake(tmp_path, rows, partition_by=["p"])
    upsert(tmp_path, pl.DataFrame({"p": [None, "b"], "v": [20, 30]}), ["p"])
    assert_frame_equal(pl.read_delta(str(tmp_path)).sort("v"), pl.DataFrame({"p": ["a", None, "b"], "v": [1, 20, 30]}))


@pytest.mark.parametrize("name", ["Country", "a.b", "select", 'q"x', "ü-é", "t", "s"])
def test_column_names_are_taken_literally(tmp_path: Path, name: str) -> None:
    rows = pl.DataFrame({name: [1, 2], "v": [1, 2]})
    write_deltalake(tmp_path, rows)
    upsert(tmp_path, pl.DataFrame({name: [2], "v": [20]}), [name])
    assert sorted(pl.read_delta(str(tmp_path)).rows()) == [(1, 1), (2, 20)]


def test_files_without_the_keys_are_left_alone(tmp_path: Path) -> None:
    for day in range(4):
        write_deltalake(tmp_path, pl.DataFrame({"day": [date(2024, 1, 1 + day)], "k": ["a"], "v": [0]}), mode="append")
    before = set(DeltaTable(tmp_path).file_uris())
    upsert(tmp_path, pl.DataFrame({"day": [date(2024, 1, 4)], "k": ["a"], "v": [1]}), ["day", "k"])
    assert len(before & set(DeltaTable(tmp_path).file_uris())) == 3


def test_last_row_of_a_key_wins_within_a_batch() -> None:
    rows = pl.DataFrame({"k": [NAN, None, 0.0, NAN, None, -0.0], "v": [1, 2, 3, 4, 5, 6]})
    kept = one_row_per_key(rows, ["k"])
    assert kept["v"].to_list() == [4, 5, 6]
    assert str(kept["k"].to_list()) == "[nan, None, 0.0]"


def test_backtick_in_a_name_is_refused() -> None:
    with pytest.raises(PlanError, match=r"\['x`y'\]: a backtick"):
        check_keys(["k"], pl.Schema({"k": pl.Int64, "x`y": pl.Int64}))
