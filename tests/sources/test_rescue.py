"""Every row of a file judged by itself."""

from __future__ import annotations

import gzip
import io
import json
import random
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.sources.rescue import UnreadableFileError, judge

SCHEMA = pl.Schema({"a": pl.Int64(), "b": pl.String(), "c": pl.Float64()})


def judged(
    file_format: str, text: str | bytes, schema: pl.Schema = SCHEMA, **options: Any
) -> list[tuple[tuple[Any, ...], int, str | None]]:
    """Return values, line and reason of each row."""
    found = judge(file_format, text.encode() if isinstance(text, str) else text, schema, options)
    assert found.rows.schema == schema
    return [(row, line, reason) for row, (line, _, reason) in zip(found.rows.rows(), found.verdicts.rows(), strict=True)]


NONE = (None, None, None)


def test_csv_values_that_do_not_parse() -> None:
    assert judged("csv", "a,b,c\n1,x,2.5\nq,y,1\n2,z,1.x\n,,\n") == [
        ((1, "x", 2.5), 2, None),
        (NONE, 3, "column 'a' holds 'q', not Int64"),
        (NONE, 4, "column 'c' holds '1.x', not Float64"),
        (NONE, 5, None),
    ]


def test_csv_columns_are_found_by_name() -> None:
    assert judged("csv", "c,a,b\n2.5,1,x\n") == [((1, "x", 2.5), 2, None)]


def test_csv_rows_of_other_lengths() -> None:
    assert judged("csv", "a,b,c\n1,x\n1,x,2,\n") == [(NONE, 2, "2 fields instead of 3"), (NONE, 3, "4 fields instead of 3")]


def test_csv_quotes_lines_and_line_ends() -> None:
    assert judged("csv", 'a,b,c\r\n1,"x\r\ny",2\r\n\r\n3,"z""",4\r\n5,6" w,7') == [
        ((1, "x\ny", 2.0), 2, None),
        ((3, 'z"', 4.0), 5, None),
        ((5, '6" w', 7.0), 6, None),
    ]


def test_csv_all_rows_malformed_or_none_there() -> None:
    assert judged("csv", "a,b,c\n1\n") == [(NONE, 2, "1 fields instead of 3")]
    assert judged("csv", "a,b,c\n") == []
    assert judged("csv", "") == []


def test_csv_without_header_and_with_other_options() -> None:
    options: dict[str, Any] = {"has_header": False, "separator": ";", "null_values": ["-"], "decimal_comma": True, "quote_char": "'"}
    assert judged("csv", "1;'a;b';2,5\n-;x;-\n1;x;y\n", **options) == [
        ((1, "a;b", 2.5), 1, None),
        ((None, "x", None), 2, None),
        (NONE, 3, "column 'c' holds 'y', not Float64"),
    ]


def test_csv_dtypes_whose_parser_gives_up_the_file() -> None:
    schema = pl.Schema({"e": pl.Enum(["x"]), "d": pl.Decimal(10, 2), "t": pl.Datetime("us")})
    assert judged("csv", "e,d,t\nx,1.5,2024-01-01 00:00:00\ny,1,\nx,z,\nx,1,today\n", schema) == [
        (("x", Decimal("1.50"), datetime(2024, 1, 1)), 2, None),
        (NONE, 3, "column 'e' holds 'y', not Enum(categories=['x'])"),
        (NONE, 4, "column 'd' holds 'z', not Decimal(precision=10, scale=2)"),
        (NONE, 5, "column 't' holds 'today', not Datetime(time_unit='us', time_zone=None)"),
    ]


def test_csv_lines_that_are_not_utf8() -> None:
    content = b"a,b,c\n1,\xff,2\n3,ok,4\n"
    assert judged("csv", content) == [(NONE, 2, "not UTF-8"), ((3, "ok", 4.0), 3, None)]
    assert judged("csv", content, encoding="utf8-lossy") == [((1, "\ufffd", 2.0), 2, None), ((3, "ok", 4.0), 3, None)]


def test_csv_with_byte_order_mark() -> None:
    assert judged("csv", "\ufeffa,b,c\n1,x\n2,y,3\n") == [(NONE, 2, "2 fields instead of 3"), ((2, "y", 3.0), 3, None)]


def test_csv_with_other_columns_is_unreadable() -> None:
    with pytest.raises(UnreadableFileError, match=r"column 'b' \(String\) of the schema is missing; the file has \['a', 'c'\]"):
        judged("csv", "a,c\n1,2\n")


def test_compressed_files_are_judged_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a,b,c\n1,x\n2,y,3\n"))
    assert judge("csv", str(path), SCHEMA, {}).rows.rows() == [NONE, (2, "y", 3.0)]
    assert judged("csv", gzip.compress(b"a,b,c\n1,\xff,2\n2,y,3\n")) == [(NONE, 2, "not UTF-8"), ((2, "y", 3.0), 3, None)]


def test_a_torn_archive_is_unreadable() -> None:
    with pytest.raises(UnreadableFileError):
        judged("csv", gzip.compress(b"a,b,c\n" + b"1,x,2\n" * 10_000)[:-30])


