"""What comes in wrong from outside, through whole queries: values, times, checkpoints, tables. Expected rows by hand or in plain Polars."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from deltalake import write_deltalake
from polars.testing import assert_frame_equal

import microbatch as mb

MOST = 2**63 - 1


# -- values ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "first", "second"),
    [(pl.Int64, MOST, 1), (pl.Int64, -MOST, -2), (pl.UInt64, 2**64 - 1, 0)],
    ids=["upward", "downward", "unsigned"],
)
def test_a_sum_past_64_bits_stops_the_query_and_is_named(tmp_path: Path, dtype: Any, first: int, second: int) -> None:
    stream, out = mb.MemoryStream({"k": pl.String, "v": dtype}), mb.MemorySink()
    query = stream.frame().group_by("k").agg(pl.col("v").sum()).sink_memory(out, mode="update", checkpoint=tmp_path / "c")
    stream.add({"k": ["a"], "v": [5]})
    query.run()
    stream.add({"k": ["a", "a"], "v": [first, second]})
    with pytest.raises(mb.QueryFailedError, match=r"col\(\"v\"\).sum\(\) of group {'k': 'a'} does not fit .*never wrap; cast") as failure:
        query.run()
    assert isinstance(failure.value.__cause__, mb.DataError)
    assert out.rows().rows() == [("a", 5)]


def test_small_integers_are_summed_in_64_bits(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream({"v": pl.Int8}), mb.MemorySink()
    query = stream.frame().group_by().agg(pl.col("v").sum()).sink_memory(out, mode="update", checkpoint=tmp_path / "c")
    for _ in range(2):
        stream.add({"v": [127, 127]})
        query.run()
    assert out.rows()["v"].to_list() == [254, 508]


def test_nan_null_and_minus_zero_are_keys_like_others(tmp_path: Path) -> None:
    stream, out = mb.MemoryStream({"k": pl.Float64}), mb.MemorySink()
    query = stream.frame().group_by("k").len().sink_memory(out, mode="complete", checkpoint=tmp_path / "c")
    for keys in ([float("nan"), None, 0.0], [-0.0, float("nan"), None]):
        stream.add({"k": keys})
        query.run()
    expected = pl.DataFrame({"k": [None, 0.0, float("nan")], "len": [2, 2, 2]}, schema_overrides={"len": pl.UInt32})
    assert_frame_equal(out.batches()[-1][1].sort("k"), expected)


# -- times -------------------------------------------------------------------------------------------------------------------

SWITCHES = [
    ("Europe/Berlin", datetime(2024, 3, 31, 0)),  # 01:00 UTC: 02:00 becomes 03:00
    ("Europe/Berlin", datetime(2024, 10, 27, 0)),  # 01:00 UTC: 03:00 becomes 02:00, one hour comes twice
    ("America/New_York", datetime(2024, 3, 10, 6)),  # 07:00 UTC
    ("America/New_York", datetime(2024, 11, 3, 5)),  # 06:00 UTC
]


@pytest.mark.parametrize(("zone", "begin"), SWITCHES, ids=lambda value: str(value).replace("/", "-").partition(" ")[0])
@pytest.mark.parametrize("size", ["15m", "1h"])
def test_windows_over_a_change_of_daylight_saving_lose_and_double_nothing(tmp_path: Path, zone: str, begin: datetime, size: str) -> None:
    """In UTC nothing happens at that hour, so the oracle counts there."""
    at = pl.datetime_range(begin, begin + timedelta(hours=3), "7m", eager=True, time_zone="UTC").alias("at")
    stream, out = mb.MemoryStream({"at": pl.Datetime("us", zone)}), mb.MemorySink()
    counts = stream.frame().with_watermark("at", "10m").group_by(mb.window("at", size)).len()
    query = counts.sink_memory(out, checkpoint=tmp_path / "c")
    for k in range(0, at.len(), 4):
        stream.add(at.slice(k, 4).dt.convert_time_zone(zone).to_frame())
        query.run()
    stream.add({"at": [(begin + timedelta(hours=9)).replace(tzinfo=UTC).astimezone(ZoneInfo(zone))]})
    query.run()
    expected = at.to_frame().group_by(pl.col("at").dt.truncate(size).alias("window_start")).len()
    found = out.rows()
    assert found.schema["window_start"] == pl.Datetime("us", zone)
    assert found["window_start"].dt.convert_time_zone(zone).dt.offset_by(size).equals(found["window_end"])
    assert_frame_equal(found.select(pl.col("window_start").dt.convert_time_zone("UTC"), "len"), expected, check_row_order=False)


def test_days_are_days_of_utc_also_where_a_zone_s_day_has_25_hours(tmp_path: Path) -> None:
    zone = ZoneInfo("Europe/Berlin")
    stream, out = mb.MemoryStream({"at": pl.Datetime("us", "Europe/Berlin")}), mb.MemorySink()
    query = stream.frame().group_by(mb.window("at", "1d")).len().sink_memory(out, mode="update", checkpoint=tmp_path / "c")
    stream.add({"at": [datetime(2024, 10, 27, 0, 30, tzinfo=zone), datetime(2024, 10, 27, 23, 30, tzinfo=zone)]})
    query.run()
    # 22:30 UTC of the day before, and 22:30 UTC of that day.
    starts = out.rows()["window_start"].dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    assert sorted(starts) == [datetime(2024, 10, 26), datetime(2024, 10, 27)]


# -- checkpoints -------------------------------------------------------------------------------------------------------------


class Counts:
    """Rows counted by key in a checkpoint, with three batches behind it."""

    def __init__(self, root: Path) -> None:
        self.folder, self.stream, self.out = root / "c", mb.MemoryStream({"k": pl.String}), mb.MemorySink()
        for key in "aba":
            self.stream.add({"k": [key]})
            self.run()

    def run(self) -> None:
        """Run all there is."""
        self.stream.frame().group_by("k").len().sink_memory(self.out, mode="update", checkpoint=self.folder).run()


@pytest.fixture
def counts(tmp_path: Path) -> Counts:
    return Counts(tmp_path)


@pytest.mark.parametrize("part", [0, 0.5])
@pytest.mark.parametrize("name", ["offsets/2", "commits/2", "metadata"])
def test_a_truncated_file_of_the_checkpoint_is_named_and_nothing_is_changed(counts: Counts, name: str, part: float) -> None:
    path = counts.folder / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    before = {f: f.read_bytes() for f in counts.folder.rglob("*") if f.is_file() and f.name != ".lock"}
    counts.stream.add({"k": ["a"]})
    with pytest.raises(mb.CheckpointCorruptError, match=name):
        counts.run()
    assert before == {f: f.read_bytes() for f in counts.folder.rglob("*") if f.is_file() and f.name != ".lock"}


def test_an_entry_of_a_later_format_is_refused_with_both_versions(counts: Counts) -> None:
    path = counts.folder / "offsets" / "2"
    path.write_text(path.read_text().replace("v1", "v9", 1))
    with pytest.raises(mb.CheckpointCorruptError, match=r"offsets/2.*v9.*v1"):
        counts.run()


def test_a_folder_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "c"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_bytes(b"JFIF")
    stream = mb.MemoryStream({"k": pl.String})
    with pytest.raises(mb.CheckpointMismatchError, match=r"is no checkpoint: it holds holiday\.jpg .*; name a folder that is new"):
        stream.frame().sink_memory(mb.MemorySink(), checkpoint=foreign).run()
    assert (foreign / "holiday.jpg").read_bytes() == b"JFIF"


def test_the_checkpoint_of_another_query_is_refused(counts: Counts) -> None:
    with pytest.raises(mb.CheckpointMismatchError, match=r"holds the state of another query"):
        counts.stream.frame().unique("k").sink_memory(mb.MemorySink(), checkpoint=counts.folder).run()


def test_the_offsets_of_another_source_are_refused(tmp_path: Path) -> None:
    stream = mb.MemoryStream({"n": pl.Int64})
    stream.add({"n": [1]})
    stream.frame().sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c").run()
    (tmp_path / "1.csv").write_text("n\n1\n")
    files = mb.scan_files(tmp_path / "*.csv", schema={"n": pl.Int64}).sink_memory(mb.MemorySink(), checkpoint=tmp_path / "c")
    told = r"stopped between batches: .*is no offset of a file source; restore the old query, or take a new checkpoint"
    with pytest.raises(mb.QueryFailedError, match=told):
        files.run()


def test_a_copied_checkpoint_goes_on_where_it_was_copied(counts: Counts, tmp_path: Path) -> None:
    shutil.copytree(counts.folder, tmp_path / "copy")
    counts.stream.add({"k": ["a"]})
    counts.run()
    counts.folder = tmp_path / "copy"
    counts.out.clear(forget_ids=True)
    counts.run()
    assert counts.out.rows().rows() == [("a", 3)]


# -- tables of others --------------------------------------------------------------------------------------------------------


def add_column(table: Path) -> None:
    write_deltalake(table, pl.DataFrame({"v": [0], "w": [0]}).to_arrow(), mode="append", schema_mode="merge")


def replace(table: Path) -> None:
    shutil.rmtree(table)
    write_deltalake(table, pl.DataFrame({"v": ["text"]}).to_arrow())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (add_column, r'"w" \(Int64\) is only in the table \(merge_schema=True leaves it null\)'),
        (replace, r'"v" is String in the table, Int64 in the query'),
    ],
)
def test_a_delta_table_another_writer_changed_is_refused_by_name(tmp_path: Path, change: Callable[[Path], None], told: str) -> None:
    stream = mb.MemoryStream({"v": pl.Int64})
    query = stream.frame().sink_delta(tmp_path / "t", checkpoint=tmp_path / "c")
    stream.add({"v": [1]})
    query.run()
    change(tmp_path / "t")
    stream.add({"v": [2]})
    with pytest.raises(mb.PlanError, match=told):
        query.run()


def test_rows_another_writer_appends_stay_and_ours_come_once(tmp_path: Path) -> None:
    stream = mb.MemoryStream({"v": pl.Int64})
    query = stream.frame().sink_delta(tmp_path / "t", checkpoint=tmp_path / "c")
    for v in (1, 2):
        stream.add({"v": [v]})
        query.run()
        write_deltalake(tmp_path / "t", pl.DataFrame({"v": [-v]}).to_arrow(), mode="append")
    assert sorted(pl.read_delta(str(tmp_path / "t"))["v"]) == [-2, -1, 1, 2]
