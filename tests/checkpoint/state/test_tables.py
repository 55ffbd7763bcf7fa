"""What a table gives back: every dtype, keys that are hard to compare, times on both sides of those it holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.state import hashing
from microbatch.checkpoint.state.compaction import Thresholds
from microbatch.checkpoint.state.store import StateStore
from microbatch.checkpoint.state.table import Table
from microbatch.errors import PlanError
from microbatch.protocols import TableSpec

FLUSH_AT_ONCE = Thresholds(flush_deltas=0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    opened = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None)
    yield opened
    opened.close()


def keyed(*keys: str, time_key: str | None = None, **schema: Any) -> TableSpec:
    return TableSpec(keys=keys, time_key=time_key, schema=pl.Schema(schema))


def put(table: Table, rows: pl.DataFrame) -> None:
    prepared = table.prepare(rows)
    table.lookup(prepared)
    table.upsert(prepared)


def values_of(table: Table, keys: pl.DataFrame) -> pl.DataFrame:
    """Return keys with the values found, in the order of the keys."""
    asked = table.prepare(keys.with_columns(pl.lit(None, d).alias(n) for n, d in table.spec.schema.items() if n not in keys.columns))
    found = asked.select(keys.columns).hstack(table.lookup(asked))
    return keys.join(found, on=keys.columns, how="left", nulls_equal=True, maintain_order="left")


VALUES: dict[str, tuple[Any, list[Any]]] = {
    "int8": (pl.Int8(), [1, -128, None]),
    "uint64": (pl.UInt64(), [2**64 - 1, 0, None]),
    "float32": (pl.Float32(), [1.5, None, -0.0]),
    "float64": (pl.Float64(), [float("nan"), float("-inf"), None]),
    "boolean": (pl.Boolean(), [True, None, False]),
    "string": (pl.String(), ["", "longer than twelve bytes", None]),
    "binary": (pl.Binary(), [b"", b"\x00\xff", None]),
    "date": (pl.Date(), [date(1, 1, 1), date(9999, 12, 31), None]),
    "time": (pl.Time(), [time(0), time(23, 59, 59, 999_999), None]),
    "datetime": (pl.Datetime("ns", "Europe/Berlin"), [datetime(2024, 3, 31, 1, tzinfo=UTC), None, datetime(1970, 1, 1, tzinfo=UTC)]),
    "duration": (pl.Duration("ms"), [timedelta(0), timedelta(-1), None]),
    "decimal": (pl.Decimal(38, 2), [Decimal("123456789012345678901234567890.12"), Decimal("-0.01"), None]),
    "list": (pl.List(pl.String()), [[], ["a", None], None]),
    "array": (pl.Array(pl.Int16(), 2), [[1, None], [2, 3], None]),
    "struct": (pl.Struct({"a": pl.Int64(), "b": pl.List(pl.Float64())}), [{"a": 1, "b": [0.5]}, {"a": None, "b": None}, None]),
    "categorical": (pl.Categorical(), ["x", "y", None]),
    "enum": (pl.Enum(["lo", "hi"]), ["hi", "lo", None]),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("thresholds", [Thresholds(), FLUSH_AT_ONCE], ids=["delta", "file"])
def test_a_value_comes_back_as_it_was_after_a_restart(tmp_path: Path, kind: str, thresholds: Thresholds) -> None:
    dtype, values = VALUES[kind]
    spec = keyed("k", k=pl.Int64(), v=dtype)
    rows = pl.DataFrame({"k": [1, 2, 3], "v": pl.Series(values, dtype=dtype)}, schema=spec.schema)
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None, thresholds=thresholds)
    put(store.table("t", spec), rows)
    name = ""
    for version in (1, 2, 3):
        name = store.commit(version, f"{version:08x}").result()
    store.close()
    again = StateStore.open(LocalFolder(tmp_path), version=3, delta_name=name)
    table = again.table("t", spec)
    assert_frame_equal(values_of(table, rows.select("k")), rows)
    assert_frame_equal(table.scan().sort("k"), rows)
    again.close()


KEYS: dict[str, tuple[Any, list[Any]]] = {
    **{k: v for k, v in VALUES.items() if k not in ("categorical", "enum", "float32", "float64")},
    "floats": (pl.Float64(), [float("nan"), 0.0, None, 1e300]),
}


@pytest.mark.parametrize("collide", [False, True])
@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_found_by_its_value(store: StateStore, monkeypatch: pytest.MonkeyPatch, kind: str, collide: bool) -> None:
    if collide:
        monkeypatch.setattr(hashing, "hash_rows", lambda keys: pl.zeros(keys.height, pl.UInt64, eager=True))
    dtype, values = KEYS[kind]
    keys = pl.DataFrame({"k": pl.Series(values, dtype=dtype)})
    table = store.table("t", keyed("k", k=dtype, v=pl.Int64()))
    put(table, keys.with_columns(v=pl.lit(7, pl.Int64)))
    put(table, keys.with_columns(v=pl.int_range(pl.len(), dtype=pl.Int64)))
    found = values_of(table, keys)["v"].to_list() if kind not in ("list", "array", "struct") else table.scan()["v"].sort().to_list()
    assert found == list(range(len(values)))
    assert table.rows == len(values)


def test_minus_zero_is_zero_and_every_nan_is_one_key(store: StateStore) -> None:
    table = store.table("t", keyed("k", k=pl.Float64(), v=pl.Int64()))
    put(table, pl.DataFrame({"k": [0.0, float("nan")], "v": [1, 2]}))
    negative_nan = pl.Series([float("inf")]) - pl.Series([float("inf")])
    put(table, pl.DataFrame({"k": [-0.0, -negative_nan[0]], "v": [3, 4]}))
    assert table.rows == 2
    assert sorted(table.scan()["v"]) == [3, 4]


def test_a_time_before_all_others_hides_no_key_of_the_first_one(store: StateStore) -> None:
    table = store.table("t", keyed("t", "k", time_key="t", t=pl.Int64(), k=pl.Int64(), v=pl.Int64()))
    put(table, pl.DataFrame({"t": [10, 10, 20], "k": [1, 2, 3], "v": [1, 2, 3]}))
    asked = pl.DataFrame({"t": [5, 10, 10, 15, 20, 25], "k": [1, 1, 2, 3, 3, 3]})
    assert values_of(table, asked)["v"].to_list() == [None, 1, 2, None, 3, None]


@pytest.mark.parametrize("collide", [False, True])
def test_the_latest_time_of_a_key_is_found_without_its_time(store: StateStore, monkeypatch: pytest.MonkeyPatch, collide: bool) -> None:
    if collide:
        monkeypatch.setattr(hashing, "hash_rows", lambda keys: pl.zeros(keys.height, pl.UInt64, eager=True))
    rng, model = random.Random(1), dict[tuple[str | None, int], int]()
    table = store.table("t", keyed("k", "t", time_key="t", k=pl.String(), t=pl.Int64(), v=pl.Int64()))
    for batch in range(12):
        rows = {(rng.choice([None, *"abcdefgh"]), rng.randrange(batch, batch + 4)): rng.randrange(99) for _ in range(6)}
        put(table, pl.DataFrame([(k, t, v) for (k, t), v in rows.items()], schema=table.spec.schema, orient="row"))
        model |= rows
        if batch % 4 == 3:
            table.evict(batch - 2)
            model = {(k, t): v for (k, t), v in model.items() if t > batch - 2}
        asked = rng.sample([None, *"abcdefghxyz"], 12)
        latest = {k: max((t for key, t in model if key == k), default=-1) for k in asked}
        found = table.lookup_latest(pl.DataFrame({"k": asked}, schema={"k": pl.String()}))
        assert found["v"].to_list() == [model.get((k, latest[k])) for k in asked]


def test_many_times_are_searched_as_few_are(store: StateStore) -> None:
    spec = keyed("t", "k", time_key="t", t=pl.Int64(), k=pl.Int64(), v=pl.Int64())
    rows = pl.DataFrame({"t": range(0, 4_000, 2), "k": range(2_000), "v": range(2_000)}, schema=spec.schema)
    table = store.table("t", spec)
    put(table, rows)
    asked = pl.DataFrame({"t": range(4_000), "k": [t // 2 for t in range(4_000)]})
    assert values_of(table, asked)["v"].to_list() == [v for t in range(4_000) for v in [t // 2 if t % 2 == 0 else None]]


def test_evicted_keys_are_counted_once_however_many_runs_hold_them(store: StateStore) -> None:
    table = store.table("t", keyed("t", "k", time_key="t", t=pl.Int64(), k=pl.Int64(), v=pl.Int64()))
    put(table, pl.DataFrame({"t": [1, 1, 2], "k": [1, 2, 3], "v": [0, 0, 0]}))
    assert table.evict_count(1) == 2
    put(table, pl.DataFrame({"t": [2, 3], "k": [3, 3], "v": [1, 1]}))
    assert table.evict_count(2) == 1
    assert table.rows == 1


def test_a_row_without_time_is_never_evicted(store: StateStore) -> None:
    table = store.table("t", keyed("t", time_key="t", t=pl.Datetime("ms"), v=pl.Int64()))
    put(table, pl.DataFrame({"t": [None, datetime(2024, 1, 1)], "v": [1, 2]}, schema=table.spec.schema))
    assert table.evict(2**62)["v"].to_list() == [2]
    assert table.scan()["v"].to_list() == [1]


@pytest.mark.parametrize("dtype", [pl.Int128(), pl.UInt128(), pl.Null(), pl.Object()], ids=str)
def test_a_value_no_file_can_keep_is_refused(store: StateStore, dtype: Any) -> None:
    with pytest.raises(PlanError, match=f"state of totals: column 'v' is {dtype}.*cast it"):
        store.table("totals", keyed("k", k=pl.Int64(), v=dtype))


@pytest.mark.parametrize("dtype", [pl.Categorical(), pl.Enum(["a"])], ids=str)
def test_a_category_as_key_is_refused(store: StateStore, dtype: Any) -> None:
    with pytest.raises(PlanError, match=r"state of totals: key 'k' is .*cast it to pl.String"):
        store.table("totals", keyed("k", k=dtype, v=pl.Int64()))
