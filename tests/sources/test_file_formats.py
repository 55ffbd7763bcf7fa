"""Names, options and dtypes of the formats."""

from __future__ import annotations

import itertools
from typing import Any

import polars as pl
import pytest

from microbatch.errors import PlanError
from microbatch.sources.file_formats import check_dtypes, check_options, common_format, format_named, format_of, mismatch

INTEGERS = [pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.UInt64()]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.csv", "csv"), ("a.CSV.gz", "csv"), ("a.csv.zst", "csv"), ("a.json", "ndjson"), ("a.ndjson", "ndjson"), ("a.jsonl.gz", "ndjson"),
        ("a.parquet", "parquet"), ("a.parquet.gz", None),
        ("a.arrow", "ipc"), ("a.feather", "ipc"), ("a.txt", "text"), ("a", None), ("a.gz", None),
        ("s3://b.csv/a", None),
    ],
)  # fmt: skip
def test_format_by_extension(path: str, expected: str | None) -> None:
    assert format_of(path) == expected


def test_formats_have_other_names() -> None:
    assert [format_named(name) for name in ("json", "Arrow", "feather", "CSV")] == ["ndjson", "ipc", "ipc", "csv"]


def test_an_unknown_format_is_refused_with_a_hint() -> None:
    with pytest.raises(
        PlanError, match=r"unknown format: 'parquett' \(did you mean 'parquet'\?\); known are csv, ndjson, parquet, ipc, text"
    ):
        format_named("parquett")


def test_files_of_two_formats_are_ambiguous() -> None:
    with pytest.raises(PlanError, match=r"in: the extensions do not tell one format: a\.csv \(csv\) and b\.json \(ndjson\); say format="):
        common_format(["a.csv", "b.json"], "in")
    with pytest.raises(PlanError, match="no file yet"):
        common_format([], "in")


def test_unknown_format_options_are_refused() -> None:
    with pytest.raises(PlanError, match=r"option of csv in format_options: 'seperator' \(did you mean 'separator'\?\)"):
        check_options("csv", {"seperator": ";"})
    with pytest.raises(PlanError, match="option of parquet in format_options: 'separator'; known are none"):
        check_options("parquet", {"separator": ";"})


@pytest.mark.parametrize(
    ("file_format", "dtype"), [("csv", pl.List(pl.Int64)), ("csv", pl.Duration("us")), ("ndjson", pl.Time), ("ndjson", pl.Binary)]
)
def test_dtypes_without_a_parser_are_refused(file_format: str, dtype: Any) -> None:
    with pytest.raises(PlanError, match=f"column 'x': {file_format} cannot be read as .*; declare it as String or Int64"):
        check_dtypes(file_format, pl.Schema({"x": dtype}))


def test_text_has_one_column() -> None:
    check_dtypes("text", pl.Schema({"value": pl.String}))
    with pytest.raises(PlanError, match="text files have one column, value"):
        check_dtypes("text", pl.Schema({"line": pl.String}))


def bounds(dtype: pl.DataType) -> tuple[int, int]:
    bits = int(str(dtype).lstrip("UInt"))
    return (0, 2**bits - 1) if str(dtype).startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@pytest.mark.parametrize(("found", "wanted"), list(itertools.product(INTEGERS, INTEGERS)))
def test_integers_fit_where_the_range_does(found: pl.DataType, wanted: pl.DataType) -> None:
    (low, high), (wanted_low, wanted_high) = bounds(found), bounds(wanted)
    fits = mismatch({"a": found}, pl.Schema({"a": wanted})) is None
    assert fits == (wanted_low <= low and high <= wanted_high)


def test_a_mismatch_names_the_column_and_both_types() -> None:
    schema = pl.Schema({"a": pl.Int64(), "b": pl.String()})
    assert mismatch({"a": pl.Int64(), "b": pl.String()}, schema) is None
    assert mismatch({"b": None, "a": None}, schema) is None
    assert mismatch({"a": pl.Float64(), "b": pl.String()}, schema) == "column 'a' is Float64, the schema says Int64"
    assert mismatch({"a": pl.Int64()}, schema) == "column 'b' (String) of the schema is missing; the file has ['a']"
    extra = {"a": pl.Int64(), "b": pl.String(), "c": pl.Date()}
    assert mismatch(extra, schema) == "column 'c' (Date) is not in the schema, which has ['a', 'b']"


def test_smaller_floats_and_columns_of_nulls_fit() -> None:
    assert mismatch({"a": pl.Float32()}, pl.Schema({"a": pl.Float64()})) is None
    assert mismatch({"a": pl.Null()}, pl.Schema({"a": pl.List(pl.Int64)})) is None
    assert mismatch({"a": pl.Float64()}, pl.Schema({"a": pl.Float32()})) is not None
