"""The file sink's folder read back, odd values and options that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.errors import PlanError, SinkError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import SinkBatch
from microbatch.sinks.files import FileSink, read_file_sink
from tests.sinks.file_rows import SCHEMA, batch, by_log, names, writer_of


def test_folder_nobody_wrote_to_is_no_file_sink(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"no file sink has written to .* yet: it has no _spark_metadata; run the query, or read the files"):
        read_file_sink(tmp_path)


def test_moved_folder_says_that_the_log_holds_full_paths(out: Path, tmp_path: Path) -> None:
    writer_of(FileSink(out)).write(batch(0, 1))
    out.rename(tmp_path / "moved")
    with pytest.raises(SinkError, match=r"names .*/out/batch-0000000000-0a1b2c3d.parquet, which is gone; .* so move a moved folder back"):
        read_file_sink(tmp_path / "moved")


@pytest.mark.parametrize("text", ["v2\n{}", "v1\nno json", 'v1\n{"size":1}', "", 'v1\n["path"]'])
def test_damaged_log_is_named(text: str, out: Path) -> None:
    writer_of(FileSink(out)).write(batch(0, 1))
    (out / "_spark_metadata" / "0").write_text(text)
    with pytest.raises(
        SinkError, match=r"/_spark_metadata/0 holds .*, which is no entry of a file sink's log; restore the folder from a copy"
    ):
        read_file_sink(out)


@pytest.mark.parametrize("text", ["v2\n{}", "v1", "v1\nno json", 'v1\n{"queryId":"x"}', "v1\n{}\n{}"])
def test_damaged_owner_is_named(text: str, out: Path) -> None:
    writer_of(FileSink(out)).write(batch(0, 1))
    (out / "_microbatch" / "0").write_text(text)
    with pytest.raises(SinkError, match=r"/_microbatch/0 holds .*restore the folder from a copy"):
        read_file_sink(out)


def test_log_with_a_hole_is_refused(out: Path) -> None:
    writer = writer_of(FileSink(out))
    for batch_id in range(3):
        writer.write(batch(batch_id, batch_id))
    (out / "_spark_metadata" / "1").unlink()
    with pytest.raises(SinkError, match=r"has entries \[0, 2\] after None, so some between are missing"):
        read_file_sink(out)


def test_reader_begins_again_when_a_compaction_removes_what_it_listed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(FileSink(out, compact_every=2))
    writer.write(batch(0, 0))
    real = Path.read_text
    listed: list[str] = []

    def late(self: Path, *args: Any, **kwargs: Any) -> str:
        if self.parent.name == "_spark_metadata" and not listed:
            listed.append(self.name)
            for batch_id in range(1, 9):
                writer.write(batch(batch_id, batch_id))
            self.unlink(missing_ok=True)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", late)
    assert by_log(out) == list(range(9))
    assert listed == ["0"]


def test_paths_with_odd_characters_are_read_back(tmp_path: Path) -> None:
    out = tmp_path / "env=prod" / "a b%20[1]#é"
    writer_of(FileSink(out, partition_by="kind")).write(batch(0, 1, 2))
    assert by_log(out) == [1, 2]


# -- partitions -----------------------------------------------------------------------------------------------------------------

ODD_VALUES = ["a*b", "a/b=c", "é ü", "..", "a%2Fb", "100", "x?y#z", "[1]{2}", "back\\slash", "two\nlines", "__HIVE__", "'\"", None]


def test_odd_partition_values_come_back_by_log_and_by_pattern(out: Path) -> None:
    rows = pl.DataFrame({"n": range(len(ODD_VALUES)), "kind": ODD_VALUES}, schema=SCHEMA)
    writer_of(FileSink(out, partition_by="kind")).write(SinkBatch(batch_id=0, rows=rows, info={}))
    assert_frame_equal(read_file_sink(out).collect().sort("n"), rows)
    hive = {"microbatch_id": pl.Int64(), "kind": pl.String()}
    found = pl.scan_parquet(out / "**/*.parquet", hive_partitioning=True, hive_schema=hive).select("n", "kind").collect()
    assert_frame_equal(found.sort("n"), rows)


def test_empty_text_and_hives_word_for_null_become_null_in_one_partition(out: Path) -> None:
    rows = pl.DataFrame({"n": [1, 2, 3], "kind": ["", None, "__HIVE_DEFAULT_PARTITION__"]}, schema=SCHEMA)
    writer_of(FileSink(out, partition_by="kind")).write(SinkBatch(batch_id=0, rows=rows, info={}))
    expected = rows.with_columns(kind=pl.lit(None, pl.String))
    assert_frame_equal(read_file_sink(out).collect(), expected)


@pytest.mark.parametrize(
    "dtype",
    [
        pl.Int8(),
        pl.UInt64(),
        pl.Boolean(),
        pl.Date(),
        pl.Datetime("us", "Europe/Berlin"),
        pl.Datetime("ns"),
        pl.Enum(["a", "b"]),
        pl.Categorical(),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["parquet", "ipc"])
def test_partition_columns_keep_their_types(kind: str, dtype: pl.DataType, out: Path) -> None:
    values = pl.Series(["a", "b", None]) if isinstance(dtype, pl.Enum | pl.Categorical) else pl.Series([0, 1, None])
    rows = pl.DataFrame([values.cast(dtype).alias("key"), pl.Series("n", [1, 2, 3])])
    writer_of(FileSink(out, format=kind, partition_by="key"), schema=rows.schema).write(SinkBatch(batch_id=0, rows=rows, info={}))
    assert_frame_equal(read_file_sink(out).collect().sort("n"), rows)


# -- refusals when the query is defined -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "parket"}, r"format='parket' is none of \['parquet', 'csv', 'ndjson', 'ipc'\]; did you mean 'parquet'\?"),
        (
            {"format_options": {"compresion": "zstd"}},
            "format_options has 'compresion', which parquet files do not know; did you mean 'compression'?",
        ),
        ({"format": "ndjson", "format_options": {"x": 1}}, "which ndjson files do not know; known: none"),
        ({"format_options": {"compression": "zip"}}, r"format_options=\{'compression': 'zip'\} is refused by the parquet writer"),
        ({"format": "csv", "format_options": {"separator": ";;"}}, "is refused by the csv writer: .*single byte"),
        ({"storage_options": {"key": "secret"}}, "storage_options are for object stores, .* use sink_delta"),
        ({"compact_every": 0}, "compact_every=0 must be 1 or more batches"),
        ({"format": "csv", "partition_by": "kind"}, 'partition_by needs format="parquet" or "ipc": readers of csv files do not'),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        FileSink("out", **options)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://bucket/out", "writes to local folders only, not to s3://bucket/out; write a Delta table there with sink_delta"),
        ("out/*.parquet", "path='out/\\*.parquet' is no folder to write to; files are named by the sink, so give the folder alone"),
        ("", "path='' is no folder to write to"),
    ],
)
def test_places_that_are_no_local_folder_are_refused(path: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        FileSink(path)


def test_file_url_is_a_path(tmp_path: Path) -> None:
    out = tmp_path / "a b"
    writer_of(FileSink(out.as_uri())).write(batch(0, 1))
    assert by_log(out) == [1]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (OutputMode.COMPLETE, 'refuses mode="complete"; write to Delta with sink_delta'),
        (OutputMode.UPDATE, 'refuses mode="update"; write to Delta with sink_delta, .* or pass changelog=True .* or use mode="append"'),
    ],
)
def test_modes_that_replace_rows_are_refused(mode: OutputMode, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        FileSink("out").check(mode, SCHEMA, ("n",))


def test_changelog_takes_update_mode_and_keeps_each_change(out: Path) -> None:
    writer = writer_of(FileSink(out, changelog=True), mode=OutputMode.UPDATE)
    writer.write(batch(0, 1))
    writer.write(batch(1, 1))
    assert by_log(out) == [1, 1]
    with pytest.raises(PlanError, match='refuses mode="complete"'):
        FileSink(out, changelog=True).check(OutputMode.COMPLETE, SCHEMA, ())


@pytest.mark.parametrize(
    ("partition_by", "message"),
    [
        ("kid", r"partition_by names 'kid'; the rows have \['n', 'kind', 'x', 'a/b', 'microbatch_id'\]"),
        ("x", r"partition_by='x' is of type Float64; folders can be named by texts, .*: add a column for it, such as pl.col\('x'\).cast"),
        (["n", "n"], r"partition_by=\['n', 'n'\] names a column twice"),
        ("a/b", "partition_by='a/b' cannot name a folder that readers understand; rename the column"),
        ("n", "the column 'microbatch_id' is in the way: partitioned files keep the batch id under that name; rename it"),
    ],
)
def test_partitions_that_cannot_be_folders_are_refused(partition_by: Any, message: str) -> None:
    schema = pl.Schema({"n": pl.Int64(), "kind": pl.String(), "x": pl.Float64(), "a/b": pl.Int64(), "microbatch_id": pl.Int64()})
    with pytest.raises(PlanError, match=message):
        FileSink("out", partition_by=partition_by).check(OutputMode.APPEND, schema, ())


def test_partitions_of_all_columns_are_refused() -> None:
    with pytest.raises(PlanError, match=r"partition_by=\['kind', 'n'\] takes every column, so the files would be empty; leave one out"):
        FileSink("out", partition_by=["kind", "n"]).check(OutputMode.APPEND, SCHEMA, ())


def test_folder_whose_path_speaks_for_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"readers of .* would take 'kind=x' for a column of the rows; take another folder, or rename"):
        writer_of(FileSink(tmp_path / "kind=x" / "out", partition_by="kind"))


def test_mount_point_is_refused_for_partitions(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: True)
    with pytest.raises(
        SinkError, match="is a mount point, so a batch of many files cannot be moved into it in one step; take a folder below"
    ):
        writer_of(FileSink(out, partition_by="kind"))
    writer_of(FileSink(out))


def test_describing_and_opening_write_no_entry(sink: FileSink, out: Path) -> None:
    sink.check(OutputMode.APPEND, SCHEMA, ())
    assert not out.exists()
    writer_of(sink)
    assert names(out) == []


def test_sink_says_what_it_promises(out: Path) -> None:
    sink = FileSink("lake/out")
    assert (sink.description, sink.delivery, sink.durable) == ("FileSink[lake/out]", Delivery.EXACTLY_ONCE, True)


def test_metrics_count_files_and_bytes(sink: FileSink, out: Path) -> None:
    writer = writer_of(sink)
    writer.write(batch(0, 1, 2))
    n_bytes = sum(file.stat().st_size for file in out.rglob("*.parquet"))
    assert writer.metrics() == {"files": "2" if sink.partition_by else "1", "bytes": str(n_bytes)}
    writer.close()
