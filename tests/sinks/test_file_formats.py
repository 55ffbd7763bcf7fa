from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.errors import PlanError
from microbatch.sinks.file_formats import format_named
from microbatch.testing.generate import random_rows

SIMPLE: dict[str, pl.DataType] = {
    "bool": pl.Boolean(),
    "i8": pl.Int8(),
    "i16": pl.Int16(),
    "i64": pl.Int64(),
    "u8": pl.UInt8(),
    "u64": pl.UInt64(),
    "f32": pl.Float32(),
    "f64": pl.Float64(),
    "text": pl.String(),
    "category": pl.Categorical(),
    "enum": pl.Enum(["low", "high"]),
    "date": pl.Date(),
    "ms": pl.Datetime("ms"),
    "us": pl.Datetime("us"),
    "ns": pl.Datetime("ns"),
    "utc": pl.Datetime("us", "UTC"),
}
EXACT: dict[str, pl.DataType] = {"decimal": pl.Decimal(12, 3), "time": pl.Time(), "i128": pl.Int128()}
NESTED: dict[str, pl.DataType] = {
    "list": pl.List(pl.Int16()),
    "array": pl.Array(pl.Int64(), 2),
    "struct": pl.Struct({"a": pl.String(), "b": pl.List(pl.Date()), "c": pl.Int8()}),
    "null": pl.Null(),
}
# As text the offset of a zone has no seconds, as local times before 1900 need; so csv has this one in ordinary years only.
ZONED: dict[str, pl.DataType] = {"berlin": pl.Datetime("us", "Europe/Berlin")}
BINARY: dict[str, pl.DataType] = {"bytes": pl.Binary(), "duration": pl.Duration("us")}
HELD = {
    "parquet": SIMPLE | EXACT | NESTED | BINARY | ZONED,
    "ipc": SIMPLE | EXACT | NESTED | BINARY | ZONED,
    "csv": SIMPLE | EXACT,
    "ndjson": SIMPLE | NESTED | ZONED,
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", HELD)
def test_rows_come_back_as_they_were(kind: str, seed: int, tmp_path: Path) -> None:
    schema = pl.Schema(HELD[kind])
    # Json has no NaN, and its reader no years before 1000; both are tested apart.
    rows = random_rows(random.Random(seed), schema, n_rows=40, extreme_share=0.0 if kind == "ndjson" else 0.1)
    chosen = format_named(kind)
    chosen.check_schema(schema)
    files = [tmp_path / f"{k}{chosen.suffix}" for k in range(2)]
    chosen.write(rows.head(15), files[0], {})
    chosen.write(rows.slice(15), files[1], {})
    seen = chosen.scan([str(file) for file in files], schema, {}, ()).collect()
    assert_frame_equal(seen, rows, check_exact=True)


def test_csv_keeps_ordinary_times_of_a_zone(tmp_path: Path) -> None:
    rows = random_rows(random.Random(1), ZONED, n_rows=40, extreme_share=0)
    chosen = format_named("csv")
    chosen.write(rows, tmp_path / "a.csv", {})
    assert_frame_equal(chosen.scan([str(tmp_path / "a.csv")], rows.schema, {}, ()).collect(), rows)


def test_csv_is_read_with_the_options_it_was_written_with(tmp_path: Path) -> None:
    rows = pl.DataFrame({"text": ["a;b", "it's", None, ""], "n": [1, None, 3, 4]})
    chosen, options = format_named("csv"), {"separator": ";", "quote_char": "'", "null_value": "NA"}
    chosen.write(rows, tmp_path / "a.csv", options)
    assert (tmp_path / "a.csv").read_text().splitlines()[:2] == ["text;n", "'a;b';1"]
    assert_frame_equal(chosen.scan([str(tmp_path / "a.csv")], rows.schema, chosen.reading_options(options), ()).collect(), rows)


@pytest.mark.parametrize(
    ("kind", "dtype", "message"),
    [
        (
            "csv",
            pl.List(pl.Int64()),
            r"csv files cannot hold column 'c' of type List\(Int64\); write format=\"parquet\", or turn it into .*list.join",
        ),
        ("csv", pl.Struct({"a": pl.Int64()}), r"of type Struct\(.*pl.col\('c'\).struct.json_encode\(\)"),
        ("csv", pl.Array(pl.Int64(), 2), r"pl.col\('c'\).arr.to_list\(\)"),
        ("csv", pl.Binary(), r"pl.col\('c'\).bin.encode\(\"base64\"\)"),
        ("csv", pl.Duration("us"), r"pl.col\('c'\).dt.total_microseconds\(\)"),
        ("csv", pl.Null(), r"pl.col\('c'\).cast\(pl.String\)"),
        ("ndjson", pl.Binary(), r"ndjson files cannot hold column 'c' of type Binary"),
        ("ndjson", pl.List(pl.Binary()), r"ndjson files cannot hold column 'c' of type List\(Binary\)"),
        ("ndjson", pl.Struct({"a": pl.Decimal(10, 2)}), r"ndjson files cannot hold column 'c'"),
        ("ndjson", pl.Time(), r"ndjson files cannot hold column 'c' of type Time; .*cast\(pl.String\)"),
        ("ndjson", pl.Int128(), r"ndjson files cannot hold column 'c' of type Int128"),
        ("parquet", pl.Struct([]), r"parquet files cannot hold column 'c' of type Struct.*; write format=\"ipc\""),
        ("parquet", pl.Object(), r"parquet files cannot hold column 'c' of type Object, or turn it into .*map_elements\(str"),
        ("ipc", pl.Object(), "ipc files cannot hold column 'c' of type Object"),
    ],
)
def test_type_a_format_cannot_hold_is_refused_with_a_way_out(kind: str, dtype: pl.DataType, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        format_named(kind).check_schema(pl.Schema({"n": pl.Int64(), "c": dtype}))


@pytest.mark.parametrize(
    ("dtype", "code"),
    [
        (pl.List(pl.Int64()), 'pl.col("c").cast(pl.List(pl.String)).list.join(",")'),
        (pl.Array(pl.Int64(), 2), 'pl.col("c").arr.to_list().cast(pl.List(pl.String)).list.join(",")'),
        (pl.Struct({"a": pl.Int64()}), 'pl.col("c").struct.json_encode()'),
        (pl.Binary(), 'pl.col("c").bin.encode("base64")'),
        (pl.Duration("us"), 'pl.col("c").dt.total_microseconds()'),
        (pl.Null(), 'pl.col("c").cast(pl.String)'),
    ],
)
def test_the_way_out_works(dtype: pl.DataType, code: str, tmp_path: Path) -> None:
    rows = random_rows(random.Random(1), {"c": dtype}, n_rows=5)
    turned: Any = eval(code)
    format_named("csv").check_schema(rows.select(turned).schema)


def test_numbers_json_does_not_know_are_counted() -> None:
    rows = pl.DataFrame({"x": [1.0, float("nan"), None], "y": [float("inf"), 2.0, float("-inf")], "n": [1, 2, 3]})
    assert format_named("ndjson").n_lost_numbers(rows) == 3
    assert format_named("ndjson").n_lost_numbers(rows.select("n")) == 0
    assert format_named("ndjson").n_lost_numbers(rows.clear()) == 0
    assert format_named("csv").n_lost_numbers(rows) == 0
