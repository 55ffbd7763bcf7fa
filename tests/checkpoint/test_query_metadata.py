"""Identity and facts outlive a run and are refused when damaged or newer."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.query_metadata import create_query_id, read_facts, read_query_id, write_facts
from microbatch.errors import CheckpointCorruptError


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path)


def test_new_folder_has_no_id(folder: LocalFolder) -> None:
    assert read_query_id(folder) is None


def test_id_is_made_once(folder: LocalFolder) -> None:
    query_id = create_query_id(folder)

    assert create_query_id(folder) == query_id
    assert read_query_id(folder) == query_id
    assert str(uuid.UUID(query_id)) == query_id


def test_id_is_written_as_spark_does(folder: LocalFolder, tmp_path: Path) -> None:
    query_id = create_query_id(folder)

    assert (tmp_path / "metadata").read_text() == f'{{"id":"{query_id}"}}'


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id":""}', '{"id":7}', "v1\n{}"])
def test_damaged_identity_is_refused(folder: LocalFolder, tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata").write_text(text)

    with pytest.raises(CheckpointCorruptError, match=re.escape(f"{tmp_path}/metadata")):
        create_query_id(folder)


def test_new_folder_has_no_facts(folder: LocalFolder) -> None:
    assert read_facts(folder) == {}


def test_facts_come_back_and_can_be_replaced(folder: LocalFolder) -> None:
    write_facts(folder, {"engine": "0.1.0", "operators": {"agg0": {"kind": "aggregate"}}})
    assert read_facts(folder) == {"engine": "0.1.0", "operators": {"agg0": {"kind": "aggregate"}}}

    write_facts(folder, {"engine": "0.2.0"})
    assert read_facts(folder) == {"engine": "0.2.0"}


def test_newer_format_is_refused(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "microbatch.json").write_text('{"format": 2, "anything": true}')

    with pytest.raises(
        CheckpointCorruptError,
        match=re.escape("microbatch.json has format 2, this program knows up to 1: it was written by a newer version"),
    ):
        read_facts(folder)


@pytest.mark.parametrize("text", ["", "{}", '{"format":0}', '{"format":"1"}', "[1]"])
def test_damaged_facts_are_refused(folder: LocalFolder, tmp_path: Path, text: str) -> None:
    (tmp_path / "microbatch.json").write_text(text)

    with pytest.raises(CheckpointCorruptError, match=re.escape(f"{tmp_path}/microbatch.json")):
        read_facts(folder)
