"""Files through whole queries: every format, every place, every option; the sink is memory, expected rows by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

import microbatch as mb
from tests.sources.conftest import Landing

SCHEMA = {"n": pl.Int64, "s": pl.String}
ROWS = pl.DataFrame({"n": [1, 2], "s": ["a", None]}, schema=SCHEMA)


class Job:
    """A query from the landing folder to memory on one checkpoint, run as often as asked."""

    def __init__(self, landing: Landing, pattern: str = "*.csv", **options: Any) -> None:
        self.out = mb.MemorySink()
        self._checkpoint = landing.folder.parent / "query"
        self._path = pattern if "://" in pattern else f"{landing.folder}/{pattern}".rstrip("/")
        self.options: dict[str, Any] = {"schema": SCHEMA, **options}

    def run(self) -> list[list[Any]]:
        """Run all there is and return column n of each new batch that has rows."""
        before = len(self.out.batches())
        mb.scan_files(self._path, **self.options).sink_memory(self.out, checkpoint=self._checkpoint).run()
        return [rows["n"].to_list() for _, rows in self.out.batches()[before:] if rows.height]


FORMATS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "csv": ("1.csv", ROWS.write_csv),
    "csv.gz": ("1.csv.gz", lambda path: ROWS.write_csv(path, compression="gzip")),
    "ndjson": ("1.ndjson", ROWS.write_ndjson),
    "parquet": ("1.parquet", ROWS.write_parquet),
    "ipc": ("1.arrow", ROWS.write_ipc),
}


@pytest.mark.parametrize("inferred", [False, True], ids=["declared", "inferred"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_each_format_gives_its_rows_once(landing: Landing, file_format: str, inferred: bool) -> None:
    name, write = FORMATS[file_format]
    write(landing.folder / name)
    job = Job(landing, f"*.{file_format.replace('ipc', 'arrow')}", **({"schema": None} if inferred else {}))
    assert job.run() == [[1, 2]]
    assert job.run() == []
    assert job.out.rows().equals(ROWS)


@pytest.mark.parametrize(
    ("pattern", "options", "expected"),
    [
        ("", {}, [1]),
        ("*.csv", {}, [1]),
        ("*/*.csv", {}, [2, 3]),
        ("**/*.csv", {}, [1, 2, 3, 4]),
        ("", {"recursive": True}, [1, 2, 3, 4]),
        ("{x,k=1}/*.csv", {}, [2, 3]),
        ("[xy]/?.csv", {}, [2]),
    ],
)
def test_folders_and_globs_mean_the_files_they_say(landing: Landing, pattern: str, options: dict[str, Any], expected: list[int]) -> None:
    for n, name in enumerate(("a.csv", "x/b.csv", "k=1/c.csv", "x/y/d.csv"), start=1):
        landing.rows(name, n)
    landing.rows("_hidden.csv", 9)
    landing.rows(".hidden.csv", 9)
    found = Job(landing, pattern, hive_partitioning=False, **options).run()
    assert sorted(n for batch in found for n in batch) == expected


PARTITIONS: dict[str, tuple[Any, Any]] = {
    "day=2024-05-01": (pl.Date, date(2024, 5, 1)),
    "at=2024-05-01 10%3A00%3A00": (pl.Datetime("us"), datetime(2024, 5, 1, 10)),
    "at=10%3A30%3A00": (pl.Time, time(10, 30)),
    "live=True": (pl.Boolean, True),
    "country=a%20b": (pl.String, "a b"),
    "shard=007": (pl.Int32, 7),
    "price=2.5": (pl.Float64, 2.5),
    "none=__HIVE_DEFAULT_PARTITION__": (pl.Date, None),
}


@pytest.mark.parametrize("folder", PARTITIONS)
def test_a_partition_folder_becomes_a_column_of_any_dtype(landing: Landing, folder: str) -> None:
    landing.rows(f"{folder}/1.csv", 1)
    dtype, value = PARTITIONS[folder]
    name = folder.partition("=")[0]
    job = Job(landing, "", schema={**SCHEMA, name: dtype}, format="csv")
    assert job.run() == [[1]]
    assert job.out.rows().schema[name] == dtype
    assert job.out.rows()[name].to_list() == [value]


@pytest.mark.parametrize(
    ("folder", "dtype"), [("p=2024-05-01", pl.Date), ("p=12", pl.Int64), ("p=x1", pl.String), ("p=2024-13-01", pl.String)]
)
def test_the_dtype_of_a_partition_column_is_inferred(landing: Landing, folder: str, dtype: Any) -> None:
    landing.rows(f"{folder}/1.csv", 1)
    job = Job(landing, "", schema=None, format="csv")
    assert job.run() == [[1]]
    assert job.out.rows().schema["p"] == dtype


@pytest.mark.parametrize(("folder", "dtype"), [("p=soon", pl.Date), ("p=1.5", pl.Int64), ("p=2", pl.Boolean)])
def test_a_folder_s_value_that_does_not_fit_is_named(landing: Landing, folder: str, dtype: Any) -> None:
    landing.rows(f"{folder}/1.csv", 1)
    with pytest.raises(
        mb.QueryFailedError, match=rf"column 'p' the value '{folder[2:]}', which is no .*; rename the folder, or declare String"
    ):
        Job(landing, "", schema={**SCHEMA, "p": dtype}, format="csv").run()


@pytest.fixture
def bucket() -> Iterator[str]:
    """A folder of fsspec's memory file system."""
    system = fsspec.filesystem("memory")
    yield "/landing"
    system.rm("/landing", recursive=True)


