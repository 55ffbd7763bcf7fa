"""What Delta can hold: the mapping of types and names."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from microbatch.errors import PlanError, SinkError
from microbatch.sinks.delta_types import delta_schema, schema_conflicts, to_delta

UTC = ZoneInfo("UTC")
AT = datetime(2020, 6, 1, 12, 0, 0, 123_456, UTC).replace(tzinfo=None)
BERLIN = ZoneInfo("Europe/Berlin")

# type, value, the table's type, the table's value
MAPPED: list[tuple[pl.DataType, Any, pl.DataType, Any]] = [
    (pl.Boolean(), True, pl.Boolean(), True),
    (pl.Int8(), -128, pl.Int8(), -128),
    (pl.Int16(), 1, pl.Int16(), 1),
    (pl.Int32(), 1, pl.Int32(), 1),
    (pl.Int64(), 2**63 - 1, pl.Int64(), 2**63 - 1),
    (pl.UInt8(), 255, pl.Int16(), 255),
    (pl.UInt16(), 65_535, pl.Int32(), 65_535),
    (pl.UInt32(), 2**32 - 1, pl.Int64(), 2**32 - 1),
    (pl.UInt64(), 2**63 - 1, pl.Int64(), 2**63 - 1),
    (pl.Float32(), 1.5, pl.Float32(), 1.5),
    (pl.Float64(), float("inf"), pl.Float64(), float("inf")),
    (pl.Decimal(38, 2), Decimal("1.23"), pl.Decimal(38, 2), Decimal("1.23")),
    (pl.Decimal(10, 0), Decimal(7), pl.Decimal(10, 0), Decimal(7)),
    (pl.String(), "ü", pl.String(), "ü"),
    (pl.Binary(), b"\x00\xff", pl.Binary(), b"\x00\xff"),
    (pl.Categorical(), "a", pl.String(), "a"),
    (pl.Enum(["a", "b"]), "b", pl.String(), "b"),
    (pl.Date(), date(1960, 1, 1), pl.Date(), date(1960, 1, 1)),
    (pl.Datetime("us"), AT, pl.Datetime("us"), AT),
    (pl.Datetime("ms"), AT.replace(microsecond=123_000), pl.Datetime("us"), AT.replace(microsecond=123_000)),
    (pl.Datetime("ns"), AT, pl.Datetime("us"), AT),
    (pl.Datetime("us", "UTC"), AT.replace(tzinfo=UTC), pl.Datetime("us", "UTC"), AT.replace(tzinfo=UTC)),
    (pl.Datetime("ns", "Europe/Berlin"), AT.replace(tzinfo=BERLIN), pl.Datetime("us", "UTC"), AT.replace(hour=10, tzinfo=UTC)),
    (pl.List(pl.UInt8), [1, None], pl.List(pl.Int16), [1, None]),
    (pl.Array(pl.Int32, 2), [1, 2], pl.List(pl.Int32), [1, 2]),
    (pl.Array(pl.UInt8, (1, 2)), [[1, 2]], pl.List(pl.List(pl.Int16)), [[1, 2]]),
    (pl.Struct({"a": pl.Enum(["x"]), "b": pl.Int64}), {"a": "x", "b": 1}, pl.Struct({"a": pl.String, "b": pl.Int64}), {"a": "x", "b": 1}),
    (pl.List(pl.Struct({"t": pl.Datetime("ms")})), [{"t": None}], pl.List(pl.Struct({"t": pl.Datetime("us")})), [{"t": None}]),
]


@pytest.mark.parametrize(("dtype", "value", "held_dtype", "held"), MAPPED, ids=str)
def test_type_comes_back_from_a_table_as_mapped(tmp_path: Path, dtype: pl.DataType, value: Any, held_dtype: pl.DataType, held: Any) -> None:
    rows = pl.DataFrame({"n": [1, 2], "c": pl.Series([value, None], dtype=dtype)})
    expected = pl.DataFrame({"n": [1, 2], "c": pl.Series([held, None], dtype=held_dtype)})
    fitted = to_delta(rows, delta_schema(rows.schema))
    assert_frame_equal(fitted, expected)
    write_deltalake(tmp_path, fitted)
    assert_frame_equal(pl.read_delta(str(tmp_path)), expected)
    assert pl.Schema(DeltaTable(tmp_path).schema().to_arrow()) == expected.schema


def test_map_is_mapped_inside() -> None:
    assert delta_schema(pl.Schema({"c": pl.Map(pl.Categorical, pl.UInt8)})) == pl.Schema({"c": pl.Map(pl.String, pl.Int16)})


def test_naive_datetime_is_delta_timestamp_without_zone(tmp_path: Path) -> None:
    write_deltalake(tmp_path, to_delta(pl.DataFrame({"t": [AT]}), pl.Schema({"t": pl.Datetime("us")})))
    assert str(DeltaTable(tmp_path).schema().fields[0].type) == 'PrimitiveType("timestamp_ntz")'


@pytest.mark.parametrize(
    ("column", "instead"),
    [
        (pl.Series("c", [time(1, 2)]), pl.col("c").dt.to_string()),
        (pl.Series("c", [timedelta(seconds=1)]), pl.col("c").dt.total_microseconds()),
        (pl.Series("c", [1.5], dtype=pl.Float16), pl.col("c").cast(pl.Float32)),
        (pl.Series("c", [1], dtype=pl.Int128), pl.col("c").cast(pl.Decimal(38, 0))),
        (pl.Series("c", [1], dtype=pl.UInt128), pl.col("c").cast(pl.Decimal(38, 0))),
        (pl.Series("c", [None]), pl.col("c").cast(pl.String)),
    ],
    ids=str,
)
def test_type_without_place_is_refused_and_what_the_message_says_works(column: pl.Series, instead: pl.Expr) -> None:
    with pytest.raises(PlanError, match=r'column "c": Delta has no type for .*write pl\.col\("c"\)\.') as refusal:
        delta_schema(pl.Schema({"c": column.dtype}))
    written = str(refusal.value).partition("write ")[2]
    assert eval(written, {"pl": pl}).meta.eq(instead)
    rows = column.to_frame().select(instead)
    assert delta_schema(rows.schema).names() == ["c"]


@pytest.mark.parametrize(
    ("dtype", "place"),
    [
        (pl.List(pl.Time), r"c\[\]"),
        (pl.Struct({"a": pl.List(pl.Struct({"b": pl.Duration}))}), r"c\.a\[\]\.b"),
        (pl.Map(pl.String, pl.Float16), r"c\.value"),
        (pl.Array(pl.Time, 2), r"c\[\]"),
    ],
    ids=str,
)
def test_type_without_place_is_found_inside(dtype: pl.DataType, place: str) -> None:
    with pytest.raises(PlanError, match=rf'column "c": .*\(at {place}\); inside the column'):
        delta_schema(pl.Schema({"c": dtype}))


@pytest.mark.parametrize("dtype", [pl.Object(), pl.Struct([]), pl.Unknown()], ids=str)
def test_other_types_are_refused_by_name(dtype: pl.DataType) -> None:
    with pytest.raises(PlanError, match='column "c": Delta has no type for'):
        delta_schema(pl.Schema({"c": dtype}))


@pytest.mark.parametrize("bad", list(" ,;{}()\n\t="))
def test_name_delta_forbids_is_refused_with_rename(bad: str) -> None:
    with pytest.raises(PlanError, match=r"write \.rename\("):
        delta_schema(pl.Schema({f"a{bad}b": pl.Int64}))


def test_name_delta_forbids_is_found_inside() -> None:
    with pytest.raises(PlanError, match=r'column "c": .* name "x y"'):
        delta_schema(pl.Schema({"c": pl.List(pl.Struct({"x y": pl.Int64}))}))


def test_names_that_differ_only_in_case_are_refused() -> None:
    with pytest.raises(PlanError, match=r"\['Day', 'day'\] differ only in case"):
        delta_schema(pl.Schema({"Day": pl.Int64, "v": pl.Int64, "day": pl.Int64}))


def test_no_columns_are_refused() -> None:
    with pytest.raises(PlanError, match="at least one column"):
        delta_schema(pl.Schema())


@pytest.mark.parametrize("dtype", [pl.UInt64(), pl.List(pl.UInt64), pl.Struct({"a": pl.UInt64})], ids=str)
def test_unsigned_value_past_63_bits_is_refused_naming_the_column(dtype: pl.DataType) -> None:
    value = {pl.List: [2**63], pl.Struct: {"a": 2**63}}.get(type(dtype), 2**63)
    rows = pl.DataFrame({"total": pl.Series([value], dtype=dtype)})
    with pytest.raises(SinkError, match=r'column "total".*9223372036854775808'):
        to_delta(rows, delta_schema(rows.schema))


@pytest.mark.parametrize("dtype", [pl.Datetime("ns"), pl.List(pl.Datetime("ns", "UTC"))], ids=str)
def test_nanoseconds_that_would_be_cut_are_refused(dtype: pl.DataType) -> None:
    value = [1_001] if isinstance(dtype, pl.List) else 1_001
    column = pl.Series("t", [value]).cast(dtype)
    with pytest.raises(SinkError, match=r'column "t".*would cut nanoseconds'):
        to_delta(column.to_frame(), delta_schema(pl.Schema({"t": dtype})))


def test_conflicts_name_every_column() -> None:
    held = pl.Schema({"same": pl.Int64, "old": pl.Int64, "typed": pl.Int64, "Case": pl.Int64})
    given = pl.Schema({"typed": pl.String, "same": pl.Int64, "new": pl.Int64, "case": pl.Int64})
    strict = " ".join(schema_conflicts(held, given, merge_schema=False))
    assert all(f'"{name}"' in strict for name in ("old", "new", "typed", "Case", "case"))
    assert '"same"' not in strict
    merging = schema_conflicts(held, given, merge_schema=True)
    assert merging == ['"typed" is Int64 in the table, String in the query', '"case" of the query is "Case" in the table']
