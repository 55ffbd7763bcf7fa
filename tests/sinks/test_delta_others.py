"""The Delta sink beside other writers, other schemas and wrong options."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from microbatch.errors import PlanError, SinkError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import Sink
from microbatch.sinks.delta import DeltaSink
from tests.sinks.delta_rows import ROWS, assert_table, frame, opened, put, recorded, version

APPEND, UPDATE, COMPLETE = OutputMode.APPEND, OutputMode.UPDATE, OutputMode.COMPLETE


@pytest.mark.parametrize("mode", [APPEND, UPDATE])
def test_append_of_another_writer_stays(table: Path, mode: OutputMode) -> None:
    writer = opened(table, mode)
    put(writer, 0, ROWS)
    write_deltalake(str(table), frame(k=["x"], v=[9]), mode="append")
    put(writer, 1, frame(k=["c"], v=[3]))
    assert_table(table, frame(k=["a", "b", "x", "c"], v=[1, 2, 9, 3]))


def test_complete_replaces_rows_of_another_writer(table: Path) -> None:
    writer = opened(table, COMPLETE)
    put(writer, 0, ROWS)
    write_deltalake(str(table), frame(k=["x"], v=[9]), mode="append")
    put(writer, 1, ROWS)
    assert_table(table, ROWS)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (APPEND, frame(k=["a", "b", "c", "a"], v=[1, 2, 3, 10])),
        (UPDATE, frame(k=["b", "c", "a"], v=[2, 3, 10])),
        (COMPLETE, frame(k=["a"], v=[10])),
    ],
)
def test_compaction_in_between_neither_loses_nor_doubles(table: Path, mode: OutputMode, expected: pl.DataFrame) -> None:
    for batch_id, rows in enumerate(frame(k=["a", "b", "c"], v=[1, 2, 3]).iter_slices(1)):
        put(opened(table, APPEND), batch_id, rows)
    writer = opened(table, mode)
    assert DeltaTable(table).optimize.compact()["numFilesRemoved"] == 3
    put(writer, 3, frame(k=["a"], v=[10]))
    assert_table(table, expected)


def test_vacuum_in_between_does_not_matter(table: Path) -> None:
    writer = opened(table, UPDATE)
    put(writer, 0, ROWS)
    put(writer, 1, ROWS)
    other = DeltaTable(table)
    other.optimize.compact()
    other.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    put(writer, 2, frame(k=["b"], v=[20]))
    assert_table(table, frame(k=["a", "b"], v=[1, 20]))


def test_writer_always_behind_others_gives_up_and_may_be_tried_again(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(opened(table, COMPLETE), 0, ROWS)
    writer = opened(table, COMPLETE)

    def another_commits_first(point: str) -> None:
        assert point == "sink_files_written"
        write_deltalake(str(table), ROWS, mode="append")

    monkeypatch.setattr("microbatch.sinks.delta_writer.fault_point", another_commits_first)
    with pytest.raises(SinkError, match="in the way of batch 1 10 times") as refusal:
        put(writer, 1, ROWS)
    assert refusal.value.retryable
    assert recorded(table) == 0


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
def test_table_removed_while_the_query_runs_is_reported(table: Path, mode: OutputMode) -> None:
    writer = opened(table, mode)
    put(writer, 0, ROWS)
    put(writer, 1, ROWS)
    remove(table)
    with pytest.raises(SinkError, match="was there and is gone"):
        put(writer, 2, ROWS)


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
def test_table_replaced_while_the_query_runs_is_reported(table: Path, mode: OutputMode) -> None:
    writer = opened(table, mode)
    put(writer, 0, ROWS)
    put(writer, 1, ROWS)
    remove(table)
    write_deltalake(str(table), ROWS)
    with pytest.raises(SinkError, match="another Delta table was put in its place"):
        put(writer, 2, ROWS)
    assert version(table) == 0


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def test_column_added_by_another_writer_is_named(table: Path) -> None:
    writer = opened(table)
    put(writer, 0, ROWS)
    write_deltalake(str(table), ROWS.with_columns(extra=1.5), mode="append", schema_mode="merge")
    with pytest.raises(SinkError, match=r'version 1\) does not fit the query: "extra" \(Float64\) is only in the table'):
        put(writer, 1, ROWS)
    assert recorded(table) == 0


def test_column_retyped_by_another_writer_is_named_with_both_types(table: Path) -> None:
    writer = opened(table)
    put(writer, 0, ROWS)
    write_deltalake(str(table), ROWS.cast({"v": pl.String}), mode="overwrite", schema_mode="overwrite")
    with pytest.raises(SinkError, match='"v" is String in the table, Int64 in the query'):
        put(writer, 1, ROWS)


def test_column_dropped_by_another_writer_is_named(table: Path) -> None:
    writer = opened(table)
    put(writer, 0, ROWS)
    write_deltalake(str(table), ROWS.drop("v"), mode="overwrite", schema_mode="overwrite")
    with pytest.raises(SinkError, match=r'"v" \(Int64\) is only in the query'):
        put(writer, 1, ROWS)


# --- the table's schema, partitions, properties ---


def test_other_columns_and_types_are_refused_when_opened(table: Path) -> None:
    put(opened(table), 0, ROWS)
    other = frame(k=["a"], V=[1], w=[2.5])
    with pytest.raises(PlanError) as refusal:
        opened(table, like=other)
    assert '"V" of the query is "v" in the table' in str(refusal.value)
    assert '"w" (Float64) is only in the query (merge_schema=True adds it to the table)' in str(refusal.value)
    assert '"v" (Int64) is only in the table' in str(refusal.value)


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
def test_order_of_columns_does_not_count(table: Path, mode: OutputMode) -> None:
    put(opened(table, mode), 0, ROWS)
    put(opened(table, mode, like=ROWS.select("v", "k")), 1, frame(v=[3], k=["c"]))
    assert pl.read_delta(str(table)).filter(k="c").rows() == [("c", 3)]


def test_merge_schema_adds_and_leaves_out_columns(table: Path) -> None:
    put(opened(table), 0, ROWS)
    put(opened(table, like=frame(k=["c"], w=[0.5]), merge_schema=True), 1, frame(k=["c"], w=[0.5]))
    assert_table(table, frame(k=["a", "b", "c"], v=[1, 2, None], w=[None, None, 0.5]))


def test_merge_schema_adds_columns_in_update_mode(table: Path) -> None:
    put(opened(table, UPDATE), 0, ROWS)
    wider = frame(k=["b", "c"], v=[20, 30], w=[0.2, 0.3])
    put(opened(table, UPDATE, like=wider, merge_schema=True), 1, wider)
    assert_table(table, frame(k=["a", "b", "c"], v=[1, 20, 30], w=[None, 0.2, 0.3]))


def test_merge_schema_adds_columns_in_complete_mode(table: Path) -> None:
    put(opened(table, COMPLETE), 0, ROWS)
    wider = frame(k=["b"], v=[20], w=[0.2])
    put(opened(table, COMPLETE, like=wider, merge_schema=True), 1, wider)
    assert_table(table, wider)


def test_merge_schema_commits_metadata_only_when_columns_change(table: Path) -> None:
    put(opened(table), 0, ROWS)
    put(opened(table, merge_schema=True), 1, ROWS)
    assert "metaData" not in (table / "_delta_log" / f"{1:020d}.json").read_text()


def test_merge_schema_never_changes_a_type(table: Path) -> None:
    put(opened(table), 0, ROWS)
    with pytest.raises(PlanError, match='"v" is Int64 in the table, String in the query'):
        opened(table, like=ROWS.cast({"v": pl.String}), merge_schema=True)


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
def test_partitions_are_folders_and_rows_come_back(table: Path, mode: OutputMode) -> None:
    rows = frame(k=["a", "b", "c"], day=["1/2", None, "x y=ü"], v=[1, 2, 3])
    writer = opened(table, mode, like=rows, partition_by="day")
    put(writer, 0, rows)
    put(writer, 1, rows.with_columns(k=pl.col("k") + "2"))
    both = pl.concat([rows, rows.with_columns(k=pl.col("k") + "2")])
    assert_table(table, both[3:] if mode is COMPLETE else both)
    assert DeltaTable(table).metadata().partition_columns == ["day"]


def test_existing_partitions_are_kept_if_none_are_asked_for(table: Path) -> None:
    put(opened(table, partition_by="k"), 0, ROWS)
    put(opened(table), 1, ROWS)
    assert DeltaTable(table).metadata().partition_columns == ["k"]
    assert_table(table, pl.concat([ROWS, ROWS]))


def test_other_partitions_are_refused_naming_both(table: Path) -> None:
    put(opened(table, partition_by="k"), 0, ROWS)
    with pytest.raises(PlanError, match=r"partitioned by \['k'\], the query by \['v'\]"):
        opened(table, partition_by=["v"])


def test_properties_are_set_at_creation_and_compared_later(table: Path) -> None:
    options: dict[str, Any] = {"table_properties": {"delta.dataSkippingNumIndexedCols": "4"}, "log_retention": "1 day"}
    put(opened(table, **options), 0, ROWS)
    assert DeltaTable(table).metadata().configuration == {
        "delta.dataSkippingNumIndexedCols": "4",
        "delta.logRetentionDuration": "interval 86400 seconds",
    }
    opened(table, **options)
    with pytest.raises(PlanError, match=r"delta\.logRetentionDuration is 'interval 86400 seconds' in the table, 'interval 7200 seconds'"):
        opened(table, log_retention="2h")


def test_default_retention_equals_thirty_days(table: Path) -> None:
    put(opened(table), 0, ROWS)
    put(opened(table, log_retention="30 days"), 1, ROWS)


def test_unknown_property_is_refused_with_its_name(table: Path) -> None:
    with pytest.raises(SinkError, match=r"delta\.nonsense"):
        put(opened(table, table_properties={"delta.nonsense": "1"}), 0, ROWS)


def test_append_only_table_takes_no_upserts(table: Path) -> None:
    put(opened(table, table_properties={"delta.appendOnly": "true"}), 0, ROWS)
    with pytest.raises(PlanError, match="allows appends only"):
        opened(table, UPDATE)


def test_value_that_breaks_a_constraint_of_the_table_is_reported(table: Path) -> None:
    put(opened(table), 0, ROWS)
    DeltaTable(table).alter.add_constraint({"small": "v < 100"})
    writer = opened(table)
    with pytest.raises(SinkError, match=r"did not take the batch: .*failed validation"):
        put(writer, 1, frame(k=["c"], v=[1000]))
    put(writer, 1, frame(k=["c"], v=[3]))
    assert_table(table, frame(k=["a", "b", "c"], v=[1, 2, 3]))


def test_types_delta_lacks_are_mapped_on_the_way(table: Path) -> None:
    rows = pl.DataFrame({"k": ["a"], "n": [7]}, schema={"k": pl.Categorical, "n": pl.UInt32})
    writer = opened(table, UPDATE, like=rows)
    put(writer, 0, rows)
    put(writer, 1, rows)
    assert_table(table, frame(k=["a"], n=[7]))


# --- options ---


def test_description_names_the_table() -> None:
    sink: Sink = DeltaSink("lake/revenue")
    assert (sink.description, sink.delivery, sink.durable) == ("DeltaSink[lake/revenue]", Delivery.EXACTLY_ONCE, True)


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(DeltaSink("s3://lake/t", storage_options={"AWS_SECRET_ACCESS_KEY": "hidden"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"partition_by": ["k", "k"]}, "partition_by=.* twice"),
        ({"on": ["k", "k"]}, "on=.* twice"),
        ({"log_retention": "soon"}, "log_retention='soon'"),
        ({"log_retention": "0s"}, "longer than zero"),
        ({"table_properties": {"delta.logRetentionDuration": "interval 30 dayz"}}, "dayz"),
        ({"log_retention": "1d", "table_properties": {"delta.logRetentionDuration": "interval 1 days"}}, "give one of them"),
    ],
)
def test_wrong_option_is_refused_when_written(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        DeltaSink("lake/t", **options)


@pytest.mark.parametrize(
    ("options", "mode", "message"),
    [
        ({"partition_by": "z"}, APPEND, r"no column \['z'\]"),
        ({"partition_by": ["k", "v", "s"]}, APPEND, "all the columns"),
        ({"partition_by": "s"}, APPEND, "cannot name a folder"),
        ({"on": "k"}, COMPLETE, "keys of update mode"),
        ({"on": "z"}, UPDATE, r"no column \['z'\]"),
        ({"on": "s"}, UPDATE, "cannot compare"),
        ({}, UPDATE, r"on=\[\.\.\.\]"),
    ],
)
def test_option_that_does_not_fit_the_query_is_refused_by_check(options: dict[str, Any], mode: OutputMode, message: str) -> None:
    third = pl.String() if options.get("partition_by") == ["k", "v", "s"] else pl.Struct({"a": pl.Int64})
    schema = pl.Schema({"k": pl.String(), "v": pl.Int64(), "s": third})
    with pytest.raises(PlanError, match=message):
        DeltaSink("lake/t", **options).check(mode, schema, ())


def test_map_types_off_refuses_what_would_change() -> None:
    with pytest.raises(PlanError, match=r'"n": Delta has no UInt8, and map_types=False; write pl\.col\("n"\)\.cast\(pl\.Int16\)'):
        DeltaSink("lake/t", map_types=False).check(APPEND, pl.Schema({"n": pl.UInt8}), ())


def test_metrics_of_an_upsert_count_rows(table: Path) -> None:
    writer = opened(table, UPDATE)
    put(writer, 0, ROWS)
    put(writer, 1, frame(k=["b", "c"], v=[20, 30]))
    assert writer.metrics() == {"version": "1", "rowsInserted": "1", "rowsUpdated": "1", "filesAdded": "1", "filesRemoved": "1"}


# --- threads stand in for processes: each writer has its own handle ---


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
@pytest.mark.parametrize("first_id", [0, 1])
def test_of_many_runs_that_race_for_a_batch_one_wins(table: Path, mode: OutputMode, first_id: int) -> None:
    if first_id == 1:
        put(opened(table, mode), 0, ROWS.clear())
    runs = [opened(table, mode) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        errors = [done.exception() for done in [threads.submit(put, run, first_id, ROWS) for run in runs]]
    assert sorted(str(type(error).__name__) for error in errors) == ["NoneType", "SinkError", "SinkError", "SinkError"]
    assert_table(table, ROWS)
    assert version(table) == first_id


def test_queries_that_append_side_by_side_all_get_in(table: Path) -> None:
    def run(query: str) -> None:
        writer = opened(table, query_id=query, checkpoint_every=4)
        for batch_id in range(5):
            put(writer, batch_id, frame(k=[query], v=[batch_id]))
        writer.close()

    put(opened(table, query_id="first"), 0, ROWS.clear())
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, "abcd"))
    assert_table(table, frame(k=[query for query in "abcd" for _ in range(5)], v=[*range(5)] * 4))
    assert version(table) == 20


# --- any interleaving with restarts, replays and other writers ---


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
@pytest.mark.parametrize("seed", range(3))
def test_any_history_of_replays_restarts_and_compactions_counts_every_batch_once(table: Path, mode: OutputMode, seed: int) -> None:
    rng = random.Random(seed)
    options: dict[str, Any] = {"checkpoint_every": 3, "partition_by": "k"} if seed % 2 else {"checkpoint_every": 3}
    batches = [frame(k=rng.choices([*"abcde", None], k=4), v=[n * 10 + i for i in range(4)]) for n in range(8)]
    writer = opened(table, mode, **options)
    for batch_id, rows in enumerate(batches):
        put(writer, batch_id, rows)
        step = rng.choice(["go on", "replay", "restart", "compact", "restart and replay"])
        if "restart" in step:
            writer.close()
            writer = opened(table, mode, **options)
        if "replay" in step:
            put(writer, batch_id, rows)
        if step == "compact":
            DeltaTable(table).optimize.compact()
    writer.close()
    expected = {
        APPEND: pl.concat(batches),
        UPDATE: pl.concat(batches).unique("k", keep="last"),
        COMPLETE: batches[-1],
    }
    assert_table(table, expected[mode])