def test_files_of_an_fsspec_url_are_read_once(landing: Landing, bucket: str) -> None:
    system = fsspec.filesystem("memory")
    system.pipe(f"{bucket}/1.csv", b"n,s\n1,a\n")
    job = Job(landing, f"memory:/{bucket}/*.csv")
    assert job.run() == [[1]]
    system.pipe(f"{bucket}/2.csv", b"n,s\n2,b\n")
    assert job.run() == [[2]]
    assert job.run() == []


def test_new_files_come_by_time_and_a_touched_one_does_not_come_again(landing: Landing) -> None:
    landing.rows("b.csv", 1, mtime_s=1_000)
    landing.rows("a.csv", 2, mtime_s=2_000)
    job = Job(landing)
    assert job.run() == [[1, 2]]
    landing.rows("b.csv", 7, mtime_s=3_000)  # the same name, changed
    landing.rows("c.csv", 3, mtime_s=3_000)
    assert job.run() == [[3]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[1, 2, 3]]),
        ({"max_files_per_trigger": 2}, [[1, 2], [3]]),
        ({"max_bytes_per_trigger": 1}, [[1], [2], [3]]),  # at least one file
        ({"max_bytes_per_trigger": 30}, [[1, 2], [3]]),  # a file has 12 bytes
        ({"max_files_per_trigger": 1, "latest_first": True}, [[3], [2], [1]]),
    ],
)
def test_limits_and_order_cut_the_files_into_batches(landing: Landing, options: dict[str, Any], expected: list[list[int]]) -> None:
    for n in (1, 2, 3):
        assert landing.rows(f"{n}.csv", n, mtime_s=1_000 * n).stat().st_size == 12
    assert Job(landing, **options).run() == expected


@pytest.mark.parametrize(("age", "expected"), [("1000s", [[3]]), ("2000s", [[1, 3]])])
def test_files_older_than_the_newest_by_more_than_the_age_are_not_read(landing: Landing, age: str, expected: list[list[int]]) -> None:
    landing.rows("2.csv", 2, mtime_s=3_000)
    job = Job(landing, max_file_age=age)
    assert job.run() == [[2]]
    landing.rows("1.csv", 1, mtime_s=1_500)
    landing.rows("3.csv", 3, mtime_s=3_500)
    assert job.run() == expected


def test_the_age_does_not_count_for_latest_first_with_a_limit(landing: Landing) -> None:
    landing.rows("2.csv", 2, mtime_s=9_000)
    job = Job(landing, max_file_age="1s", latest_first=True, max_files_per_trigger=1)
    assert job.run() == [[2]]
    landing.rows("1.csv", 1, mtime_s=10)
    assert job.run() == [[1]]


def test_files_are_cleaned_up_when_the_next_batch_is_logged(landing: Landing) -> None:
    landing.rows("1.csv", 1)
    job = Job(landing, clean_source="delete")
    job.run()
    landing.rows("2.csv", 2)
    assert job.run() == [[2]]
    assert sorted(f.name for f in landing.folder.iterdir()) == ["2.csv"]


def test_files_are_archived_under_their_path(landing: Landing, tmp_path: Path) -> None:
    landing.rows("in/1.csv", 1)
    job = Job(landing, "", recursive=True, clean_source="archive", archive_dir=str(tmp_path / "archive"))
    job.run()
    landing.rows("in/2.csv", 2)
    assert job.run() == [[2]]
    assert [str(f.relative_to(tmp_path / "archive")) for f in (tmp_path / "archive").rglob("*.csv")] == ["in/1.csv"]
    assert sorted(f.name for f in landing.folder.rglob("*.csv")) == ["2.csv"]


def test_the_path_of_each_row_s_file_can_be_had(landing: Landing) -> None:
    path = landing.rows("1.csv", 1)
    job = Job(landing, include_file_path="file")
    job.run()
    assert job.out.rows()["file"].to_list() == [str(path)]


