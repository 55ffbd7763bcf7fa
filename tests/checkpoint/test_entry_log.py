"""CompactibleLog equals a plain list of lists, whatever is added, restarted or killed."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.entry_log import CompactibleLog, compact_interval, open_entry_log
from microbatch.errors import CheckpointCorruptError
from microbatch.protocols import EntryLog


class KilledError(BaseException):
    """The process died here."""


class MemoryFolder:
    """A Folder in memory that counts what was read and can die before or after its n-th change."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.read_names: list[str] = []
        self.changes_left: int | None = None
        self.dies_after_change = False

    @property
    def path(self) -> str:
        return "memory"

    def read(self, name: str) -> bytes | None:
        if name in self.files:
            self.read_names.append(name)
        return self.files.get(name)

    def add(self, name: str, data: bytes) -> bool:
        if name in self.files:
            return False
        self._change(name, data)
        return True

    def replace(self, name: str, data: bytes) -> None:
        self._change(name, data)

    def names(self) -> list[str]:
        return sorted(name for name in self.files if not name.startswith("."))

    def remove(self, name: str) -> None:
        if name in self.files:
            self._change(name, None)

    def sync(self) -> None: ...

    def sub(self, name: str) -> MemoryFolder:
        raise NotImplementedError(name)

    def _change(self, name: str, data: bytes | None) -> None:
        dies = self.changes_left == 0
        if self.changes_left is not None:
            self.changes_left -= 1
        if not dies or self.dies_after_change:
            if data is None:
                del self.files[name]
            else:
                self.files[name] = data
        if dies:
            raise KilledError


def filled(n_entries: int, every: int) -> MemoryFolder:
    """Return the folder of a log in which entry n holds the one line ``line n``."""
    folder = MemoryFolder()
    log = CompactibleLog(folder, every)
    for entry_id in range(n_entries):
        assert log.add(entry_id, [f"line {entry_id}"])
    return folder


def test_it_is_an_entry_log_of_the_protocols() -> None:
    log: EntryLog = CompactibleLog(MemoryFolder())

    assert log.latest_id() is None
    assert log.get(0) is None
    assert log.all_lines() == []


def test_every_second_entry_is_compact() -> None:
    assert filled(3, every=2).names() == ["0", "1.compact", "2"]


def test_compact_entry_holds_all_lines_so_far() -> None:
    assert filled(3, every=3).files["2.compact"] == b"v1\nline 0\nline 1\nline 2"


def test_existing_entry_is_not_added_again() -> None:
    folder = filled(5, every=2)
    before = dict(folder.files)

    assert not any(CompactibleLog(folder, 2).add(entry_id, ["other"]) for entry_id in range(5))
    assert folder.files == before


def test_gap_is_refused() -> None:
    folder = filled(2, every=10)

    with pytest.raises(CheckpointCorruptError, match="the log memory has 0 to 1, but not 2, 3"):
        CompactibleLog(folder).add(4, [])


def test_log_may_begin_at_any_id() -> None:
    log = CompactibleLog(MemoryFolder(), every=3)
    log.add(7, ["7"])
    assert log.get(6) is None

    for entry_id in range(8, 12):
        log.add(entry_id, [str(entry_id)])
    assert log.all_lines() == ["7", "8", "9", "10", "11"]


@pytest.mark.parametrize("line", ["", "a\nb", "a\r"])
def test_line_that_would_not_come_back_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="must be one JSON text in one line"):
        CompactibleLog(MemoryFolder()).add(0, ["fine", line])


def test_line_separators_of_other_alphabets_are_no_line_breaks() -> None:
    folder, line = MemoryFolder(), '{"path":"a\u2028b\u0085c"}'
    CompactibleLog(folder, every=1).add(0, [line])

    assert CompactibleLog(folder).get(0) == [line]
    assert CompactibleLog(folder).all_lines() == [line]


def test_entry_without_lines_is_an_entry() -> None:
    folder = MemoryFolder()
    log = CompactibleLog(folder, every=2)
    for entry_id in range(4):
        log.add(entry_id, [])

    assert [CompactibleLog(folder).get(entry_id) for entry_id in range(5)] == [[], [], [], [], None]
    assert CompactibleLog(folder).all_lines() == []


def test_adding_a_plain_entry_reads_no_file() -> None:
    folder = filled(12, every=10)
    folder.read_names.clear()
    CompactibleLog(folder).add(12, ["x"])

    assert folder.read_names == []


def test_adding_a_compact_entry_reads_the_compact_one_before_and_what_came_since() -> None:
    folder = filled(19, every=10)
    folder.read_names.clear()
    CompactibleLog(folder).add(19, ["x"])

    assert folder.read_names == ["9.compact", *map(str, range(10, 19))]


def test_getting_a_plain_entry_reads_only_its_file() -> None:
    folder = filled(25, every=10)
    folder.read_names.clear()

    assert CompactibleLog(folder).get(24) == ["line 24"]
    assert folder.read_names == ["24"]


def test_getting_a_compact_entry_just_added_reads_nothing() -> None:
    folder = MemoryFolder()
    log = CompactibleLog(folder, every=2)
    log.add(0, ["a"])
    log.add(1, ["b", "c"])
    folder.read_names.clear()

    assert log.get(1) == ["b", "c"]
    assert folder.read_names == []


@pytest.mark.parametrize("every", [1, 2, 3, 10])
def test_after_a_restart_the_newest_entries_are_known_one_by_one(every: int) -> None:
    folder = filled(47, every)
    log = CompactibleLog(folder, every)

    newest = range(47 - 2 * every, 47)
    assert [log.get(entry_id) for entry_id in newest] == [[f"line {entry_id}"] for entry_id in newest]


