"""Which folders may be a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from microbatch.checkpoint.layout import check_folder, local_path
from microbatch.errors import CheckpointMismatchError, PlanError


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("file:/a/b", "/a/b"),
        ("FILE://localhost/a%20b", "/a b"),
        ("/a/with:colon", "/a/with:colon"),
    ],
)
def test_local_paths_and_file_urls_are_the_same_folder(path: str, expected: str) -> None:
    assert local_path(path) == Path(expected)


def test_relative_path_and_home_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")

    assert local_path("checkpoints/a") == tmp_path / "checkpoints" / "a"
    assert local_path(Path("b")) == tmp_path / "b"
    assert local_path("~/c") == Path("/home/someone/c")


@pytest.mark.parametrize("path", ["s3://bucket/a", "abfss://c@host/a", "gs://b/a", "file://server/share"])
def test_other_places_are_refused(path: str) -> None:
    with pytest.raises(PlanError, match=re.escape(f"{path!r} does not lie on this machine; so far only local paths and file:///")):
        local_path(path)


@pytest.mark.parametrize("path", ["", "  "])
def test_empty_path_is_refused(path: str) -> None:
    with pytest.raises(PlanError, match="the path of a checkpoint is empty"):
        local_path(path)


def test_missing_empty_and_hidden_only_folders_are_free(tmp_path: Path) -> None:
    check_folder(tmp_path / "missing")
    check_folder(tmp_path)
    (tmp_path / ".lock").touch()
    check_folder(tmp_path)


def test_checkpoint_with_a_note_beside_it_is_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "metadata").write_text("{}")
    (tmp_path / "README.md").touch()

    check_folder(tmp_path)


def test_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").touch()
    (tmp_path / "offsets").mkdir()

    with pytest.raises(
        CheckpointMismatchError, match=re.escape(f"the folder {tmp_path} is no checkpoint: it holds orders.csv and no file 'metadata'")
    ):
        check_folder(tmp_path)


def test_table_folder_with_a_metadata_folder_is_refused(tmp_path: Path) -> None:
    for name in ("metadata", "data"):
        (tmp_path / name).mkdir()

    with pytest.raises(CheckpointMismatchError, match="it holds data"):
        check_folder(tmp_path)


def test_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    with pytest.raises(PlanError, match="is a file"):
        check_folder(tmp_path / "f")
