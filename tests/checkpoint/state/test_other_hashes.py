"""A state written under one hash function and read under another: sorted again, once, and right."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from microbatch.checkpoint.state import hashing
from tests.checkpoint.state.model import History

Hash = Callable[[pl.DataFrame], pl.Series]


def seeded(seed: int) -> Hash:
    return lambda keys: keys.hash_rows(seed=seed)


def few(keys: pl.DataFrame) -> pl.Series:
    return 5 - keys.hash_rows(seed=0) % 4


HASHES: list[Hash] = [seeded(0), seeded(1), few]


@pytest.mark.parametrize("seed", range(2))
def test_a_history_goes_on_when_the_hash_function_changes_at_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = random.Random(seed)
    history = History(tmp_path, rng)
    for _ in range(12):
        monkeypatch.setattr(hashing, "hash_rows", rng.choice(HASHES))
        history.reopen(rng.choice([None, *history.committed]))
        history.check()
        for _ in range(rng.randrange(4)):
            history.batch()
    history.store.close()


def test_files_are_sorted_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path, random.Random(0))
    for _ in range(20):
        history.batch()
    history.reopen()
    before = files_of(tmp_path)
    monkeypatch.setattr(hashing, "hash_rows", seeded(7))
    history.reopen()
    sorted_again = files_of(tmp_path) - before
    assert {f.parent.name for f in sorted_again} == {"keyed", "timed"}  # a log is sorted by time only
    history.commit()  # the version that names the new files
    history.reopen()
    history.check()
    before = files_of(tmp_path)
    history.reopen()
    assert files_of(tmp_path) == before
    history.store.close()


def files_of(root: Path) -> set[Path]:
    return set(root.glob("runs/*/*.arrow"))