def test_files_before_the_third_newest_compact_entry_are_removed() -> None:
    folder = filled(11, every=3)

    assert folder.names() == sorted(["2.compact", "3", "4", "5.compact", "6", "7", "8.compact", "9", "10"])
    CompactibleLog(folder, 3).add(11, ["line 11"])
    assert folder.names() == sorted(["5.compact", "6", "7", "8.compact", "9", "10", "11.compact"])


def test_checksums_of_spark_are_removed_with_their_files() -> None:
    folder = filled(5, every=2)
    folder.files |= {".0.crc": b"crc", ".1.compact.crc": b"crc", ".2.crc": b"crc"}
    log = CompactibleLog(folder, 2)
    for entry_id in range(5, 8):
        log.add(entry_id, [])

    assert [name for name in folder.files if name.endswith(".crc")] == []


def test_entry_known_only_together_with_others_is_refused() -> None:
    folder = filled(47, every=10)

    for entry_id in (0, 15, 19):
        with pytest.raises(CheckpointCorruptError, match=f"no longer knows which lines entry {entry_id} added: it has files 19 to 46"):
            CompactibleLog(folder).get(entry_id)


def test_changed_interval_keeps_the_old_one() -> None:
    folder = filled(4, every=2)
    log = CompactibleLog(folder, every=5)
    for entry_id in range(4, 8):
        log.add(entry_id, [f"line {entry_id}"])

    assert [name for name in folder.names() if "compact" in name] == ["3.compact", "5.compact", "7.compact"]


@pytest.mark.parametrize(
    ("plain", "compact", "every", "interval"),
    [
        ([], [], 10, 10),
        ([0, 1], [], 10, 10),
        ([0, 1, 2, 3, 4], [], 3, 6),  # 2 would have been compact
        ([25, 26], [], 10, 10),
        ([], [9], 10, 10),
        ([], [9], 3, 5),  # the smallest divisor of 10 from 3 on
        ([], [9], 100, 10),
        ([], [10], 4, 11),
        ([], [19, 29], 3, 10),
        ([], [1, 11], 3, 3),  # a distance of 10 cannot be: 11 + 1 is no multiple
    ],
)
def test_interval_follows_the_files(plain: list[int], compact: list[int], every: int, interval: int) -> None:
    assert compact_interval(plain, compact, every) == interval


def test_interval_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="every=0"):
        CompactibleLog(MemoryFolder(), every=0)


def test_missing_entry_is_refused() -> None:
    folder = filled(15, every=10)
    del folder.files["12"]

    with pytest.raises(CheckpointCorruptError, match="the log memory has 0 to 14, but not 12"):
        CompactibleLog(folder).all_lines()
    with pytest.raises(CheckpointCorruptError, match="no longer knows which lines entry 12 added"):
        CompactibleLog(folder).get(12)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "memory/9.compact holds nothing, it is empty"),
        (b"line 0", "memory/9.compact holds the first line 'line 0'"),
        (b"v2\nline 0", "memory/9.compact has version v2"),
        (b"v1\nline 0", "memory/9.compact holds 1 lines; expected the 9 lines of the entries before it, and its own"),
    ],
)
def test_torn_foreign_and_newer_compact_entries_are_refused(data: bytes, said: str) -> None:
    folder = filled(10, every=10)
    folder.files["9.compact"] = data

    with pytest.raises(CheckpointCorruptError, match=re.escape(said)):
        CompactibleLog(folder).get(9)


def test_log_opens_on_disk_by_path(tmp_path: Path) -> None:
    log = open_entry_log(f"file://{tmp_path}/_spark_metadata", 2)
    for entry_id in range(3):
        log.add(entry_id, [f"line {entry_id}"])

    assert LocalFolder(tmp_path / "_spark_metadata").names() == ["0", "1.compact", "2"]
    assert open_entry_log(f"{tmp_path}/_spark_metadata", 2).all_lines() == ["line 0", "line 1", "line 2"]


@pytest.mark.parametrize("seed", range(60))
def test_log_equals_a_plain_list_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    folder, kept = MemoryFolder(), list[list[str]]()
    first_id = rng.choice([0, 0, 0, 7, 29])
    log = CompactibleLog(folder, every=rng.randint(1, 5))
    for step in range(80):
        entry_id, lines = first_id + len(kept), [f"{step}.{n}" for n in range(rng.choice([0, 1, 1, 3]))]
        if rng.random() < 0.2:
            folder.changes_left, folder.dies_after_change = rng.randint(0, 6), rng.random() < 0.5
        try:
            assert log.add(entry_id, lines)
            kept.append(lines)
        except KilledError:
            log = CompactibleLog(folder, every=rng.randint(1, 7))
            if log.latest_id() == entry_id:  # the entry had become durable before the kill
                kept.append(lines)
        folder.changes_left = None
        if rng.random() < 0.1:
            log = CompactibleLog(folder, every=rng.randint(1, 7))
        if rng.random() < 0.1:
            folder.files[f".{entry_id}.{step}.tmp"] = b"v1\nhal"
        check_equals(log, kept, first_id, seed)


def check_equals(log: CompactibleLog, kept: list[list[str]], first_id: int, seed: int) -> None:
    newest = first_id + len(kept) - 1
    assert log.latest_id() == (newest if kept else None), seed
    assert log.all_lines() == [line for lines in kept for line in lines], seed
    assert log.get(newest + 1) is None, seed
    for n, lines in enumerate(kept):
        try:
            assert log.get(first_id + n) == lines, (seed, n)
        except CheckpointCorruptError:
            assert n < len(kept) - 2 or (n == 0 and first_id > 0), (seed, n)
