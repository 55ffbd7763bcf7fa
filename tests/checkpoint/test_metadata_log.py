"""MetadataLog behaves as Spark's HDFSMetadataLog (HDFSMetadataLogSuite)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.metadata_log import MetadataLog
from microbatch.errors import CheckpointCorruptError


@pytest.fixture
def log(tmp_path: Path) -> MetadataLog:
    return MetadataLog(LocalFolder(tmp_path))


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_empty_log_has_no_latest_id(log: MetadataLog) -> None:
    assert log.latest_id() is None
    assert log.get(0) is None


def test_adding_an_id_that_exists_changes_nothing_and_says_so(log: MetadataLog) -> None:
    assert log.add(0, "batch0")
    assert log.range(None, 0) == [(0, "batch0")]
    assert log.add(1, "batch1")
    assert log.range(None, 1) == [(0, "batch0"), (1, "batch1")]

    assert not log.add(1, "batch1-duplicated")
    assert log.get(1) == "batch1"
    assert log.latest_id() == 1


def test_purge_removes_what_is_below(log: MetadataLog, tmp_path: Path) -> None:
    for entry_id, text in enumerate("abc"):
        log.add(entry_id, text)
    log.purge_below(2)

    assert [log.get(entry_id) for entry_id in range(3)] == [None, None, "c"]
    assert log.latest_id() == 2
    assert files(tmp_path) == ["2"]


def test_reopened_log_goes_on(log: MetadataLog, tmp_path: Path) -> None:
    log.add(0, "batch0")
    log.add(1, "batch1")
    again = MetadataLog(LocalFolder(tmp_path))

    assert again.latest_id() == 1
    assert again.range(None, 1) == [(0, "batch0"), (1, "batch1")]


def test_purge_removes_the_checksums_spark_left(log: MetadataLog, tmp_path: Path) -> None:
    log.add(0, "a")
    log.add(1, "b")
    (tmp_path / ".0.crc").write_bytes(b"crc")
    (tmp_path / ".1.crc").write_bytes(b"crc")
    log.purge_below(1)

    assert files(tmp_path) == [".1.crc", "1"]


def test_ids_are_ordered_as_numbers(log: MetadataLog) -> None:
    for entry_id in (9, 10, 100):
        log.add(entry_id, "")

    assert log.ids() == [9, 10, 100]
    assert log.latest_id() == 100


def test_text_comes_back_as_it_was(log: MetadataLog) -> None:
    text = "é \u2028 \r\n\n two\n"
    log.add(0, text)

    assert log.get(0) == text


def test_file_is_the_version_line_and_the_text(log: MetadataLog, tmp_path: Path) -> None:
    log.add(0, "one\ntwo")

    assert (tmp_path / "0").read_bytes() == b"v1\none\ntwo"


def test_folders_named_by_a_number_and_foreign_names_are_ignored(log: MetadataLog, tmp_path: Path) -> None:
    log.add(3, "x")
    (tmp_path / "7").mkdir()
    for name in ("8.tmp", "readme", "-9", "010", "1e3", "٣", ".11.crc"):
        (tmp_path / name).write_text("not ours")

    assert log.ids() == [3]
    assert log.get(7) is None


def test_range_starts_at_the_oldest_entry_there_is(log: MetadataLog) -> None:
    log.add(4, "e")
    log.add(5, "f")
    log.add(6, "g")

    assert log.range(None, 5) == [(4, "e"), (5, "f")]
    assert log.range(6, 6) == [(6, "g")]
    assert log.range(6, 5) == []


@pytest.mark.parametrize(("from_id", "to_id", "missing"), [(None, 3, "2"), (0, 1, "0"), (1, 4, "2, 4"), (None, 0, "0")])
def test_range_with_a_gap_is_refused(log: MetadataLog, tmp_path: Path, from_id: int | None, to_id: int, missing: str) -> None:
    log.add(1, "b")
    log.add(3, "d")

    with pytest.raises(CheckpointCorruptError, match=re.escape(f"the log {tmp_path} has 1 to 3, but not {missing}; restore the folder")):
        log.range(from_id, to_id)


def test_range_of_an_empty_log_is_refused(log: MetadataLog) -> None:
    with pytest.raises(CheckpointCorruptError, match="has no entry, but not 0"):
        log.range(None, 0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds nothing, it is empty; expected the line 'v1' and an entry"),
        (b"v", "holds the first line 'v'; expected the line 'v1'"),
        (b"v1 \n{}", "holds the first line 'v1 '"),
        (b"v1\r\n{}", r"holds the first line 'v1\r'"),
        (b'{"id":1}', """holds the first line '{"id":1}'"""),
        (b"v\xff\n{}", "holds the first line"),
        (b"v1\n\xff", "holds bytes that are no text (invalid start byte); expected UTF-8"),
        (b"v2\n{}", "has version v2, this program reads v1: it was written by a newer version; run the query with that version"),
    ],
)
def test_torn_foreign_and_newer_files_are_refused(log: MetadataLog, tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "7").write_bytes(data)

    with pytest.raises(CheckpointCorruptError, match=re.escape(said)) as caught:
        log.get(7)
    assert str(caught.value).startswith(f"{tmp_path}/7 ")
    assert str(caught.value).endswith("restore the folder from a copy; nothing was changed")
