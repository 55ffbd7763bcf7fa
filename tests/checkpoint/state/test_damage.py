"""Files of the state that are missing, cut, flipped, of another query or of a later format: found, named, and nothing is changed."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.state.compaction import Thresholds
from microbatch.checkpoint.state.delta_file import read_footer
from microbatch.checkpoint.state.run import Run
from microbatch.checkpoint.state.store import StateStore, only_attempt
from microbatch.errors import CheckpointCorruptError, CheckpointMismatchError
from microbatch.protocols import TableSpec

SPEC = TableSpec(keys=("k",), time_key=None, schema=pl.Schema({"k": pl.Int64(), "v": pl.String()}))
_TAIL = struct.Struct("<II8s")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state of five versions: some of it in files, the last versions in deltas."""
    store = StateStore.open(LocalFolder(tmp_path / "state"), version=0, delta_name=None, thresholds=Thresholds(flush_deltas=1))
    table = store.table("t", SPEC)
    for version in range(1, 6):
        rows = table.prepare(pl.DataFrame({"k": range(version * 50), "v": ["some text"] * version * 50}))
        table.lookup(rows)
        table.upsert(rows)
        store.commit(version, f"{version:08x}").result()
        for merge in store.merging:
            merge.result()
    store.close()
    return tmp_path / "state"


def open_at(state: Path, spec: TableSpec = SPEC, version: int = 5) -> pl.DataFrame:
    store = StateStore.open(LocalFolder(state), version=version, delta_name=only_attempt(LocalFolder(state), version))
    try:
        return store.table("t", spec).scan()
    finally:
        store.close()


def newest_delta(state: Path) -> Path:
    return max(state.glob("*.delta"))


def a_run(state: Path) -> Path:
    """Return a file the newest version names."""
    name: str = read_footer(newest_delta(state))["tables"]["t"]["runs"][0]["file"]
    return state / name


FILES = {"delta": newest_delta, "run": a_run}


def files_in(state: Path) -> dict[Path, bytes]:
    return {f: f.read_bytes() for f in state.rglob("*") if f.is_file()}


def refused(state: Path, file: Path, match: str) -> None:
    """The state cannot be opened; the message names the file and the way out; nothing is changed."""
    before = files_in(state)
    with pytest.raises(CheckpointCorruptError, match=match) as error:
        open_at(state)
    assert str(file) in str(error.value)
    assert "restore the checkpoint from a copy" in str(error.value)
    assert files_in(state) == before


def test_a_state_that_is_whole_opens(state: Path) -> None:
    assert a_run(state).exists()
    assert open_at(state).height == 250


@pytest.mark.parametrize("kind", FILES)
def test_a_missing_file_is_named(state: Path, kind: str) -> None:
    file = FILES[kind](state)
    store = StateStore.open(LocalFolder(state), version=5, delta_name=newest_delta(state).name)
    store.close()
    name = newest_delta(state).name
    file.unlink()
    with pytest.raises(CheckpointCorruptError, match=f"{file} is damaged: it is missing; restore"):
        StateStore.open(LocalFolder(state), version=5, delta_name=name).table("t", SPEC)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_is_named(state: Path, kind: str, part: float) -> None:
    file = FILES[kind](state)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    refused(state, file, "is damaged: it (has|does not end)")


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_is_found_wherever_it_is(state: Path, kind: str, seed: int) -> None:
    file, rng = FILES[kind](state), random.Random(seed)
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data)) if seed else len(data) - 1
    data[at] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    refused(state, file, "is damaged: (it|its|the) .*")


