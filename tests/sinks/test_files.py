"""The file sink at every step of a batch: what readers of both kinds see, what a crash leaves, what a restart does."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import microbatch.sinks.file_batches as file_batches
import microbatch.sinks.files as files_module
from microbatch.errors import PlanError, SinkError
from microbatch.protocols import EntryLog, SinkBatch
from microbatch.sinks.files import FileSink, FileWriter, read_file_sink
from tests.sinks.file_rows import OTHER, QUERY, SCHEMA, Killed, batch, by_log, frame, names, open_log, plain, writer_of


def test_batch_is_one_file_named_by_its_id_and_query(out: Path) -> None:
    writer_of(FileSink(out)).write(batch(7, 1, 2))
    assert names(out) == ["_microbatch", "_spark_metadata", "batch-0000000007-0a1b2c3d.parquet"]
    assert_frame_equal(pl.read_parquet(out / "*.parquet"), frame(1, 2))


def test_partitioned_batch_is_one_folder_of_hive_partitions(out: Path) -> None:
    writer_of(FileSink(out, partition_by="kind")).write(batch(7, 1, 2, 4))
    files = sorted(str(file.relative_to(out)) for file in out.rglob("*.parquet"))
    assert files == [
        "microbatch_id=0000000007/kind=even/part-0a1b2c3d.parquet",
        "microbatch_id=0000000007/kind=odd/part-0a1b2c3d.parquet",
    ]
    assert_frame_equal(pl.read_parquet(out / files[0], hive_partitioning=False), pl.DataFrame({"n": [2, 4]}))


def test_polars_reads_partitions_with_a_pattern(out: Path) -> None:
    writer = writer_of(FileSink(out, partition_by="kind"))
    writer.write(batch(0, 1, 2, 4))
    writer.write(batch(1, 3))
    rows = pl.read_parquet(out / "**/*.parquet", hive_partitioning=True).sort("n")
    expected = pl.DataFrame({"n": [1, 2, 3, 4], "microbatch_id": [0, 0, 1, 0], "kind": ["odd", "even", "odd", "even"]})
    assert_frame_equal(rows, expected)


def test_log_entry_is_as_spark_writes_it(out: Path) -> None:
    writer_of(FileSink(out)).write(batch(0, 1))
    version, line = (out / "_spark_metadata" / "0").read_text().split("\n")
    file = out / "batch-0000000000-0a1b2c3d.parquet"
    assert version == "v1"
    assert json.loads(line) == {
        "path": f"file://{file}",
        "size": file.stat().st_size,
        "isDir": False,
        "modificationTime": file.stat().st_mtime_ns // 1_000_000,
        "blockReplication": 1,
        "blockSize": 33_554_432,
        "action": "add",
    }


def test_batch_without_rows_is_an_entry_and_no_file(sink: FileSink, out: Path) -> None:
    writer = writer_of(sink)
    writer.write(batch(0))
    assert (out / "_spark_metadata" / "0").read_text() == "v1"
    assert names(out) == ["_microbatch", "_spark_metadata"]
    assert_frame_equal(read_file_sink(out).collect(), SCHEMA.to_frame())


def test_log_is_compacted_and_still_read_whole(sink: FileSink, out: Path) -> None:
    writer = writer_of(FileSink(sink.path, partition_by=sink.partition_by, compact_every=3))
    for batch_id in range(8):
        writer.write(batch(batch_id, batch_id))
    assert "5.compact" in names(out / "_spark_metadata")
    assert by_log(out) == list(range(8))


def test_rows_come_in_the_order_of_the_batches(out: Path) -> None:
    writer = writer_of(FileSink(out))
    for batch_id, numbers in enumerate([(5, 4), (9,), (1, 0)]):
        writer.write(batch(batch_id, *numbers))
    assert_frame_equal(read_file_sink(out).collect(), frame(5, 4, 9, 1, 0))


# -- crashes: killed at each step, then the batch comes again ---------------------------------------------------------------


def killing(*args: object, **kwargs: object) -> None:
    raise Killed


STEPS = {
    "before the claim": (FileWriter, "_claim", False),
    "before staging": (file_batches.BatchFiles, "publish", False),
    "while staging": (file_batches, "sync", False),
    "before a folder of partitions is renamed": (Path, "rename", False),
    "before a file is linked": (Path, "hardlink_to", False),
    "between showing and logging": (files_module, "fault_point", True),
}


@pytest.mark.parametrize("again", ["the same rows", "rows whose float sums differ"])
@pytest.mark.parametrize("step", STEPS)
def test_batch_killed_at_a_step_is_there_once_after_the_restart(
    step: str, again: str, sink: FileSink, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if step == ("before a file is linked" if sink.partition_by else "before a folder of partitions is renamed"):
        pytest.skip("not a step of this layout")
    writer_of(sink).write(batch(0, 1))
    owner, name, shown = STEPS[step]
    dying = writer_of(sink)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killing)
        patched.setattr(file_batches, "_remove", lambda path: None)  # the dead remove nothing
        with pytest.raises(Killed):
            dying.write(batch(1, 2, 3))
    assert plain(out) == ([1, 2, 3] if shown else [1])
    assert by_log(out) == [1]
    numbers = (2, 3) if again == "the same rows" else (20, 30)
    writer_of(sink).write(batch(1, *numbers))
    expected = [1, 2, 3] if shown else [1, *numbers]
    assert (plain(out), by_log(out)) == (expected, expected)
    assert not [name for name in names(out) + names(out.parent) if name.endswith(".tmp")]


def test_killed_after_logging_the_batch_is_not_written_again(sink: FileSink, out: Path) -> None:
    writer_of(sink).write(batch(0, 1))
    again = writer_of(sink)
    again.write(batch(0, 99))
    assert (plain(out), by_log(out)) == ([1], [1])
    assert again.metrics() == {"files": "0", "bytes": "0"}


def test_reader_sees_no_batch_or_the_whole_batch_at_every_step(sink: FileSink, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(sink)
    writer.write(batch(0, 1))
    seen: list[list[int]] = []

    def looking(function: Callable[..., Any]) -> Callable[..., Any]:
        def look(*args: Any, **kwargs: Any) -> Any:
            seen.append(plain(out))
            result = function(*args, **kwargs)
            seen.append(plain(out))
            return result

        return look

    for owner, name in ((file_batches, "sync"), (Path, "rename"), (Path, "hardlink_to"), (Path, "mkdir"), (files_module, "fault_point")):
        monkeypatch.setattr(owner, name, looking(getattr(owner, name)))
    writer.write(batch(1, 2, 3, 4, 5))
    assert len(seen) >= 8
    assert [rows for k, rows in enumerate(seen) if k == 0 or rows != seen[k - 1]] == [[1], [1, 2, 3, 4, 5]]


def test_data_is_synced_before_it_gets_its_name_and_the_folder_after(sink: FileSink, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(sink)
    writer.write(batch(0))
    done: list[str] = []
    monkeypatch.setattr(file_batches, "sync", lambda path: done.append("sync folder" if path == out else "sync staged"))

    def noting(step: Callable[..., None]) -> Callable[..., None]:
        def note(self: Path, target: Path) -> None:
            done.append("name")
            step(self, target)

        return note

    for name in ("rename", "hardlink_to"):
        monkeypatch.setattr(Path, name, noting(getattr(Path, name)))
    writer.write(batch(1, 1, 2))
    syncs = done.index("name")
    assert set(done[:syncs]) == {"sync staged"}
    assert done[syncs:][:2] == ["name", "sync folder"]


# -- what lies around -----------------------------------------------------------------------------------------------------------


def test_files_that_others_put_there_are_not_seen_by_the_log(out: Path) -> None:
    # The case filesink-ignores-stray-files.
    writer = writer_of(FileSink(out))
    writer.write(batch(0, 1, 2, 3))
    writer.write(batch(1, 4, 5))
    (out / "additional.txt").write_text("6")
    frame(6).write_parquet(out / "additional.parquet")
    assert by_log(out) == [1, 2, 3, 4, 5]


def test_half_written_leftovers_of_this_query_go_when_it_opens_and_others_stay(sink: FileSink, out: Path) -> None:
    writer_of(sink).write(batch(0, 1))
    hidden = out.parent if sink.partition_by else out
    (hidden / ".out.microbatch-0a1b2c3d.dead.tmp").mkdir()
    (hidden / ".out.microbatch-0a1b2c3d.dead.tmp" / "part.parquet").write_bytes(b"PAR1 half")
    (hidden / ".out.microbatch-0a1b2c3d.also.tmp").write_bytes(b"PAR1 half")
    (hidden / ".out.microbatch-ffffffff.live.tmp").write_bytes(b"PAR1 half")
    (hidden / ".elsewhere.tmp").write_bytes(b"")
    writer_of(sink)
    assert [name for name in names(hidden) if name.endswith(".tmp")] == [".elsewhere.tmp", ".out.microbatch-ffffffff.live.tmp"]


def test_staged_partitions_lie_where_no_pattern_on_the_folder_finds_them(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(FileSink(out, partition_by="kind"))
    monkeypatch.setattr(Path, "rename", killing)
    monkeypatch.setattr(file_batches, "_remove", lambda path: None)
    with pytest.raises(Killed):
        writer.write(batch(0, 1, 2))
    assert list(out.rglob("*.parquet")) == []
    assert len(list(out.parent.rglob("*.parquet"))) == 2


# -- failures that are no crash -------------------------------------------------------------------------------------------------


@contextmanager
def small_files_only(n_bytes: int) -> Iterator[None]:
    """Let the operating system refuse larger files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "ipc"])
