"""Timers, against a list of pairs that does the same."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.state.store import StateStore
from microbatch.operators.timers import Timers, timers_table

SPEC = timers_table({"a": pl.Int64(), "b": pl.String()})


def keys(pairs: list[tuple[int | None, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema={"a": pl.Int64, "b": pl.String}, orient="row")


@pytest.mark.parametrize("seed", range(4))
def test_due_gives_each_key_once_when_the_mark_reaches_one_of_its_timers(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None)
    timers, mark = Timers(store.table("timers", SPEC)), 0
    pending: list[tuple[int, tuple[int | None, str | None]]] = []
    for version in range(1, 30):
        setting = [(mark + rng.randrange(1, 40), (rng.choice([1, 2, None]), rng.choice(["x", None]))) for _ in range(rng.randrange(6))]
        timers.set(keys([key for _, key in setting]), pl.Series([time for time, _ in setting], dtype=pl.Int64))
        pending += setting
        assert timers.next_us() == min((time for time, _ in pending), default=None)
        mark += rng.randrange(12)
        due = timers.due(mark)
        assert sorted(map(str, due.rows())) == sorted({str(key) for time, key in pending if time <= mark})
        pending = [(time, key) for time, key in pending if time > mark]
        name = store.commit(version, "00000000").result()
        if rng.random() < 0.2:
            store.close()
            store = StateStore.open(LocalFolder(tmp_path), version=version, delta_name=name)
            timers = Timers(store.table("timers", SPEC))
    store.close()


def test_a_key_without_a_time_gets_no_timer(tmp_path: Path) -> None:
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None)
    timers = Timers(store.table("timers", SPEC))
    timers.set(keys([(1, "x"), (2, "y")]), pl.Series([None, 5], dtype=pl.Int64))
    assert timers.due(10).rows() == [(2, "y")]
    store.close()


def test_the_same_timer_set_often_is_kept_once_after_a_merge(tmp_path: Path) -> None:
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None)
    table = store.table("timers", SPEC)
    for version in range(1, 10):
        Timers(table).set(keys([(1, "x")]), pl.Series([5], dtype=pl.Int64))
        store.commit(version, "00000000").result()
    assert table.rows < 4
    store.close()
