"""The translation of expressions where Spark and Polars differ; expected values by hand."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from tests.conformance.expressions import WindowColumns, conjuncts, names_in, translate
from tests.conformance.joins import split
from tests.conformance.report import NotSupportedError

_NUMBERS = pl.DataFrame({"v": [-7, 7, 0, None], "w": [3, -3, 3, 3]}, schema={"v": pl.Int64, "w": pl.Int64})


def values(expression: Any, frame: pl.DataFrame = _NUMBERS) -> list[Any]:
    scope = {name: name for name in frame.columns}
    return frame.select(translate(expression, scope).alias("out")).get_column("out").to_list()


def test_a_remainder_has_the_sign_of_the_dividend() -> None:
    assert values(["%", "v", 3]) == [-1, 1, 0, None]
    assert values(["%", "v", "w"]) == [-1, 1, 0, None]


def test_division_of_ints_gives_floats() -> None:
    assert values(["/", "v", 2]) == [-3.5, 3.5, 0.0, None]


def test_equality_with_null_is_null_and_null_safe_equality_is_not() -> None:
    assert values(["==", "v", 7]) == [False, True, False, None]
    assert values(["<=>", "v", ["lit", None]]) == [False, False, False, True]


def test_and_or_know_what_null_cannot_change() -> None:
    assert values(["and", ["==", "v", 7], ["==", "w", 0]]) == [False, False, False, False]
    assert values(["or", ["==", "v", 7], ["==", "w", 3]]) == [True, True, True, True]
    assert values(["and", ["==", "v", 7], ["==", "w", 3]])[3] is None


def test_between_has_both_ends() -> None:
    assert values(["between", "v", 0, 7]) == [False, True, True, None]


def test_case_takes_the_first_branch_that_holds() -> None:
    branches = ["case", [["<", "v", 0], ["lit", "less"]], [["<=", "v", 0], ["lit", "none"]], ["lit", "more"]]
    assert values(branches) == ["less", "more", "none", "more"]
    assert values(["case", [["<", "v", 0], 1]]) == [1, None, None, None]


def test_whole_seconds_round_down_before_1970_too() -> None:
    frame = pl.DataFrame({"t": [-1_500_000, 1_900_000]}).cast(pl.Datetime("us"))
    assert values(["secs", "t"], frame) == [-2, 1]
    assert values(["micros", "t"], frame) == [-1_500_000, 1_900_000]


def test_seconds_become_times_and_shift() -> None:
    frame = pl.DataFrame({"s": [-5, 10]})
    assert values(["secs", ["shift", ["to_ts", "s"], "-1h"]], frame) == [-3605, -3590]
    assert values(["secs", ["shift", ["to_ts", "s"], "5 seconds"]], frame) == [0, 15]


def test_halves_are_rounded_away_from_zero() -> None:
    frame = pl.DataFrame({"f": [0.5, 1.5, 2.5, -2.5]})
    assert values(["round", "f"], frame) == [1.0, 2.0, 3.0, -3.0]


def test_text_that_is_no_number_is_null() -> None:
    assert values(["to_int", "s"], pl.DataFrame({"s": ["12", "x", None]})) == [12, None, None]


def test_contains_takes_its_second_argument_as_text() -> None:
    frame = pl.DataFrame({"value": ["keep1", "drop"], "keep": ["a", "b"]})
    assert values(["contains", "value", "keep"], frame) == [True, False]


def test_arrays_have_a_size_and_an_order() -> None:
    assert values(["sort_array", ["array", "w", "v"]])[0] == [-7, 3]
    assert values(["size", ["array", "w", "v"]])[0] == 2


def test_the_fields_of_a_window_are_its_flat_columns() -> None:
    frame = pl.DataFrame({"a": [0], "b": [5_000_000]}).cast(pl.Datetime("us"))
    scope = {"w": WindowColumns("a", "b")}
    assert frame.select(s=translate(["secs", "w.start"], scope), e=translate(["secs", "w.end"], scope)).rows() == [(0, 5)]


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(NotSupportedError, match="expression soundex"):
        values(["soundex", "v"])


def test_a_condition_comes_apart_into_what_must_all_hold() -> None:
    assert conjuncts(["and", ["==", "a", "b"], ["and", ["between", "t", 1, 2], ["<", "c", 3]]]) == [
        ["==", "a", "b"],
        [">=", "t", 1],
        ["<=", "t", 2],
        ["<", "c", 3],
    ]


def test_literals_and_durations_are_no_columns() -> None:
    assert names_in(["and", ["==", "k", ["lit", "keep"]], [">=", "t", ["shift", "u", "5s"]], ["contains", "v", "x"]]) == {
        "k",
        "t",
        "u",
        "v",
    }


def test_equalities_between_the_sides_are_keys_whichever_way_round() -> None:
    left, right = {"lk": "lk", "lv": "lv"}, {"rk": "rk", "rv": "rv"}
    found = split(["and", ["==", "rk", "lk"], [">", "lv", 4], ["==", "lk", ["+", "rv", 1]]], left, right)
    assert [str(e) for e in found.left] == [str(pl.col("lk")), str(pl.col("lk"))]
    assert str(found.right[0]) == str(pl.col("rk"))
    assert found.rest == [[">", "lv", 4]]


def test_windows_are_equal_when_both_bounds_are() -> None:
    left, right = {"lw": WindowColumns("ls", "le")}, {"rw": WindowColumns("rs", "re")}
    found = split(["==", "lw", "rw"], left, right)
    assert [str(e) for e in found.left] == [str(pl.col("ls")), str(pl.col("le"))]
    assert [str(e) for e in found.right] == [str(pl.col("rs")), str(pl.col("re"))]


def test_null_safe_keys_let_null_meet_null_and_nothing_else() -> None:
    found = split(["<=>", "a", "b"], {"a": "a"}, {"b": "b"})
    left = pl.DataFrame({"a": [1, None]}).select(found.left[0].alias("k"))
    right = pl.DataFrame({"b": [None, 1, 2]}).select(found.right[0].alias("k"))
    assert left.join(right, on="k").height == 2