def test_disk_that_refuses_the_data_shows_nothing(kind: str, out: Path) -> None:
    writer = writer_of(FileSink(out, format=kind))
    rows = frame(*range(50_000)).with_columns(pl.col("n").hash().cast(pl.String).alias("kind"))
    with (
        small_files_only(20_000),
        pytest.raises(SinkError, match=r"batch 0 was not written to .*/out, and nothing of it is visible: .*too large"),
    ):
        writer.write(SinkBatch(batch_id=0, rows=rows, info={}))
    assert names(out) == ["_microbatch"]
    writer.write(SinkBatch(batch_id=0, rows=rows, info={}))
    assert by_log(out) == list(range(50_000))


class FullLog:
    """A log on a full disk; ``adds`` says whether the entry is there all the same."""

    def __init__(self, inner: EntryLog, *, adds: bool) -> None:
        self._inner = inner
        self._adds = adds

    def add(self, entry_id: int, lines: Any) -> bool:
        if self._adds:
            self._inner.add(entry_id, lines)
        raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def full_log(*, adds: bool) -> Callable[[str, int], Any]:
    return lambda path, every: FullLog(open_log(path, every), adds=adds) if path.endswith("_spark_metadata") else open_log(path, every)


def test_entry_that_cannot_be_written_takes_the_files_back(sink: FileSink, out: Path) -> None:
    writer_of(sink).write(batch(0, 1))
    with pytest.raises(SinkError, match=r"batch 1 was not written .*No space left on device.*Look at the disk"):
        writer_of(sink, log=full_log(adds=False)).write(batch(1, 2, 3))
    assert (plain(out), by_log(out)) == ([1], [1])
    writer_of(sink).write(batch(1, 2, 3))
    assert (plain(out), by_log(out)) == ([1, 2, 3], [1, 2, 3])


