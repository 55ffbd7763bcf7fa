"""Which files count as new."""

from __future__ import annotations

import random

import polars as pl
import pytest

from microbatch.sources.seen_files import SeenFiles


def files(*pairs: tuple[str, int]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema={"path": pl.String, "mtime_us": pl.Int64}, orient="row")


def test_only_the_purge_makes_a_file_too_old() -> None:
    seen = SeenFiles(max_age_us=10)
    seen.add("a", 20)
    assert seen.is_new("b", 9)
    seen.purge()
    assert not seen.is_new("b", 9)
    assert seen.is_new("b", 10)


def test_a_seen_file_is_not_new_whatever_its_time() -> None:
    seen = SeenFiles(max_age_us=10)
    seen.add("a", 20)
    assert not seen.is_new("a", 25)


def test_purge_forgets_files_older_than_the_newest_less_the_age() -> None:
    seen = SeenFiles(max_age_us=10)
    seen.add_all(files(("a", 5), ("b", 15)))
    assert (seen.purge(), len(seen)) == (0, 2)  # exactly 10 apart
    seen.add("c", 16)
    assert (seen.purge(), len(seen)) == (1, 2)


def test_adding_a_file_again_replaces_its_time() -> None:
    seen = SeenFiles(max_age_us=10)
    seen.add("a", 5)
    seen.add_all(files(("a", 20), ("b", 21)))
    assert (seen.purge(), len(seen)) == (0, 2)


def test_the_last_of_equal_paths_counts() -> None:
    seen = SeenFiles(max_age_us=10)
    seen.add_all(files(("a", 100), ("a", 5), ("b", 14)))
    assert (seen.purge(), len(seen)) == (0, 2)


def test_without_age_no_file_is_too_old() -> None:
    seen = SeenFiles(max_age_us=None)
    seen.add("a", 1_000_000)
    assert seen.purge() == 0
    assert seen.is_new("b", -5)


def test_a_purged_file_that_changed_is_new_again() -> None:
    seen = SeenFiles(max_age_us=10)
    seen.add_all(files(("a", 5), ("b", 100)))
    seen.purge()
    assert not seen.is_new("a", 5)
    assert seen.is_new("a", 101)


def test_aged_out_are_files_never_met_and_too_old() -> None:
    seen = SeenFiles(max_age_us=10)
    assert seen.aged_out(files(("x", 1))).height == 0
    seen.add_all(files(("a", 5), ("b", 100)))
    seen.purge()
    listed = files(("a", 5), ("b", 100), ("late", 89), ("new", 90))
    assert seen.aged_out(listed)["path"].to_list() == ["late"]
    assert seen.new(listed)["path"].to_list() == ["new"]


def test_adding_nothing_changes_nothing() -> None:
    seen = SeenFiles(max_age_us=10)
    seen.add_all(files())
    assert (seen.purge(), len(seen)) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_it_answers_as_a_dictionary_would(seed: int) -> None:
    rng = random.Random(seed)
    seen, times, newest, mark = SeenFiles(max_age_us=30), dict[str, int](), -1, -(10**9)
    for _ in range(60):
        path, mtime_us = f"f{rng.randrange(25)}", rng.randrange(100)
        match rng.randrange(3):
            case 0:
                seen.add(path, mtime_us)
                times[path] = mtime_us
                newest = max(newest, mtime_us)
            case 1 if newest >= 0:
                mark = newest - 30
                kept = {p: t for p, t in times.items() if t >= mark}
                assert seen.purge() == len(times) - len(kept)
                times = kept
            case _:
                assert seen.is_new(path, mtime_us) == (path not in times and mtime_us >= mark), f"seed {seed}"
    assert len(seen) == len(times)


def test_a_million_files_take_16_bytes_each() -> None:
    seen = SeenFiles(max_age_us=None)
    paths = pl.select(path=pl.format("/landing/2024/{}.parquet", pl.int_range(200_000)), mtime_us=pl.int_range(200_000))
    seen.add_all(paths)
    assert len(seen) == 200_000
    assert seen._hashes.nbytes + seen._mtimes_us.nbytes == 200_000 * 16
    assert not seen.unknown(paths["path"]).any()
    assert seen.unknown(paths["path"] + "x").all()