def test_an_inferred_schema_is_pinned_in_the_checkpoint(landing: Landing) -> None:
    landing.rows("1.csv", 1)
    job = Job(landing, schema=None)
    assert job.run() == [[1]]
    (landing.folder / "1.csv").unlink()
    landing.add("2.csv", "n,s\n2.5,b\n")  # alone it would be inferred as a float
    told = (
        r"was begun with the columns \{'n': Int64.*inferred now are \{'n': Float64.*pass schema= with the first, or take a new checkpoint"
    )
    with pytest.raises(mb.CheckpointMismatchError, match=told):
        job.run()
    job.options["schema"] = SCHEMA
    with pytest.raises(mb.QueryFailedError, match=r"2\.csv"):
        job.run()


@pytest.mark.parametrize(
    ("bad", "told"),
    [("n,s\n2,b\nx,c\n", r"bad\.csv.*'x'"), ("m,s\n2,b\n", r"bad\.csv.*\bn\b")],
    ids=["a malformed row", "other columns"],
)
def test_a_malformed_row_fails_the_query_by_default_and_is_named(landing: Landing, bad: str, told: str) -> None:
    landing.rows("a.csv", 1)
    landing.add("bad.csv", bad)
    job = Job(landing)
    with pytest.raises(mb.QueryFailedError, match=f"(?s){told}"):
        job.run()
    assert job.out.batches() == []
    landing.rows("bad.csv", 2)  # repaired, the same batch goes through
    assert job.run() == [[1, 2]]


def test_malformed_rows_and_files_can_be_dropped_and_are_counted(landing: Landing) -> None:
    landing.add("a.csv", "n,s\n1,a\nx,b\n")
    landing.add("b.csv", "other\n1\n", mtime_s=2_000)
    out = mb.MemorySink()
    frame = mb.scan_files(f"{landing.folder}/*.csv", schema=SCHEMA, malformed="drop")
    progress = frame.sink_memory(out, checkpoint=landing.folder.parent / "query").run().last_progress
    assert out.rows().rows() == [(1, "a")]
    assert progress is not None
    figures = progress["sources"][0]["metrics"]
    assert (figures["malformedRows"], figures["malformedFiles"]) == ("1", "1")


def test_malformed_rows_can_be_kept_with_file_reason_and_text(landing: Landing) -> None:
    path = landing.add("a.csv", "n,s\n1,a\nx,b\n")
    torn = landing.add("b.csv", "other\n1\n", mtime_s=2_000)
    job = Job(landing, malformed="rescue")
    job.run()
    rows = job.out.rows()
    assert rows.filter(pl.col("_rescued").is_null()).drop("_rescued").rows() == [(1, "a")]
    kept = rows["_rescued"].drop_nulls().struct.unnest()
    assert kept["file"].to_list() == [str(path), str(torn)]
    assert kept["raw"].to_list() == ["x,b", None]
    assert kept["reason"].str.contains("n|column").all()


def test_a_file_that_cannot_be_opened_stops_the_query_and_is_named(landing: Landing) -> None:
    landing.rows("a.csv", 1)
    job = Job(landing)
    job.run()
    torn = landing.add("b.parquet", b"PAR1 torn")
    job = Job(landing, "*.parquet")
    job._checkpoint = landing.folder.parent / "another"
    with pytest.raises(mb.QueryFailedError, match=r"b\.parquet"):
        job.run()
    torn.unlink()
    with pytest.raises(mb.QueryFailedError, match=r"b\.parquet"):  # it is in the log: it cannot vanish silently
        job.run()


def test_a_missing_folder_stops_the_query_and_is_named(tmp_path: Path) -> None:
    frame = mb.scan_files(tmp_path / "nowhere", schema=SCHEMA, format="csv")
    with pytest.raises((mb.SourceError, mb.QueryFailedError), match="nowhere"):
        frame.sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c").run()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"n": ["t"], "s": ["a"]}, "column 'n' is String, the schema says Int64"),
        ({"n": [1]}, r"column 's' \(String\) of the schema is missing; the file has \['n'\]"),
        ({"n": [1], "s": ["a"], "more": [1]}, r"column 'more' \(Int64\) is not in the schema, which has \['n', 's'\]"),
    ],
    ids=["another dtype", "a column less", "a column more"],
)
def test_a_file_with_another_schema_stops_the_query_and_both_are_named(landing: Landing, rows: dict[str, Any], told: str) -> None:
    landing.add("1.parquet", ROWS)
    job = Job(landing, "*.parquet")
    assert job.run() == [[1, 2]]
    landing.add("2.parquet", pl.DataFrame(rows))
    with pytest.raises(mb.QueryFailedError, match=rf"2\.parquet cannot be read as parquet: {told}; repair the file, or .*schema="):
        job.run()
    landing.add("2.parquet", ROWS.head(1))
    assert job.run() == [[1]]
