"""A folder in an object store keeps the promise of a local one, or is refused before anything is written."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.checkpoint import Checkpoint
from microbatch.checkpoint.object_folder import ObjectFolder
from microbatch.checkpoint.place import CheckpointFolder, folder_at
from microbatch.errors import CheckpointCorruptError, CheckpointMismatchError, PlanError


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointFolder:
    """The same folder in both places: what holds for one must hold for the other."""
    if request.param == "local":
        return folder_at(tmp_path / "a b")
    return folder_at(f"{request.getfixturevalue('s3')}/{tmp_path.name}/a b")


@pytest.fixture
def url(s3: str, tmp_path: Path) -> str:
    return f"{s3}/{tmp_path.name}"


def test_the_scheme_says_where(tmp_path: Path) -> None:
    assert isinstance(folder_at(tmp_path), LocalFolder)
    assert isinstance(folder_at(f"file://{tmp_path}"), LocalFolder)
    assert folder_at("s3://bucket/a/").path == "s3://bucket/a"


def test_a_name_is_given_once(folder: CheckpointFolder) -> None:
    assert folder.add("0", b"first")
    assert not folder.add("0", b"second")
    assert folder.read("0") == b"first"


def test_of_many_who_race_for_a_name_one_wins(folder: CheckpointFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda k: folder.add("0", str(k).encode()), range(8)))
    assert won.count(True) == 1
    assert folder.read("0") == str(won.index(True)).encode()


def test_what_was_written_is_there_at_once_and_gone_when_removed(folder: CheckpointFolder) -> None:
    assert folder.names() == []
    assert folder.read("7") is None
    folder.replace("7", b"old")
    folder.replace("7", b"new")
    folder.sub("inner").add("8", b"x")
    folder.add(".hidden", b"x")
    assert folder.names() == ["7"]
    assert folder.below() == ["7", "inner/8"]
    assert folder.sub("inner").names() == ["8"]
    assert folder.read("7") == b"new"
    folder.remove("7")
    folder.remove("7")
    folder.sync()
    assert folder.names() == []


@pytest.mark.parametrize("place", ["memory://a", "ftp://host/a", "http://host/a", "hdfs://host/a"])
def test_a_store_without_the_condition_is_refused(place: str) -> None:
    scheme = place.partition("://")[0]
    told = f"{place!r} cannot hold a checkpoint: {scheme}:// is not known to have a write that fails if the file exists"
    with pytest.raises(PlanError, match=f"{re.escape(told)}.*take a local folder, s3://, gs:// or abfs://"):
        Checkpoint.open(place)


def test_a_store_that_ignores_the_condition_is_refused() -> None:
    class Forgetful(fsspec.get_filesystem_class("memory")):  # type: ignore[misc]
        """Speaks of success whatever is there, as some that speak S3 do."""

        store: ClassVar[dict[str, object]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
            super().pipe_file(path, value, mode="overwrite")

    files = Forgetful()
    with pytest.raises(PlanError, match=r"s3://b/c cannot hold a checkpoint: the store ignores the condition .* take a local folder"):
        ObjectFolder(files, "/b/c", "s3://b/c").check_condition()
    assert files.find("/") == []


def test_a_store_that_knows_the_condition_is_taken_and_left_as_it_was(url: str) -> None:
    folder = ObjectFolder.at(url)
    folder.check_condition()
    assert fsspec.filesystem("s3").find(url) == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(PlanError, match=re.escape("'s3://b/c' needs the package s3fs: pip install 'microbatch[s3]'")):
        folder_at("s3://b/c")


def test_a_url_without_bucket_is_refused() -> None:
    with pytest.raises(PlanError, match=re.escape("'s3://' names no bucket; write s3://<bucket>/<path>")):
        folder_at("s3://")


def test_a_missing_bucket_is_told_with_the_way_out(s3: str) -> None:
    with pytest.raises(OSError, match=r"cannot write s3://nowhere-such/c/\.probe-.* bucket does not exist.*look at the bucket"):
        Checkpoint.open("s3://nowhere-such/c")


def test_a_prefix_that_holds_something_else_is_no_checkpoint(url: str) -> None:
    fsspec.filesystem("s3").pipe_file(f"{url}/table/part-0.parquet", b"x")
    with pytest.raises(CheckpointMismatchError, match=f"{re.escape(url)} is no checkpoint: it holds table and no file 'metadata'"):
        Checkpoint.open(url)


def test_state_without_a_log_is_not_taken_for_a_new_checkpoint(url: str) -> None:
    opened = Checkpoint.open(url)
    opened.state_folder.add("1.delta", b"x")
    opened.close()
    with pytest.raises(CheckpointCorruptError, match=re.escape(f"{url}/state/1.delta is there")):
        Checkpoint.open(url)
