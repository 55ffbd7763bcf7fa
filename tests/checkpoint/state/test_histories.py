"""Tables against a dict, over random histories of changes, merges, evictions and restarts."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from microbatch.checkpoint.state import hashing
from microbatch.checkpoint.state.delta_file import read_footer
from microbatch.checkpoint.state.manifest import files_in
from tests.checkpoint.state.model import History


def _colliding(keys: pl.DataFrame) -> pl.Series:
    """Hash keys to three values, so that almost all collide."""
    return (keys.hash_rows(seed=0) % 3).rename("")


def _one_value(keys: pl.DataFrame) -> pl.Series:
    return pl.zeros(keys.height, pl.UInt64, eager=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_table_is_a_dict_whatever_is_merged_evicted_and_restarted(tmp_path: Path, seed: int) -> None:
    run_history(tmp_path, seed)


@pytest.mark.parametrize("hashes", [_colliding, _one_value])
@pytest.mark.parametrize("seed", range(1))
def test_keys_with_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: object, seed: int) -> None:
    monkeypatch.setattr(hashing, "hash_rows", hashes)
    run_history(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_a_table_is_a_dict_over_many_histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    if seed % 2:
        monkeypatch.setattr(hashing, "hash_rows", _colliding)
    run_history(tmp_path, seed, batches=120)


def run_history(root: Path, seed: int, batches: int = 25) -> None:
    rng = random.Random(seed)
    history = History(root, rng)
    for _ in range(batches):
        history.batch()
        if rng.random() < 0.1:
            history.reopen()
            history.check()
        if rng.random() < 0.05 and history.committed:
            history.reopen(rng.choice(list(history.committed)))
            history.check()
    history.store.close()


@pytest.mark.parametrize("retain", [1, 5])
def test_every_retained_version_can_be_opened_again(tmp_path: Path, retain: int) -> None:
    rng = random.Random(retain)
    history = History(tmp_path, rng, retain_versions=retain)
    for _ in range(35):
        history.batch()
    newest = history.version
    for version in range(newest - retain, newest + 1):
        history.store.close()
        history.open(version)
        history.check()
    history.store.close()


def test_files_no_retained_version_names_go_and_all_others_stay(tmp_path: Path) -> None:
    history = History(tmp_path, random.Random(0), retain_versions=2)
    history.batch()
    history.reopen()
    orphans = [tmp_path / "runs" / "keyed" / "of-a-merge-that-died.arrow", tmp_path / f"{0:020}-ffffffff.delta"]
    for orphan in orphans:
        orphan.parent.mkdir(parents=True, exist_ok=True)
        orphan.write_bytes(b"half")
    for _ in range(31):
        history.batch()
    history.store.close()
    assert history.version == 32
    deltas = [tmp_path / history.committed[version][0] for version in (30, 31, 32)]
    named = {*deltas, *(tmp_path / name for delta in deltas for name in files_in(read_footer(delta)))}
    there = {*tmp_path.glob("*.delta"), *tmp_path.glob("runs/*/*.arrow")}
    assert named <= there
    assert not there & set(orphans)
    # What is left beside them was merged for a version still to come.
    assert all(file.suffix == ".arrow" for file in there - named)