def test_entry_that_was_written_in_spite_of_an_error_keeps_its_files(sink: FileSink, out: Path) -> None:
    # fsync of the folder may fail after the entry got its name.
    with pytest.raises(SinkError):
        writer_of(sink, log=full_log(adds=True)).write(batch(0, 2, 3))
    assert (plain(out), by_log(out)) == ([2, 3], [2, 3])


def test_folder_that_cannot_be_synced_takes_the_files_back(sink: FileSink, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(sink)
    real = file_batches.sync

    def failing(path: Path) -> None:
        if path == out:
            raise OSError(errno.EIO, "Input/output error")
        real(path)

    monkeypatch.setattr(file_batches, "sync", failing)
    with pytest.raises(SinkError, match="Input/output error"):
        writer.write(batch(0, 1, 2))
    assert plain(out) == []


def test_folder_that_cannot_be_made_is_a_sink_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"FileSink\[.*/file/out\] cannot be opened: .*Look at the disk \(space, rights\)"):
        writer_of(FileSink(tmp_path / "file" / "out"))


# -- whose folder it is ---------------------------------------------------------------------------------------------------------


def test_second_query_is_refused_when_it_opens(sink: FileSink, out: Path) -> None:
    writer_of(sink).write(batch(0, 1))
    with pytest.raises(
        SinkError, match=f"holds batches of query {QUERY}, and this is query {OTHER}: .*Give each query a folder of its own"
    ):
        writer_of(sink, query_id=OTHER)
    assert by_log(out) == [1]


