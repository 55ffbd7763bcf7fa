"""Removing single keys from a table, against a dictionary that does the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.state import hashing
from microbatch.checkpoint.state.compaction import Thresholds
from microbatch.checkpoint.state.store import StateStore
from microbatch.checkpoint.state.table import Table
from microbatch.protocols import TableSpec

SPEC = TableSpec(keys=("k",), time_key=None, schema=pl.Schema({"k": pl.String(), "v": pl.Int64(), "w": pl.String()}), removable=True)
KEYS = [None, "", *"abcdefghij"]


def frame(rows: dict[str | None, int]) -> pl.DataFrame:
    """Return rows of the table; every third one has a null among its values."""
    values = {"k": list(rows), "v": list(rows.values()), "w": [None if v % 3 == 0 else str(v) for v in rows.values()]}
    return pl.DataFrame(values, schema=SPEC.schema)


def change(table: Table, model: dict[str | None, int], rng: random.Random, value: int) -> None:
    """Look up some keys, then upsert some and remove others, as the model does."""
    asked = rng.sample(KEYS, rng.randrange(1, 6))
    prepared = table.prepare(frame(dict.fromkeys(asked, value)))
    found = table.lookup(prepared)
    assert found["v"].to_list() == [model.get(k) for k in prepared["k"]]
    goes = pl.Series([rng.random() < 0.5 for _ in asked])
    there = found["v"].is_not_null()
    table.upsert(prepared.filter(~goes), known=int((there & ~goes).sum()))
    table.remove(prepared.filter(goes), known=int((there & goes).sum()))
    for key, is_gone in zip(prepared["k"], goes, strict=True):
        model.pop(key, None) if is_gone else model.update({key: value})


def same_hash(rows: pl.DataFrame, spec: TableSpec) -> pl.Series:
    return pl.repeat(7, rows.height, dtype=pl.UInt64, eager=True).alias(hashing.HASH)


@pytest.mark.parametrize("collide", [False, True], ids=["hashed", "every-hash-equal"])
@pytest.mark.parametrize("seed", range(3))
def test_table_with_removals_is_the_dictionary_after_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, collide: bool
) -> None:
    few = Thresholds(flush_deltas=6, part_rows=4)  # so that runs go to files, and files are merged
    if collide:
        monkeypatch.setattr(hashing, "hashes_of", same_hash)
    rng, model = random.Random(seed), dict[str | None, int]()
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None, thresholds=few)
    table = store.table("t", SPEC)
    for version in range(1, 40):
        change(table, model, rng, version)
        name = store.commit(version, "00000000").result()
        if rng.random() < 0.15:
            store.close()
            store = StateStore.open(LocalFolder(tmp_path), version=version, delta_name=name, thresholds=few)
            table = store.table("t", SPEC)
        assert dict(table.scan().select("k", "v").iter_rows()) == model
        assert table.rows == len(model)
    store.close()


def removed_everywhere(tmp_path: Path, batches: int) -> Table:
    """Return a table in which ten keys were put and removed again, and that then saw some more batches."""
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None)
    table = store.table("t", SPEC)
    rows: dict[Any, int] = dict.fromkeys(KEYS, 1)
    table.upsert(table.prepare(frame(rows)), known=0)
    store.commit(1, "00000000").result()
    table.remove(table.prepare(pl.DataFrame({"k": KEYS})), known=len(KEYS))
    for version in range(2, 2 + batches):
        store.commit(version, "00000000").result()
        table.upsert(table.prepare(frame({"new": version})), known=int(version > 2))
    store.close()
    return table


def test_removed_keys_leave_no_row_once_the_oldest_run_was_merged(tmp_path: Path) -> None:
    table = removed_everywhere(tmp_path, 8)
    assert sum(run.rows for run in table.runs) < len(KEYS)
    assert table.rows == 1


def test_a_removed_key_hides_its_row_in_an_older_run_until_then(tmp_path: Path) -> None:
    table = removed_everywhere(tmp_path, 1)
    assert sum(run.rows for run in table.runs) > 2 * len(KEYS)
    assert table.lookup(table.prepare(pl.DataFrame({"k": KEYS})))["v"].null_count() == len(KEYS)
    assert table.scan()["k"].to_list() == ["new"]


def test_eviction_counts_no_removed_key(tmp_path: Path) -> None:
    schema = pl.Schema({"k": pl.Int64(), "t": pl.Int64(), "v": pl.Int64()})
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None)
    table = store.table("t", TableSpec(keys=("k", "t"), time_key="t", schema=schema, removable=True))
    rows = table.prepare(pl.DataFrame({"k": [1, 2, 3], "t": [10, 10, 20], "v": [1, 2, 3]}))
    table.upsert(rows, known=0)
    table.remove(rows.filter(k=2), known=1)
    assert table.evict(10).rows() == [(1, 10, 1)]
    assert table.rows == 1
    store.close()


def test_an_upsert_over_a_removed_key_counts_it_again(tmp_path: Path) -> None:
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None)
    table = store.table("t", SPEC)
    rows = table.prepare(frame({"a": 1}))
    table.upsert(rows, known=0)
    table.lookup(rows)
    table.remove(rows)
    table.lookup(rows)
    table.upsert(rows)
    assert table.rows == 1
    store.close()
