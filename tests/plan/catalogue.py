"""Expressions as users write them, with the verdict on each; ``python -m tests.plan.catalogue`` writes the golden file of their trees."""

from __future__ import annotations

import json
import random
import warnings
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import polars.selectors as cs

from microbatch.plan.trees import everything_in, function_of, tree_of

GOLDEN = Path(__file__).with_name("trees.json")

# Names in an expression: a, b Int64 with nulls; f Float64 with NaN; s, w String; n numbers as String; j JSON; day "2024-05-01"; t Datetime;
# d Date; p Duration; l, m List(Int64); ls List(String); arr Array(Int64, 3); st Struct{x, y}; g Boolean; c Categorical; e Enum; by Binary;
# dec Decimal; mp Map.
ALLOWED = """
a
pl.col("a", "b")
pl.all()
pl.col("^[ab]$")
cs.numeric() + 1
cs.numeric() - cs.by_name("a")
pl.nth(0)
pl.all().exclude("a")
pl.lit(1)
pl.lit("x").alias("y")
pl.lit(None)
pl.lit([1, 2])
pl.lit(pl.Series([1, 2])).mean() + a
a + 1
a - b
a * f
a / b
a // 3
a % 3
a.truncdiv(3)
a ** 2
-a
a > b
a.eq_missing(b)
a.ne_missing(b)
(a > 1) & g
(a > 1) | g
g ^ (b > 2)
~g
a.abs()
a.sign()
f.sqrt()
f.cbrt()
f.exp()
f.log(2)
f.log1p()
f.erf()
f.erfc()
f.floor()
f.ceil()
f.round(1)
f.round_sig_figs(2)
f.truncate()
f.sin() + f.cos() + f.tan() + f.cot()
f.arcsin() + f.arccos() + f.arctan()
f.sinh() + f.cosh() + f.tanh()
f.arcsinh() + f.arccosh() + f.arctanh()
f.degrees() + f.radians()
pl.arctan2("a", "b")
a.clip(1, 3)
a.clip(b, 9)
a.is_null()
a.is_not_null()
f.is_nan()
f.is_not_nan()
f.is_finite()
f.is_infinite()
f.is_close(1.5)
a.is_between(1, b)
a.is_in([1, 2])
a.is_in(pl.Series([1, 2, 3]))
s.is_in({"x", "y"})
a.fill_null(0)
a.fill_null(b)
a.fill_null(strategy="zero")
a.fill_null(strategy="one")
f.fill_nan(None)
pl.coalesce("a", "b", 0)
pl.when(a > 1).then(b).when(g).then(7).otherwise(None)
a.cast(pl.Float32)
s.cast(pl.Categorical)
a.reinterpret(signed=False)
t.to_physical()
a.hash(7)
pl.struct("a", "s").hash()
a.replace({1: 10})
a.replace([1, 2], [10, 20])
s.replace_strict({"x": 1}, default=a)
a.repeat_by(2)
f.cut([0.0, 1.0], labels=["low", "mid", "high"])
f.bin_intervals([0.0, 1.0], labels=False)
a.bitwise_count_ones() + a.bitwise_count_zeros()
a.bitwise_leading_ones() + a.bitwise_leading_zeros()
a.bitwise_trailing_ones() + a.bitwise_trailing_zeros()
pl.sum_horizontal("a", "b")
pl.mean_horizontal(cs.integer())
pl.min_horizontal("a", "b")
pl.max_horizontal("a", "b")
pl.any_horizontal(g, a > 1)
pl.all_horizontal(g, a > 1)
pl.concat_str("s", "w", separator="-")
pl.format("{}: {}", "a", s)
pl.concat_list("a", "b")
pl.concat_arr("a", "b")
pl.struct("a", z=b)
pl.struct(pl.all())
pl.int_ranges(0, a.fill_null(0))
pl.date_ranges("d", pl.col("d") + timedelta(days=2))
pl.datetime_ranges("t", pl.col("t") + timedelta(hours=2), "1h")
pl.time_ranges(t.dt.time(), pl.time(23, 59, 59), "6h")
pl.linear_spaces("a", "b", 3)
pl.duration(hours=a)
pl.datetime(2024, a.clip(1, 7), 1)
pl.datetime(2024, 1, 1)
pl.date(2024, 1, b)
pl.from_epoch("a", "s")
pl.sql_expr("a + b * 2 - a / b")
pl.sql_expr("a % 2 + a // 2")
pl.sql_expr("ROUND(f, 2) + POWER(a, 2)")
pl.sql_expr("CASE WHEN a IN (1, 2) THEN UPPER(s) ELSE s || w END")
s.alias("z")
pl.col("a", "b").name.suffix("_x")
cs.numeric().name.prefix("n_")
s.name.to_uppercase()
a.alias("z").name.keep()
st.name.prefix_fields("p_")
st.name.suffix_fields("_p")
s.str.to_uppercase()
s.str.to_lowercase()
s.str.to_titlecase()
s.str.len_bytes()
s.str.len_chars()
s.str.contains("x")
s.str.contains(w)
s.str.starts_with("x")
s.str.ends_with("x")
s.str.replace("x", "y")
s.str.replace_all("x", "y")
s.str.slice(1, 2)
s.str.head(1)
s.str.tail(1)
s.str.split("y")
s.str.splitn("y", 2)
s.str.split_exact("y", 1)
s.str.strip_chars()
s.str.strip_chars_start("x")
s.str.strip_chars_end("x")
s.str.strip_prefix("x")
s.str.strip_suffix("x")
s.str.zfill(5)
s.str.pad_start(5)
s.str.pad_end(5, "*")
s.str.extract("(x)(y)?", 1)
s.str.extract_all("x")
s.str.extract_groups("(?<first>x)(y)?")
s.str.extract_many(["x", "y"])
s.str.count_matches("x")
s.str.find("y")
s.str.find_many(["x", "y"])
s.str.contains_any(["x", "zz"])
s.str.replace_many(["x", "y"], ["1", "2"])
s.str.reverse()
s.str.normalize("NFC")
s.str.escape_regex()
s.str.encode("hex")
s.str.encode("base64")
s.str.encode("hex").str.decode("hex")
s.str.encode("base64").str.decode("base64")
n.str.to_integer(strict=False)
n.str.to_decimal(scale=2)
j.str.json_path_match("$.x")
j.str.json_decode(pl.Struct({"x": pl.Int64}))
day.str.to_date("%Y-%m-%d")
day.str.to_datetime("%Y-%m-%d")
day.str.strptime(pl.Datetime("ms"), "%Y-%m-%d", strict=False)
t.dt.year() + t.dt.month() + t.dt.day()
t.dt.millennium() + t.dt.century() + t.dt.iso_year()
t.dt.quarter() + t.dt.week() + t.dt.weekday() + t.dt.ordinal_day() + t.dt.days_in_month()
t.dt.hour() + t.dt.minute() + t.dt.second()
t.dt.millisecond() + t.dt.microsecond() + t.dt.nanosecond()
t.dt.is_leap_year()
t.dt.date()
t.dt.time()
t.dt.truncate("1h")
t.dt.round("1h")
t.dt.offset_by("1mo")
t.dt.offset_by(pl.concat_str(b.fill_null(0), pl.lit("h")))
t.dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Paris")
t.dt.replace_time_zone("Europe/Paris", ambiguous="earliest", non_existent="null")
t.dt.replace_time_zone("Europe/Paris", ambiguous="earliest", non_existent="null").dt.base_utc_offset()
t.dt.replace_time_zone("Europe/Paris", ambiguous="earliest", non_existent="null").dt.dst_offset()
t.dt.epoch("s")
t.dt.timestamp("ms")
t.dt.to_string("%Y/%m")
t.dt.strftime("%H")
t.dt.month_start()
t.dt.month_end()
t.dt.cast_time_unit("ms")
t.dt.replace(year=2000)
d.dt.combine(pl.time(1, 2, 3))
t - t.dt.truncate("1d")
p.dt.total_days() + p.dt.total_hours() + p.dt.total_minutes() + p.dt.total_seconds()
p.dt.total_milliseconds() + p.dt.total_microseconds() + p.dt.total_nanoseconds()
d.dt.add_business_days(2, holidays=[date(2024, 5, 1)], roll="forward")
d.dt.is_business_day(holidays=[date(2024, 5, 1)])
pl.business_day_count("d", pl.date(2024, 6, 1), holidays=[date(2024, 5, 1), date(2024, 5, 9)])
l.list.len()
l.list.sum()
l.list.min() + l.list.max()
l.list.mean() + l.list.median()
l.list.std() + l.list.var()
l.list.n_unique()
l.list.first()
l.list.get(a, null_on_oob=True)
l.list.gather([0], null_on_oob=True)
l.list.gather_every(2)
l.list.contains(a)
l.list.count_matches(1)
l.list.sort()
l.list.reverse()
l.list.unique(maintain_order=True)
l.list.shift()
l.list.diff()
l.list.slice(1, 1)
l.list.head(1)
l.list.tail(1)
l.list.drop_nulls()
l.list.concat(m)
l.list.set_union(m).list.sort()
l.list.set_difference([1])
l.list.arg_min()
l.list.arg_max()
(l.list.eval(pl.element() > 1)).list.any()
(l.list.eval(pl.element() > 1)).list.all()
ls.list.join("-")
l.list.eval(pl.element() * 2)
l.list.eval(pl.element().cum_sum() - pl.element().mean())
l.list.eval(pl.element().rank())
l.list.filter(pl.element() > 1)
l.list.agg(pl.element().max())
l.list.to_struct(fields=["first", "second"])
arr.arr.to_list().list.to_array(3)
arr.arr.len()
arr.arr.sum()
arr.arr.min() + arr.arr.max()
arr.arr.mean() + arr.arr.median() + arr.arr.std() + arr.arr.var()
arr.arr.get(0)
arr.arr.contains(1)
arr.arr.count_matches(1)
arr.arr.sort()
arr.arr.reverse()
arr.arr.unique(maintain_order=True)
arr.arr.shift()
arr.arr.slice(0, 2)
arr.arr.dot(arr)
arr.arr.arg_min() + arr.arr.arg_max()
arr.arr.to_struct(fields=["r", "g", "b"])
arr.arr.eval(pl.element() + 1)
arr.cast(pl.Array(pl.String, 3)).arr.join("-")
arr.arr.eval(pl.element() > 1).arr.any()
arr.arr.eval(pl.element() > 1).arr.all()
st.struct.field("x")
st.struct.field("x", "y")
st.struct.rename_fields(["p", "q"])
st.struct.with_fields(pl.field("x") + 1)
st.struct.json_encode()
by.bin.size()
by.bin.contains(b"x")
by.bin.starts_with(b"x")
by.bin.ends_with(b"y")
by.bin.encode("hex").str.decode("hex")
by.bin.encode("base64")
by.bin.encode("hex").cast(pl.Binary).bin.decode("hex")
by.bin.encode("base64").cast(pl.Binary).bin.decode("base64")
by.bin.slice(0, 1)
by.bin.head(1)
by.bin.tail(1)
by.bin.get(0, null_on_oob=True)
a.cast(pl.Int64).cast(pl.String).str.pad_start(8).cast(pl.Binary).bin.reinterpret(dtype=pl.Int64)
c.cat.len_chars()
c.cat.len_bytes()
c.cat.starts_with("x")
c.cat.ends_with("x")
c.cat.slice(0, 1)
c.cast(pl.String)
e.to_physical()
a.clip(0, 1).cast(pl.UInt8).cat.to(pl.Enum(["x", "yy"]))
mp.map.get("x")
mp.map.contains_key("x")
mp.map.keys()
mp.map.values()
mp.map.len()
mp.map.entries()
mp.map.entries().list.to_map()
dec * 2
""".strip().splitlines()

