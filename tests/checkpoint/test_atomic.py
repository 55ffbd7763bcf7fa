"""LocalFolder keeps the promises of protocols.Folder, whatever happens while it writes."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.protocols import Folder


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path)


def visible(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_it_is_a_folder_of_the_protocols(folder: LocalFolder) -> None:
    port: Folder = folder

    assert port.names() == []


def test_added_file_is_read_back(folder: LocalFolder) -> None:
    assert folder.add("0", b"one")

    assert folder.read("0") == b"one"


def test_second_add_changes_nothing_and_says_so(folder: LocalFolder, tmp_path: Path) -> None:
    folder.add("0", b"one")

    assert not folder.add("0", b"two")
    assert folder.read("0") == b"one"
    assert visible(tmp_path) == ["0"]


def test_replace_writes_over_what_was_there(folder: LocalFolder, tmp_path: Path) -> None:
    folder.replace("facts", b"old and long")
    folder.replace("facts", b"new")

    assert folder.read("facts") == b"new"
    assert visible(tmp_path) == ["facts"]


def test_missing_file_reads_as_none(folder: LocalFolder) -> None:
    assert folder.read("0") is None


def test_folder_named_like_a_file_reads_as_none(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()

    assert folder.read("0") is None


def test_names_are_sorted_and_leave_out_folders_and_hidden_files(folder: LocalFolder, tmp_path: Path) -> None:
    for name in ("b", "a", ".a.crc", ".0.left-by-a-killed-writer.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "7").mkdir()

    assert folder.names() == ["a", "b"]


def test_folder_that_does_not_exist_is_empty_and_not_made_by_looking(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path).sub("offsets")

    assert folder.names() == []
    assert folder.read("0") is None
    assert visible(tmp_path) == []


def test_first_write_makes_the_folder_and_those_above(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path).sub("sources").sub("0")
    folder.add("0", b"x")

    assert (tmp_path / "sources" / "0" / "0").read_bytes() == b"x"
    assert folder.path == f"{tmp_path}/sources/0"


def test_removing_twice_is_no_error(folder: LocalFolder) -> None:
    folder.add("0", b"x")
    folder.remove("0")
    folder.remove("0")

    assert folder.names() == []


def test_relative_path_does_not_follow_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = LocalFolder("here")
    monkeypatch.chdir("/")
    folder.add("0", b"x")

    assert (tmp_path / "here" / "0").exists()


@pytest.mark.parametrize("write", [LocalFolder.add, LocalFolder.replace])
def test_a_write_costs_two_fsyncs(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch, write: Callable[[LocalFolder, str, bytes], object]
) -> None:
    real, synced = os.fsync, list[int]()

    def counting(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    write(folder, "0", b"x")

    assert len(synced) == 2


@pytest.mark.parametrize("write", [LocalFolder.add, LocalFolder.replace])
def test_full_disk_is_named_and_leaves_nothing(tmp_path: Path, write: Callable[[LocalFolder, str, bytes], object]) -> None:
    folder = LocalFolder(tmp_path)
    folder.add("0", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file size limit fails like a full disk: after a part was written.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*/1: File too large; no part of it is visible") as caught:
            write(folder, "1", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert caught.value.errno == errno.EFBIG
    assert visible(tmp_path) == ["0"]


def test_no_space_left_says_what_to_do(folder: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="/7: No space left on device; no part of it is visible; free some space and start again"):
        folder.add("7", b"x")

    assert visible(tmp_path) == []


def test_failed_replace_keeps_the_old_file(folder: LocalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.replace("facts", b"old")

    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="look at the disk"):
        folder.replace("facts", b"new")

    assert folder.read("facts") == b"old"


def test_threads_racing_for_a_name_have_one_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    n_threads, n_names = 4, 50
    start, won = threading.Barrier(n_threads), [list[str]() for _ in range(n_threads)]

    def race(me: int) -> None:
        folder = LocalFolder(tmp_path / "log")
        for name in map(str, range(n_names)):
            start.wait()
            if folder.add(name, str(me).encode()):
                won[me].append(name)

    threads = [threading.Thread(target=race, args=(me,)) for me in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(name for names in won for name in names) == sorted(map(str, range(n_names)))
    assert all((tmp_path / "log" / name).read_bytes() == str(me).encode() for me, names in enumerate(won) for name in names)


RACER = """
import os, sys
from microbatch.checkpoint.atomic import LocalFolder
os.fsync = lambda descriptor: None
folder = LocalFolder(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*[n for n in range(300) if folder.add(str(n), sys.argv[2].encode() * 500)])
"""


def test_processes_racing_for_a_name_have_one_winner(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), me], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for me in "AB"
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = {me: racer.communicate()[0].split() for me, racer in zip("AB", racers, strict=True)}

    assert sorted(map(int, won["A"] + won["B"])) == list(range(300))
    assert all((tmp_path / n).read_text() == me * 500 for me, names in won.items() for n in names)


KILLED = """
import os, signal, sys
from microbatch.checkpoint.atomic import LocalFolder
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
LocalFolder(sys.argv[1]).add("0", b"half")
"""


def test_killed_writer_leaves_nothing_a_reader_sees(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    folder = LocalFolder(tmp_path)

    assert len(visible(tmp_path)) == 1, "the hidden file of the killed writer"
    assert folder.names() == []
    assert folder.add("0", b"whole")
    assert folder.read("0") == b"whole"