def test_ndjson_lines_that_are_no_objects() -> None:
    assert judged("ndjson", '{"a":1,"b":"x"\n[1]\nnull\n\n  \n{"a":2,"c":1.5,"z":0} \n') == [
        (NONE, 1, "not a JSON object"),
        (NONE, 2, "not a JSON object"),
        (NONE, 3, "not a JSON object"),
        ((2, None, 1.5), 6, None),
    ]


def test_ndjson_values_of_another_type() -> None:
    assert judged("ndjson", '{"a":"x"}\n{"a":1.5}\n{"c":true}\n{"b":5}\n{"a":null}\n') == [
        (NONE, 1, "column 'a' holds 'x', not Int64"),
        (NONE, 2, "column 'a' holds '1.5', not Int64"),
        (NONE, 3, "column 'c' holds 'true', not Float64"),
        ((None, "5", None), 4, None),
        (NONE, 5, None),
    ]


def test_ndjson_nested_values_of_another_type() -> None:
    schema = pl.Schema({"l": pl.List(pl.Int64), "s": pl.Struct({"x": pl.Int64})})
    assert judged("ndjson", '{"l":[1]}\n{"l":["q"]}\n{"l":5}\n{"s":{"x":1}}\n{"s":{"x":"p"}}\n{"s":3}\n', schema) == [
        (([1], None), 1, None),
        ((None, None), 2, "a nested value of another type"),
        ((None, None), 3, "column 'l' holds '5', not List(Int64)"),
        ((None, {"x": 1}), 4, None),
        ((None, None), 5, "a nested value of another type"),
        ((None, None), 6, "column 's' holds '3', not Struct({'x': Int64})"),
    ]


def test_ndjson_dtypes_its_parser_lacks() -> None:
    schema = pl.Schema({"i": pl.Int8(), "u": pl.UInt16(), "d": pl.Decimal(10, 2), "e": pl.Enum(["x"])})
    assert judged("ndjson", '{"i":1,"u":2,"d":1.25,"e":"x"}\n{"i":300}\n{"u":-1}\n{"d":2}\n{"e":"y"}\n', schema) == [
        ((1, 2, Decimal("1.25"), "x"), 1, None),
        ((None,) * 4, 2, "column 'i' holds '300', not Int8"),
        ((None,) * 4, 3, "column 'u' holds '-1', not UInt16"),
        ((None, None, Decimal("2.00"), None), 4, None),
        ((None,) * 4, 5, "column 'e' holds 'y', not Enum(categories=['x'])"),
    ]


def test_text_lines_that_are_not_utf8() -> None:
    assert judged("text", b"a\n\xff\xfe\n\nb\r\n", pl.Schema({"value": pl.String()})) == [
        (("a",), 1, None),
        ((None,), 2, "not UTF-8"),
        (("",), 3, None),
        (("b",), 4, None),
    ]


def test_parquet_has_no_malformed_rows_but_may_be_unreadable() -> None:
    buffer = io.BytesIO()
    rows = pl.DataFrame({"c": [1.5], "a": [1], "b": ["x"]})
    rows.write_parquet(buffer)
    found = judge("parquet", buffer.getvalue(), SCHEMA, {})
    assert_frame_equal(found.rows, rows.select("a", "b", "c"))
    assert found.verdicts["reason"].to_list() == [None]
    with pytest.raises(UnreadableFileError):
        judge("parquet", buffer.getvalue()[:-20], SCHEMA, {})


def test_a_missing_file_is_no_malformed_one(tmp_path: Path) -> None:
    for file_format in ("csv", "ndjson", "text", "parquet"):
        with pytest.raises(FileNotFoundError):
            judge(file_format, str(tmp_path / "gone"), SCHEMA, {})


@pytest.mark.parametrize("file_format", ["csv", "ndjson"])
@pytest.mark.parametrize("seed", range(10))
def test_every_good_row_is_found_and_no_bad_one(seed: int, file_format: str) -> None:
    rng = random.Random(seed)
    rows: list[tuple[Any, ...]] = []
    lines = ["a,b,c"] if file_format == "csv" else []
    for k in range(rng.randrange(1, 60)):
        good = rng.random() < 0.7
        if file_format == "csv":
            lines.append(f"{k},b{k},{k}.5" if good else rng.choice([f"x{k},b,1", f"{k},b", f"{k},b,1,2", f'{k},"b,1']))
        else:
            lines.append(
                json.dumps({"a": k, "b": f"b{k}", "c": k + 0.5}) if good else rng.choice(['{"a":', "[]", '{"a":"q"}', '{"c":[1]}'])
            )
        rows.append((k, f"b{k}", k + 0.5) if good else NONE)
    found = judged(file_format, "\n".join(lines) + "\n")
    assert [row for row, _, _ in found] == rows, f"seed {seed}"
    assert [reason is None for _, _, reason in found] == [row != NONE for row in rows], f"seed {seed}"