# Expression, then what the message must name.
REFUSED = """
a - a.mean()                                        | mean over the whole column
a / a.sum()                                         | sum over the whole column
a == a.max()                                        | max over the whole column
a.fill_null(b.mean())                               | mean over the whole column
pl.when(a > a.median()).then(1)                     | median over the whole column
a.clip(b.min(), 9)                                  | min over the whole column
(a * b).sum()                                       | sum over the whole column
a.n_unique()                                        | n_unique over the whole column
a.first()                                           | first over the whole column
a.implode()                                         | implode over the whole column
a.item()                                            | item over the whole column
a.product()                                         | product over the whole column
a.quantile(0.5)                                     | quantile over the whole column
a.null_count()                                      | null_count over the whole column
a.has_nulls()                                       | has_nulls over the whole column
g.any()                                             | any over the whole column
g.all()                                             | all over the whole column
a.min_by("b")                                       | min_by over the whole column
a.bitwise_xor()                                     | bitwise_xor over the whole column
a.approx_n_unique()                                 | approx_n_unique over the whole column
a.skew() + a.kurtosis()                             | skew over the whole column
a.entropy()                                         | entropy over the whole column
a.mode()                                            | mode over the whole column
st.struct.with_fields(pl.field("x").sum())          | sum over the whole column
pl.len()                                            | pl.len()
a / pl.len()                                        | pl.len()
pl.row_index()                                      | int_range
pl.int_range(pl.len())                              | int_range
a.shift()                                           | shift
a.diff()                                            | diff
a.pct_change()                                      | pct_change
a.cum_sum() + 1                                     | cum_sum
a.cum_count()                                       | cum_count
a.cum_max() - a.cum_min()                           | cum_max
a.cum_prod()                                        | cum_prod
a.cumulative_eval(pl.element().sum())               | cumulative_eval
a.rank()                                            | rank
a.rank().over("s")                                  | over
a.sum().over("s")                                   | over
a.sum().rolling("t", period="1h")                   | rolling
a.rolling_mean(3)                                   | rolling_mean
a.rolling_sum_by("t", "1h")                         | rolling_sum_by
pl.rolling_corr("a", "b", window_size=3)            | rolling_corr
a.ewm_mean(com=1)                                   | ewm_mean
a.forward_fill()                                    | fill_null(strategy
a.backward_fill()                                   | fill_null(strategy
a.fill_null(strategy="mean")                        | fill_null(strategy
a.interpolate()                                     | interpolate
a.interpolate_by("b")                               | interpolate_by
a.sort()                                            | sort
a.sort_by("b")                                      | sort_by
a.reverse()                                         | reverse
a.head(2)                                           | head
a.tail(2)                                           | tail
a.slice(1)                                          | slice
a.limit(2)                                          | head
a.gather([0])                                       | gather
a.get(0)                                            | get
a.gather_every(2)                                   | gather_every
a.top_k(2)                                          | top_k
a.bottom_k_by("b", 2)                               | bottom_k_by
a.unique()                                          | unique
a.unique_counts()                                   | unique_counts
a.value_counts()                                    | value_counts
a.is_unique()                                       | is_unique
a.is_duplicated()                                   | is_duplicated
a.is_first_distinct()                               | is_first_distinct
a.is_last_distinct()                                | is_last_distinct
a.is_sorted()                                       | is_sorted
a.is_empty()                                        | is_empty
a.peak_max()                                        | peak_max
a.rle()                                             | rle
a.rle_id()                                          | rle_id
a.arg_max()                                         | arg_max
a.arg_min()                                         | arg_min
a.arg_sort()                                        | arg_sort
a.arg_unique()                                      | arg_unique
g.arg_true()                                        | arg_true
pl.arg_where(g)                                     | arg_where
a.index_of(1)                                       | index_of
a.search_sorted(1)                                  | search_sorted
a.hist([1])                                         | hist
f.qcut(3)                                           | qcut
f.bin_quantiles(3, labels=False)                    | bins taken from the whole column
f.bin_intervals(3, labels=False)                    | bins taken from the whole column
a.append(b)                                         | append
a.extend_constant(1, 2)                             | extend_constant
a.reshape((-1, 1))                                  | reshape
a.set_sorted()                                      | set_sorted
a.lower_bound()                                     | lower_bound
pl.corr("a", "b")                                   | corr
pl.cov("a", "b")                                    | cov
a.sample(2, seed=1)                                 | sample
a.shuffle(seed=1)                                   | shuffle
pl.lit(pl.Series([1, 2, 3])).sample(1).sum() + a    | sum over the whole column
l.list.sample(1)                                    | list.sample
l.list.eval(pl.element().shuffle())                 | shuffle
l.list.eval(pl.element().rank("random"))            | rank
s.str.join("-")                                     | str.join
day.str.to_datetime()                               | a time format guessed
day.str.to_date(strict=False)                       | a time format guessed
ls.list.eval(pl.element().str.to_datetime())        | a time format guessed
a.is_in(b)                                          | is_in with a column
a.is_in(b.implode())                                | is_in with a column
a.replace(a, b)                                     | replace with a column
c.cat.physical()                                    | cat.physical
a.explode()                                         | explode
l.list.explode()                                    | explode
arr.arr.explode()                                   | explode
a.filter(g)                                         | filter
a.drop_nulls()                                      | drop_nulls
f.drop_nans()                                       | drop_nans
a + pl.lit(pl.Series([1, 2, 3]))                    | a constant of several values
pl.lit(pl.Series([1]))                              | a constant of several values
pl.int_range(0, 3)                                  | a constant of several values
pl.repeat(1, 3)                                     | a constant of several values
""".strip().splitlines()


