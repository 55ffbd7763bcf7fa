"""Runs that lie on the disk: the same answers, the pages asked for, and a fence that can be lost."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.state import fence
from microbatch.checkpoint.state.compaction import Thresholds
from microbatch.checkpoint.state.store import StateStore
from microbatch.checkpoint.state.table import Table
from microbatch.protocols import TableSpec
from tests.checkpoint.state.model import EAGER, History

SPEC = TableSpec(keys=("k",), time_key=None, schema=pl.Schema({"k": pl.Int64(), "v": pl.Int64(), "s": pl.String()}))
ROWS = 30_000


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state of one run with the even numbers, in a file."""
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None, thresholds=Thresholds(flush_deltas=0))
    table = store.table("t", SPEC)
    keys = np.arange(ROWS) * 2
    table.upsert(table.prepare(pl.DataFrame({"k": keys, "v": -keys, "s": keys.astype(str)})), known=0)
    for version in (1, 2, 3):
        store.commit(version, "00000000").result()
        for merge in store.merging:
            merge.result()
    store.close()
    return tmp_path


def opened(state: Path, memory_bytes: int) -> Table:
    name = f"{2:020}-00000000.delta"
    store = StateStore.open(LocalFolder(state), version=3, delta_name=name, thresholds=Thresholds(memory_bytes=memory_bytes))
    table = store.table("t", SPEC)
    store.close()
    return table


@pytest.mark.parametrize("n_keys", [1, 5, ROWS])
def test_a_run_on_the_disk_gives_the_same_rows(state: Path, n_keys: int) -> None:
    keys = pl.DataFrame({"k": np.random.default_rng(n_keys).choice(2 * ROWS + 10, n_keys, replace=False) - 5})
    answers = []
    for memory_bytes in (0, 1 << 40):
        table = opened(state, memory_bytes)
        assert (table.runs[0].fence is not None) == (memory_bytes == 0)
        prepared = table.prepare(keys)
        answers.append(prepared.select("k").hstack(table.lookup(prepared)))
    assert answers[0].equals(answers[1])
    there = answers[0].filter(pl.col("v").is_not_null())
    assert sorted(there["k"]) == sorted(k for k in keys["k"] if k % 2 == 0 and 0 <= k < 2 * ROWS)
    assert (there["v"] == -there["k"]).all()


def test_the_first_and_last_row_of_every_page_are_found(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "_LARGE_SHARE", 0)
    table = opened(state, 0)
    run = table.runs[0]
    edges = sorted({row for page in range(0, ROWS, fence.PAGE_ROWS) for row in (page - 1, page, page + 1) if 0 <= row < ROWS} | {ROWS - 1})
    expected = run.frame[edges].select("v", "s")
    assert table.lookup(run.frame[edges]).equals(expected)


def test_histories_hold_with_every_run_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "_LARGE_SHARE", 0)
    monkeypatch.setattr(fence, "PAGE_ROWS", 4)
    rng = random.Random(3)
    history = History(tmp_path, rng, thresholds=replace(EAGER, memory_bytes=0))
    for _ in range(25):
        history.batch()
        if rng.random() < 0.2:
            history.reopen()
            history.check()
    history.store.close()


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "of another run"])
def test_a_fence_that_is_not_right_is_made_again(state: Path, damage: str) -> None:
    right = opened(state, 0).runs[0].fence
    assert right is not None
    (file,) = state.glob("runs/t/*.fence")
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        at = {"cut": len(whole), "flipped": len(whole) - 1, "of another run": 9}[damage]
        file.write_bytes(whole[:-3] if damage == "cut" else whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    again = opened(state, 0).runs[0].fence
    assert again is not None
    assert (again.firsts == right.firsts).all()
    assert file.read_bytes() == whole
