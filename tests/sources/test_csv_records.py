"""Records told from lines by regular expressions, against Python's own CSV reader."""

from __future__ import annotations

import csv
import io
import random

import polars as pl
import pytest

from microbatch.sources.csv_records import Dialect, records_of

COMMA = Dialect(",", '"')


def judged(text: str, n_fields: int, dialect: Dialect = COMMA) -> list[tuple[int, str, str | None]]:
    raw = text.split("\n")
    lines = pl.DataFrame(
        {"line": range(1, len(raw) + 1), "raw": raw, "reason": [None] * len(raw)},
        schema={"line": pl.UInt32, "raw": pl.String, "reason": pl.String},
    )
    return records_of(lines, dialect, n_fields).rows()


def test_good_lines_have_no_reason() -> None:
    assert judged('1,x\n2,"a,b"\n3,', 2) == [(1, "1,x", None), (2, '2,"a,b"', None), (3, "3,", None)]


def test_too_few_and_too_many_fields() -> None:
    assert judged("1\n1,2,3", 2) == [(1, "1", "1 fields instead of 2"), (2, "1,2,3", "3 fields instead of 2")]


def test_separators_in_quotes_do_not_count() -> None:
    assert judged('"a,b",",",""",",x', 4) == [(1, '"a,b",",",""",",x', None)]


def test_a_record_may_span_lines() -> None:
    assert judged('1,"a\n\nb"\n2,c', 2) == [(1, '1,"a\n\nb"', None), (4, "2,c", None)]


def test_a_lost_quote_costs_its_own_row_only() -> None:
    assert judged('1,"a\n2,b\n3,"c"\n4,d', 2) == [
        (1, '1,"a', "a quote is not closed"),
        (2, "2,b", None),
        (3, '3,"c"', None),
        (4, "4,d", None),
    ]


def test_a_lost_quote_between_records_that_span_lines() -> None:
    rows = judged('1,"a\nb"\n2,"lost\n3,c\n4,"d\ne"', 2)
    assert [raw for _, raw, reason in rows if reason is None] == ['1,"a\nb"', "3,c"]
    assert len(rows) == 5


def test_a_quote_within_an_unquoted_field_is_a_character() -> None:
    assert judged('1,5" pipe\n2,x', 2) == [(1, '1,5" pipe', None), (2, "2,x", None)]


def test_text_behind_a_closing_quote_is_malformed() -> None:
    assert judged('"a"b,1', 2) == [(1, '"a"b,1', "text behind a closing quote")]


def test_blank_lines_are_no_records_unless_there_is_one_field() -> None:
    assert judged("1,2\n\n3,4", 2) == [(1, "1,2", None), (3, "3,4", None)]
    assert judged("1\n\n3", 1) == [(1, "1", None), (2, "", None), (3, "3", None)]


def test_without_quote_character_quotes_are_text() -> None:
    assert judged('1,"a\n2,b"', 2, Dialect(",", None)) == [(1, '1,"a', None), (2, '2,b"', None)]


def test_separator_and_quote_may_be_special_in_regular_expressions() -> None:
    assert judged("1|'a|b'\n2.3", 2, Dialect("|", "'")) == [(1, "1|'a|b'", None), (2, "2.3", "1 fields instead of 2")]
    assert judged("1\t2\t3", 2, Dialect("\t", '"')) == [(1, "1\t2\t3", "3 fields instead of 2")]
    assert judged("1^^a^b^", 2, Dialect("^", '"')) == [(1, "1^^a^b^", "5 fields instead of 2")]


def test_stray_quotes_are_quoted_for_the_parser() -> None:
    raw = pl.Series("raw", ['1,5" pipe,"x"', '"a,b","c"', ',",",6"'])
    mended = raw.to_frame().select(COMMA.quoted_where_needed(pl.col("raw"))).to_series().to_list()
    assert mended == ['1,"5"" pipe","x"', '"a,b","c"', ',",","6"""']
    assert [next(csv.reader([line])) for line in mended] == [["1", '5" pipe', "x"], ["a,b", "c"], ["", ",", '6"']]


@pytest.mark.parametrize("seed", range(40))
def test_well_formed_records_are_those_of_python_s_reader(seed: int) -> None:
    rng = random.Random(seed)
    rows = [["".join(rng.choices('ab",\n ', k=rng.randrange(5))) for _ in range(3)] for _ in range(rng.randrange(1, 30))]
    text = io.StringIO()
    csv.writer(text, quoting=rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), lineterminator="\n").writerows(rows)
    found = judged(text.getvalue().removesuffix("\n"), 3)
    assert [reason for _, _, reason in found] == [None] * len(rows), f"seed {seed}"
    assert list(csv.reader(io.StringIO("\n".join(raw for _, raw, _ in found)))) == rows, f"seed {seed}"
