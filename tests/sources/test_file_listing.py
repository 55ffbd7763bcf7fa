"""Which files a pattern means: the same on a local disk and through fsspec."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import polars as pl
import pytest

from microbatch.errors import PlanError, SourceError
from microbatch.sources.file_listing import Listing, Pattern, parse_patterns, scheme_of

TREE = [
    "a.csv", "b.txt", ".hidden.csv", "_SUCCESS", "c.csv._COPYING_",
    "sub/1.csv", "sub/_x.csv", "sub/deep/2.csv", "sub/deep/er/3.csv", "out.csv/part-0.csv", "out.csv/more/4.csv",
    "_tmp/5.csv", ".git/6.csv", "_day=1/7.csv", "day=2/8.csv", "day=2/hour=3/9.csv",
]  # fmt: skip


@pytest.fixture(params=["local", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The tree, on a disk and in fsspec's memory."""
    if request.param == "local":
        for name in TREE:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        yield str(tmp_path)
        return
    file_system = fsspec.filesystem("memory")
    for name in TREE:
        file_system.pipe_file(f"/listing/{name}", b"x")
    yield "memory:///listing"
    file_system.rm("/listing", recursive=True)


def names(base: str, *patterns: str, enter: str = "no") -> list[str]:
    listing = Listing(
        parse_patterns([f"{base}/{pattern}".rstrip("/") for pattern in patterns]),
        enter=lambda name: {"no": False, "all": True, "hive": "=" in name}[enter],
        storage_options={},
    )
    return sorted(path.split(f"{base.removeprefix('memory://')}/")[1] for path in listing.all()["path"].to_list())


def test_a_folder_is_the_files_directly_in_it(base: str) -> None:
    assert names(base, "") == ["a.csv", "b.txt"]


def test_a_glob_is_the_files_at_its_depth_and_directly_in_folders_there(base: str) -> None:
    assert names(base, "*.csv") == ["a.csv", "out.csv/part-0.csv"]
    assert names(base, "*/*") == [
        "_day=1/7.csv", "day=2/8.csv", "day=2/hour=3/9.csv", "out.csv/more/4.csv", "out.csv/part-0.csv", "sub/1.csv", "sub/deep/2.csv",
    ]  # fmt: skip


def test_two_stars_are_any_depth(base: str) -> None:
    assert names(base, "sub/**") == ["sub/1.csv", "sub/deep/2.csv", "sub/deep/er/3.csv"]
    assert names(base, "sub/**/*.csv") == ["sub/1.csv", "sub/deep/2.csv", "sub/deep/er/3.csv"]
    assert names(base, "**/2.csv") == ["sub/deep/2.csv"]


def test_recursive_enters_all_folders_that_are_not_hidden(base: str) -> None:
    assert names(base, "sub", enter="all") == ["sub/1.csv", "sub/deep/2.csv", "sub/deep/er/3.csv"]


def test_partition_folders_are_entered_by_their_names(base: str) -> None:
    assert names(base, "", enter="hive") == ["_day=1/7.csv", "a.csv", "b.txt", "day=2/8.csv", "day=2/hour=3/9.csv"]


def test_hidden_names_are_read_if_the_pattern_says_so(base: str) -> None:
    assert names(base, "_tmp/*.csv") == ["_tmp/5.csv"]
    assert names(base, "_t*/*.csv") == ["_tmp/5.csv"]


def test_sets_and_alternatives(base: str) -> None:
    assert names(base, "[ab].*") == ["a.csv", "b.txt"]
    assert names(base, "?.{csv,txt}") == ["a.csv", "b.txt"]
    assert names(base, "{sub,out.csv}/*.csv") == ["out.csv/part-0.csv", "sub/1.csv"]


def test_a_file_stands_for_itself(base: str) -> None:
    assert names(base, "a.csv") == ["a.csv"]
    assert names(base, "a.csv/*") == []


def test_a_file_that_two_patterns_mean_comes_once(base: str) -> None:
    assert names(base, "*.csv", "a.csv", "") == ["a.csv", "b.txt", "out.csv/part-0.csv"]


def test_a_new_file_is_found_by_the_next_look(base: str) -> None:
    listing = Listing(parse_patterns(f"{base}/*.new"), enter=lambda name: False, storage_options={})
    assert listing.all().is_empty()
    if base.startswith("memory"):
        fsspec.filesystem("memory").pipe_file("/listing/x.new", b"xy")
    else:
        Path(base, "x.new").write_text("xy")
    assert listing.all()["bytes"].to_list() == [2]


def test_files_come_by_time_then_path(tmp_path: Path) -> None:
    for name, mtime_ns in (("b", 2_000_999_999), ("a", 2_000_000_000), ("c", 1_000_000_000)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, ns=(mtime_ns, mtime_ns))
    found = Listing(parse_patterns(str(tmp_path)), enter=lambda name: False, storage_options={}).all()
    # Whole milliseconds, as the log keeps them: b and a are of the same one.
    assert found.select(pl.col("path").str.slice(-1), "mtime_us").rows() == [("c", 1_000_000), ("a", 2_000_000), ("b", 2_000_000)]


def test_a_file_gone_between_listing_and_look_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    listing = Listing(parse_patterns(str(tmp_path)), enter=lambda name: False, storage_options={})
    paths = listing.paths()
    (tmp_path / "a").unlink()
    assert listing.details(paths).is_empty()


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    listing = Listing(parse_patterns(f"{tmp_path}/nowhere/*.csv"), enter=lambda name: False, storage_options={})
    with pytest.raises(SourceError, match=f"{tmp_path}/nowhere does not exist: make the folder, or correct the path"):
        listing.paths()


def test_a_relative_path_is_resolved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_patterns("in/*.csv") == (Pattern(f"{tmp_path}/in", ("*.csv",)),)


def test_a_file_url_is_a_local_path() -> None:
    assert parse_patterns("file:///data/a%20b/*.csv") == (Pattern("/data/a b", ("*.csv",)),)


def test_other_urls_stay_whole() -> None:
    assert parse_patterns("s3://bucket/in/**/*.csv") == (Pattern("s3://bucket/in", ("**", "*.csv")),)
    assert scheme_of("S3://bucket/x") == "s3"


@pytest.mark.parametrize("path", ["", [], [""], 5, ["a", 5], None])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(PlanError, match="is no path; name a folder, a glob"):
        parse_patterns(path)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(PlanError, match="nope:// cannot be opened"):
        Listing(parse_patterns("nope://x/y"), enter=lambda name: False, storage_options={}).paths()


def test_a_store_without_times_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    file_system = fsspec.filesystem("memory")
    file_system.pipe_file("/timeless/a", b"x")
    info = {"name": "/timeless/a", "size": 1, "type": "file"}
    monkeypatch.setattr(type(file_system), "ls", lambda self, path, detail=True: [info])
    with pytest.raises(SourceError, match="/a: its file system does not say when it was last changed"):
        Listing(parse_patterns("memory:///timeless"), enter=lambda name: False, storage_options={}).all()