def names() -> dict[str, object]:
    """Return what the texts of the catalogue may use."""
    columns = ["a", "b", "f", "s", "w", "n", "j", "day", "t", "d", "p", "l", "m", "ls", "arr", "st", "g", "c", "e", "by", "dec", "mp"]
    return {"pl": pl, "cs": cs, "date": date, "timedelta": timedelta, **{name: pl.col(name) for name in columns}}


def expression(text: str) -> pl.Expr:
    """Return the expression of a line of the catalogue."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are deprecated, and still written
        parsed = eval(text, names())
    assert isinstance(parsed, pl.Expr)
    return parsed


def random_rows(rng: random.Random, n_rows: int) -> pl.DataFrame:
    """Return rows with nulls, NaN, negative values and duplicates in every column of the catalogue."""

    def some(values: list[object]) -> list[object]:
        return [rng.choice(values) for _ in range(n_rows)]

    start = datetime(2024, 3, 30, 22, 30)
    return pl.DataFrame(
        {
            "a": some([None, -3, 0, 1, 2, 3, 7]),
            "b": some([None, 1, 2, 3, 4]),
            "f": some([None, float("nan"), float("inf"), -1.5, -0.0, 0.25, 1.5, 100.0]),
            "s": some([None, "", "x", "xy", "yx x", "Zß"]),
            "w": some([None, "x", "y"]),
            "n": some([None, "1", "-20", "3"]),
            "j": some([None, '{"x": 1}', '{"x": null}']),
            "day": some([None, "2024-05-01", "1969-12-31"]),
            "t": some([None, *(start + timedelta(minutes=25 * k) for k in range(12)), datetime(1969, 12, 31, 23, 59, 59, 999)]),
            "d": some([None, date(2024, 5, 1), date(2024, 5, 4), date(1969, 12, 31)]),
            "p": some([None, timedelta(days=-1), timedelta(hours=30, microseconds=7)]),
            "l": some([None, [], [1], [2, None, 1], [3, 3]]),
            "m": some([None, [], [1, 9]]),
            "ls": some([None, [], ["x", None], ["y", "z"]]),
            "arr": some([None, [1, 2, 3], [3, None, 1]]),
            "st": some([None, {"x": 1, "y": "p"}, {"x": None, "y": None}]),
            "g": some([None, True, False]),
            "c": some([None, "x", "yy"]),
            "e": some([None, "q", "r"]),
            "by": some([None, b"", b"xy", b"\x00x"]),
            "dec": some([None, Decimal("1.25"), Decimal("-3.50")]),
            "mp": some([None, [], [{"key": "x", "value": 1}], [{"key": "y", "value": 2}, {"key": "x", "value": None}]]),
        },
        schema={
            "a": pl.Int64, "b": pl.Int64, "f": pl.Float64, "s": pl.String, "w": pl.String, "n": pl.String, "j": pl.String, "day": pl.String,
            "t": pl.Datetime("us"), "d": pl.Date, "p": pl.Duration("us"), "l": pl.List(pl.Int64), "m": pl.List(pl.Int64),
            "ls": pl.List(pl.String), "arr": pl.Array(pl.Int64, 3), "st": pl.Struct({"x": pl.Int64, "y": pl.String}), "g": pl.Boolean,
            "c": pl.Categorical, "e": pl.Enum(["r", "q"]), "by": pl.Binary, "dec": pl.Decimal(10, 2),
            "mp": pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})),
        },
    ).with_columns(pl.col("mp").list.to_map())  # fmt: skip


def tags(text: str) -> list[str]:
    """Return the names of nodes and functions in an expression's tree, outermost first."""
    found = everything_in(tree_of(expression(text), verb="catalogue"))
    return [name for name, _ in found if name[:1].isupper()]


def all_tags() -> dict[str, list[str]]:
    """Return the tags of every expression of the catalogue."""
    return {text: tags(text) for text in [*ALLOWED, *(line.split(" | ")[0].rstrip() for line in REFUSED)]}


def functions(text: str) -> set[str]:
    """Return the functions that an expression calls."""
    tree = tree_of(expression(text), verb="catalogue")
    return {function_of(body)[0] for tag, body in everything_in(tree) if tag == "Function"}


if __name__ == "__main__":
    lines = [f"{json.dumps(text)}: {json.dumps(' '.join(found))}" for text, found in all_tags().items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