def rewritten(file: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change a delta's footer, checksum included."""
    data, footer = file.read_bytes(), read_footer(file)
    _, length, magic = _TAIL.unpack(data[-_TAIL.size :])
    change(footer)
    text = json.dumps(footer).encode()
    file.write_bytes(data[: -_TAIL.size - length] + text + _TAIL.pack(zlib.crc32(text), len(text), magic))


def test_a_later_format_is_refused_with_both_numbers(state: Path) -> None:
    rewritten(newest_delta(state), lambda footer: footer.update(format=2))
    with pytest.raises(CheckpointCorruptError, match="has state format 2, this version reads 1: use a version of microbatch that wrote it"):
        open_at(state)


def test_the_delta_of_another_version_is_refused_with_both(state: Path) -> None:
    rewritten(newest_delta(state), lambda footer: footer.update(version=7))
    refused(state, newest_delta(state), "it holds version 7, not 5")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (TableSpec(keys=("k",), time_key=None, schema=pl.Schema({"k": pl.Int64(), "v": pl.Int64()})), "column 'v' as String.*keeps Int64"),
        (
            TableSpec(keys=("v",), time_key=None, schema=pl.Schema({"v": pl.String(), "k": pl.Int64()})),
            r"keys \['k'\], the query has \['v'\]",
        ),
        (TableSpec(keys=("k",), time_key="k", schema=SPEC.schema), "time_key None, the query has k"),
        (TableSpec(keys=("k",), time_key=None, schema=SPEC.schema, reduce=lambda rows: rows), "log False, the query has True"),
    ],
)
def test_the_state_of_another_query_is_refused_with_both(state: Path, spec: TableSpec, said: str) -> None:
    before = files_in(state)
    with pytest.raises(CheckpointMismatchError, match=f"state of t was stored with {said}.*restore the old query"):
        open_at(state, spec)
    assert files_in(state) == before


def test_a_state_with_two_attempts_and_no_commit_is_refused(state: Path) -> None:
    newest = newest_delta(state)
    newest.with_name(newest.name.replace("00000005", "0000000f")).write_bytes(newest.read_bytes())
    with pytest.raises(CheckpointCorruptError, match="version 5 is needed, no commit names its file, and there are 2 of them"):
        open_at(state)


def test_a_merge_that_fails_stops_the_query_and_harms_nothing(tmp_path: Path) -> None:
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None, thresholds=Thresholds(flush_deltas=0))
    table = store.table("t", SPEC)
    table.upsert(table.prepare(pl.DataFrame({"k": [1], "v": ["a"]})), known=0)
    (tmp_path / "runs").write_text("a file in the way")
    store.commit(1, "00000001").result()
    name = store.commit(2, "00000002").result()
    (merge,) = store.merging
    assert merge.exception() is not None
    with pytest.raises(OSError, match=f"cannot write {tmp_path}/runs/t/.*no part of it is visible"):
        store.commit(3, "00000003")
    store.close()
    (tmp_path / "runs").unlink()
    again = StateStore.open(LocalFolder(tmp_path), version=2, delta_name=name)
    assert again.table("t", SPEC).scan().rows() == [(1, "a")]
    again.close()


def test_a_large_run_lies_in_parts_of_which_none_holds_a_key_of_another(tmp_path: Path) -> None:
    thresholds = Thresholds(tier=2, flush_deltas=0, part_rows=100)
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None, thresholds=thresholds)
    table = store.table("t", SPEC)
    table.upsert(table.prepare(pl.DataFrame({"k": range(1_000), "v": ["x"] * 1_000})), known=0)
    for version in (1, 2, 3):
        store.commit(version, f"{version:08x}").result()
        for merge in store.merging:
            merge.result()
    parts: list[Run] = list(table.runs)
    assert len(parts) >= 10
    assert max(part.rows for part in parts) <= 150
    assert sorted(k for part in parts for k in part.frame["k"]) == list(range(1_000))
    assert len({part.group for part in parts}) == 1
    store.close()


def test_an_old_large_run_is_rewritten_only_once_the_young_ones_are_a_quarter_of_it(tmp_path: Path) -> None:
    thresholds = Thresholds(tier=4, flush_deltas=0, inline_rows=0)
    store = StateStore.open(LocalFolder(tmp_path), version=0, delta_name=None, thresholds=thresholds)
    table = store.table("t", SPEC)
    written, seen = 0, set[str]()
    for version in range(1, 120):
        keys = range(10_000) if version == 1 else range(10_000 + version * 100, 10_100 + version * 100)
        table.upsert(table.prepare(pl.DataFrame({"k": keys, "v": ["x"] * len(keys)})), known=0)
        store.commit(version, f"{version:08x}").result()
        for merge in store.merging:
            merge.result()
        new = {run.file.file: run.rows for run in table.runs if run.file is not None and run.file.file not in seen}
        written += sum(new.values())
        seen |= set(new)
    rows = 10_000 + 118 * 100
    assert table.rows == rows
    # 118 flushes of 100 rows, each row merged once a tier (100, 400, 1,600, 6,400), and the base a few times at most.
    assert written < 118 * 100 * 5 + 10_000 * 5
    store.close()
