"""The state in an object store: what merges make lasts there, what a restart needs comes back, what nobody needs goes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pytest

from microbatch.checkpoint.object_folder import ObjectFolder
from microbatch.checkpoint.place import folder_at
from microbatch.checkpoint.state.compaction import Thresholds
from microbatch.checkpoint.state.store import StateStore
from microbatch.clock import new_uuid
from microbatch.errors import CheckpointCorruptError
from microbatch.protocols import TableSpec

SPEC = TableSpec(keys=("k",), time_key=None, schema=pl.Schema({"k": pl.Int64, "v": pl.Int64}))
FLUSH = Thresholds(flush_deltas=2, inline_rows=0)
RETAIN = 3


@pytest.fixture
def state(s3: str, tmp_path: Path) -> ObjectFolder:
    folder = folder_at(f"{s3}/{tmp_path.name}/state")
    assert isinstance(folder, ObjectFolder)
    return folder


def opened(state: ObjectFolder, version: int = 0, name: str | None = None) -> StateStore:
    return StateStore.open(state, version=version, delta_name=name, thresholds=FLUSH, retain_versions=RETAIN)


def commit(store: StateStore, version: int) -> str:
    """Put version ``version`` of keys 0 to 9 and of a key of its own, and wait for what is merged."""
    table = store.table("t", SPEC) if version == 1 else store._tables["t"]
    rows = table.prepare(pl.DataFrame({"k": [*range(10), 100 + version], "v": [version] * 11}))
    table.lookup(rows)
    table.upsert(rows)
    name = store.commit(version, new_uuid()[:8]).result()
    for merge in store.merging:
        merge.result()
    return name


def held(store: StateStore) -> list[tuple[int, int]]:
    return sorted(store.table("t", SPEC).scan().rows())


def expected(version: int) -> list[tuple[int, int]]:
    return [(k, version) for k in range(10)] + [(100 + v, v) for v in range(1, version + 1)]


def test_a_restart_finds_what_was_committed_though_nothing_of_it_is_here(state: ObjectFolder) -> None:
    store, names = opened(state), dict[int, str]()
    for version in range(1, 9):
        names[version] = commit(store, version)
    root = store._files.root
    store.close()
    assert not root.exists()
    assert [name for name in state.below() if name.startswith("runs/t/")] != []
    for version in (8, 7):
        again = opened(state, version, names[version])
        assert held(again) == expected(version)
        again.close()


def test_what_nobody_needs_is_removed_from_the_store_and_here(state: ObjectFolder) -> None:
    store = opened(state)
    state.add(f"{0:020}-deadbeef.delta", b"an attempt that died")
    state.add("notes.delta", b"none of ours")
    names = {version: commit(store, version) for version in range(1, 33)}
    left = state.below()
    here = sorted(path.relative_to(store._files.root).as_posix() for path in store._files.root.rglob("*.arrow"))
    store.close()
    assert f"{0:020}-deadbeef.delta" not in left
    assert "notes.delta" in left
    assert names[1] not in left
    assert set(here) == {name for name in left if name.endswith(".arrow")}
    assert len(left) < 32
    for version in (32, 32 - RETAIN):
        again = opened(state, version, names[version])
        assert held(again) == expected(version)
        again.close()


def test_a_run_taken_for_dead_removes_nothing_of_its_successor(state: ObjectFolder) -> None:
    zombie = opened(state)
    names = {version: commit(zombie, version) for version in range(1, 16)}
    successor = opened(state, 15, names[15])
    successor.table("t", SPEC)
    for version in range(16, 24):
        names[version] = commit(successor, version)
    commit(zombie, 16)  # the sixteenth is when it clears away
    successor.close()
    zombie.close()
    again = opened(state, 23, names[23])
    assert held(again) == expected(23)
    again.close()


def test_a_kept_cache_is_used_again(state: ObjectFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROBATCH_CACHE", str(tmp_path / "cache"))
    store = opened(state)
    names = {version: commit(store, version) for version in range(1, 9)}
    store.close()
    again = opened(state, 8, names[8])
    assert held(again) == expected(8)
    cached = {path.name for path in (tmp_path / "cache").rglob("*.*") if path.is_file()}
    again.close()
    assert names[8] in cached
    for name in state.below():
        if name.endswith(".arrow"):
            state.remove(name)
    third = opened(state, 8, names[8])  # the runs are here, so the store is not asked for them
    assert held(third) == expected(8)
    third.close()


def test_a_missing_file_is_named_by_its_url_and_no_copy_stays(state: ObjectFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = opened(state)
    names = {version: commit(store, version) for version in range(1, 9)}
    store.close()
    [*_, run] = [name for name in state.below() if name.endswith(".arrow")]
    for name in state.below():
        if name.endswith(".arrow"):
            state.remove(name)
    with pytest.raises(CheckpointCorruptError, match=r"state file s3://.*/state/runs/t/.*\.arrow is missing; restore the checkpoint"):
        opened(state, 8, names[8])
    assert list(tmp_path.iterdir()) == []
    assert run not in state.below()