def test_of_two_queries_on_a_new_folder_the_second_to_write_is_refused(sink: FileSink, out: Path) -> None:
    first, second = writer_of(sink), writer_of(sink, query_id=OTHER)
    first.write(batch(0, 1))
    with pytest.raises(SinkError, match=f"holds batches of query {QUERY}"):
        second.write(batch(0, 2))
    assert (plain(out), by_log(out)) == ([1], [1])


def test_query_that_only_opened_a_folder_does_not_own_it(sink: FileSink, out: Path) -> None:
    writer_of(sink)
    writer_of(sink, query_id=OTHER).write(batch(0, 2))
    assert by_log(out) == [2]


def test_gap_in_the_ids_is_refused(sink: FileSink, out: Path) -> None:
    writer = writer_of(sink)
    writer.write(batch(3, 1))
    with pytest.raises(
        SinkError, match=r"is this query's and ends with batch 3, so batch 4 must follow, not 6; restore folder and checkpoint"
    ):
        writer.write(batch(6, 2))
    assert (plain(out), by_log(out)) == ([1], [1])


def test_another_run_of_the_same_query_that_was_faster_is_told(sink: FileSink, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = writer_of(sink), writer_of(sink)

    def overtake(name: str) -> None:
        monkeypatch.undo()
        fast.write(batch(0, 1))

    monkeypatch.setattr(files_module, "fault_point", overtake)
    with pytest.raises(SinkError, match=f"batch 0 was written .* by another run of query {QUERY} in the same moment; stop one of the two"):
        slow.write(batch(0, 1))
    assert (plain(out), by_log(out)) == ([1], [1])


@pytest.mark.parametrize(
    ("changed", "schema", "message"),
    [
        ({"format": "ipc"}, SCHEMA, "was begun with format parquet, and the query now has ipc"),
        ({"partition_by": "kind"}, SCHEMA, r"was begun with partition_by \[\], and the query now has \['kind'\]"),
        (
            {},
            pl.Schema({"n": pl.Int32(), "kind": pl.String()}),
            r"was begun with columns \{'n': 'Int64'\}, and the query now has \{'n': 'Int32'\}",
        ),
        ({}, pl.Schema({"n": pl.Int64()}), r"was begun with columns \{'kind': 'String'\}, and the query now has \{'kind': 'absent'\}"),
        (
            {},
            pl.Schema({"kind": pl.String(), "n": pl.Int64()}),
            r"was begun with columns \['n', 'kind'\], and the query now has \['kind', 'n'\]",
        ),
    ],
)
def test_folder_begun_in_another_shape_is_refused(changed: dict[str, Any], schema: pl.Schema, message: str, out: Path) -> None:
    writer_of(FileSink(out)).write(batch(0, 1))
    with pytest.raises(PlanError, match=message + "; restore them, or take a new folder"):
        writer_of(FileSink(out, **changed), schema=schema)


def test_options_a_reader_must_know_cannot_change_and_others_can(out: Path, tmp_path: Path) -> None:
    writer_of(FileSink(out, format="csv", format_options={"separator": ";"})).write(batch(0, 1))
    with pytest.raises(PlanError, match=r"was begun with format_options \{'separator': ';'\}, and the query now has \{\}"):
        writer_of(FileSink(out, format="csv"))
    parquet = tmp_path / "parquet"
    writer_of(FileSink(parquet)).write(batch(0, 1))
    writer_of(FileSink(parquet, format_options={"compression": "snappy"})).write(batch(1, 2))
    assert by_log(parquet) == [1, 2]


# -- Spark's folders ------------------------------------------------------------------------------------------------------------


def write_as_spark(out: Path, batch_ids: range) -> None:
    log = open_log(str(out / "_spark_metadata"), 10)
    out.mkdir()
    for batch_id in batch_ids:
        file = out / f"part-00000-{batch_id}-c000.snappy.parquet"
        frame(batch_id).write_parquet(file)
        log.add(batch_id, [json.dumps({"path": file.as_uri(), "size": 1, "isDir": False, "action": "add"})])


def test_folder_of_spark_is_read_by_its_log(out: Path) -> None:
    write_as_spark(out, range(3))
    frame(99).write_parquet(out / "stray.parquet")
    assert by_log(out) == [0, 1, 2]


def test_query_of_spark_is_continued_with_its_next_batch(out: Path) -> None:
    write_as_spark(out, range(3))
    writer = writer_of(FileSink(out))
    writer.write(batch(3, 3))
    writer.write(batch(4, 4))
    assert by_log(out) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("batch_id", [0, 2, 4])
def test_new_query_on_a_folder_of_spark_is_refused_instead_of_skipped(batch_id: int, out: Path) -> None:
    write_as_spark(out, range(3))
    with pytest.raises(
        SinkError, match=rf"another program's, such as Spark's, and ends with batch 2, so batch 3 must follow, not {batch_id}"
    ):
        writer_of(FileSink(out)).write(batch(batch_id, 9))
    assert plain(out) == [0, 1, 2]


def test_partitions_do_not_join_a_folder_of_spark(out: Path) -> None:
    write_as_spark(out, range(3))
    with pytest.raises(
        PlanError, match="was begun by another program, such as Spark, whose folders of partitions do not mix with ours; take a new"
    ):
        writer_of(FileSink(out, partition_by="kind"))


def test_partitioned_folder_of_spark_is_read_with_its_columns(out: Path) -> None:
    file = out / "kind=%25x" / "part-00000.parquet"
    file.parent.mkdir(parents=True)
    frame(1).drop("kind").write_parquet(file)
    open_log(str(out / "_spark_metadata"), 10).add(0, [json.dumps({"path": file.as_uri(), "action": "add"})])
    assert_frame_equal(read_file_sink(out).collect(), pl.DataFrame({"n": [1], "kind": ["%x"]}))


def test_files_of_spark_other_than_parquet_are_left_to_their_reader(out: Path) -> None:
    write_as_spark(out, range(1))
    text = out / "part-0.json"
    text.write_text("{}")
    open_log(str(out / "_spark_metadata"), 10).add(1, [json.dumps({"path": text.as_uri(), "action": "add"})])
    (out / "_spark_metadata" / "0").write_text("v1")
    with pytest.raises(SinkError, match=r"was not written by microbatch and holds no parquet files; read it with pl.scan_csv"):
        read_file_sink(out)


# -- reading by the log ---------------------------------------------------------------------------------------------------------
