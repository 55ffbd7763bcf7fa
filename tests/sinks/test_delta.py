"""The Delta sink on real tables; the oracle is what `pl.read_delta` reads."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from polars.testing import assert_frame_equal

from microbatch.clock import ManualClock
from microbatch.errors import PlanError, SinkError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import EntryLog, Sink, SinkBatch, SinkContext
from microbatch.sinks.delta import DeltaSink
from microbatch.sinks.delta_writer import DeltaWriter

APPEND, UPDATE, COMPLETE = OutputMode.APPEND, OutputMode.UPDATE, OutputMode.COMPLETE
ROWS = pl.DataFrame({"k": ["a", "b"], "v": [1, 2]})


def no_log(path: str, every: int) -> EntryLog:
    raise AssertionError((path, every))


def context(mode: OutputMode, schema: pl.Schema, query_id: str = "q", keys: Sequence[str] = ("k",)) -> SinkContext:
    return SinkContext(
        query_id=query_id,
        query_name="orders",
        mode=mode,
        schema=schema,
        keys=tuple(keys) if mode is UPDATE else (),
        clock=ManualClock(),
        open_log=no_log,
    )


def opened(
    table: Path, mode: OutputMode = APPEND, like: pl.DataFrame = ROWS, query_id: str = "q", keys: Sequence[str] = ("k",), **options: Any
) -> DeltaWriter:
    return DeltaSink(table, **options).open(context(mode, like.schema, query_id, keys))


def put(writer: DeltaWriter, batch_id: int, rows: pl.DataFrame, info: Mapping[str, str] | None = None) -> None:
    writer.write(SinkBatch(batch_id=batch_id, rows=rows, info=info or {}))


def version(table: Path) -> int:
    return DeltaTable(table).version()


def recorded(table: Path, query_id: str = "q") -> int | None:
    return DeltaTable(table).transaction_version(query_id)


def assert_table(table: Path, expected: pl.DataFrame) -> None:
    assert_frame_equal(pl.read_delta(str(table)), expected, check_row_order=False)


def frame(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "lake" / "orders"


# --- a batch is written once ---


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
def test_batch_handed_over_again_after_a_restart_makes_no_commit(table: Path, mode: OutputMode) -> None:
    put(opened(table, mode), 0, ROWS)
    again = opened(table, mode)
    put(again, 0, ROWS)
    assert version(table) == 0
    assert again.metrics() == {"skipped": "the table has this batch"}
    assert_table(table, ROWS)


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
def test_batch_handed_over_twice_in_one_run_makes_one_commit(table: Path, mode: OutputMode) -> None:
    writer = opened(table, mode)
    put(writer, 0, ROWS)
    put(writer, 1, ROWS)
    put(writer, 1, ROWS)
    assert version(table) == 1


def test_append_keeps_all_batches(table: Path) -> None:
    writer = opened(table)
    put(writer, 0, ROWS)
    put(writer, 1, frame(k=["c"], v=[3]))
    assert_table(table, frame(k=["a", "b", "c"], v=[1, 2, 3]))


def test_complete_keeps_the_last_batch_only(table: Path) -> None:
    writer = opened(table, COMPLETE)
    for batch_id, count in enumerate([1, 2, 3]):
        put(writer, batch_id, frame(k=["all"], v=[count]))
        assert_table(table, frame(k=["all"], v=[count]))
        assert (version(table), recorded(table)) == (batch_id, batch_id)


def test_update_replaces_rows_by_key(table: Path) -> None:
    writer = opened(table, UPDATE)
    put(writer, 0, ROWS)
    put(writer, 1, frame(k=["b", "c"], v=[20, 30]))
    assert_table(table, frame(k=["a", "b", "c"], v=[1, 20, 30]))


def test_update_with_all_columns_as_keys_keeps_distinct_rows(table: Path) -> None:
    writer = opened(table, UPDATE, on=["k", "v"])
    put(writer, 0, frame(k=["a", "a"], v=[1, 2]))
    put(writer, 1, frame(k=["a", "a"], v=[2, 3]))
    assert_table(table, frame(k=["a", "a", "a"], v=[1, 2, 3]))


def test_ids_may_have_gaps_and_a_lower_id_is_skipped(table: Path) -> None:
    writer = opened(table)
    put(writer, 3, ROWS)
    put(writer, 7, ROWS)
    put(writer, 5, ROWS)
    assert (version(table), recorded(table)) == (1, 7)


def test_ids_of_two_queries_are_independent(table: Path) -> None:
    put(opened(table), 5, ROWS)
    put(opened(table, query_id="other"), 2, ROWS)
    put(opened(table), 6, ROWS)
    assert_table(table, pl.concat([ROWS] * 3))
    assert (recorded(table), recorded(table, "other")) == (6, 2)


def test_overwrites_skip_ids_already_there_and_versions_count_commits(table: Path) -> None:
    # The steps and table versions of Delta's "Idempotent Dataframe save: overwrite".
    rows = frame(k=["a", "b", "c"], v=[1, 2, 3])
    for query_id, batch_id, then_version in [("1", 1, 0), ("1", 2, 1), ("1", 5, 2), ("1", 5, 2), ("2", 5, 3), ("2", 5, 3)]:
        put(opened(table, COMPLETE, query_id=query_id), batch_id, rows)
        assert version(table) == then_version
        assert_table(table, rows)


def test_rows_and_transaction_are_one_commit(table: Path) -> None:
    writer = opened(table)
    for batch_id in (0, 1):
        put(writer, batch_id, ROWS)
        actions = [json.loads(line) for line in (table / "_delta_log" / f"{batch_id:020d}.json").read_text().splitlines()]
        assert [action["txn"] for action in actions if "txn" in action] == [{"appId": "q", "version": batch_id}]
        assert sum("add" in action for action in actions) == 1


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
def test_commit_says_which_batch_it_is(table: Path, mode: OutputMode) -> None:
    writer = opened(table, mode)
    put(writer, 0, ROWS)
    put(writer, 1, ROWS, {"orders": "7..9"})
    kept = DeltaTable(table).history(1)[0]["microbatch"]
    assert {name: kept[name] for name in ("queryId", "queryName", "batchId", "info")} == {
        "queryId": "q",
        "queryName": "orders",
        "batchId": 1,
        "info": {"orders": "7..9"},
    }


# --- batches without rows, the first batch ---


@pytest.mark.parametrize("mode", [APPEND, UPDATE])
def test_batch_without_rows_is_committed_for_its_id(table: Path, mode: OutputMode) -> None:
    writer = opened(table, mode)
    put(writer, 0, ROWS)
    put(writer, 1, ROWS.clear())
    assert (version(table), recorded(table)) == (1, 1)
    assert_table(table, ROWS)
    put(writer, 1, frame(k=["c"], v=[3]))
    assert_table(table, ROWS)


def test_complete_batch_without_rows_empties_the_table(table: Path) -> None:
    writer = opened(table, COMPLETE)
    put(writer, 0, ROWS)
    put(writer, 1, ROWS.clear())
    assert_table(table, ROWS.clear())
    assert recorded(table) == 1


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
def test_first_batch_creates_the_table_also_without_rows(table: Path, mode: OutputMode) -> None:
    put(opened(table, mode), 0, ROWS.clear())
    assert_table(table, ROWS.clear())
    assert (version(table), recorded(table)) == (0, 0)


def test_opening_a_missing_table_creates_nothing(table: Path) -> None:
    opened(table).close()
    assert not table.exists()


def test_first_batch_can_be_written_after_a_crash_amid_it(table: Path) -> None:
    (table / "_delta_log").mkdir(parents=True)
    (table / "_delta_log" / f"{0:020d}.json#1").write_bytes(b"")
    ROWS.write_parquet(table / "part-0.parquet")
    put(opened(table), 0, ROWS)
    assert_table(table, ROWS)


def test_files_of_an_attempt_without_commit_are_not_seen(table: Path) -> None:
    put(opened(table), 0, ROWS)
    ROWS.write_parquet(table / "part-of-a-dead-attempt.parquet")
    put(opened(table), 1, ROWS)
    assert_table(table, pl.concat([ROWS, ROWS]))


def test_folder_with_other_files_is_refused_by_name(table: Path) -> None:
    table.mkdir(parents=True)
    (table / "orders.csv").write_text("k,v\n")
    with pytest.raises(SinkError, match=r"lake/orders is no Delta table and holds other files \(orders\.csv\)"):
        opened(table)


def test_file_in_place_of_the_folder_is_refused(table: Path) -> None:
    table.parent.mkdir()
    table.write_text("x")
    with pytest.raises(SinkError, match="lake/orders: the Delta table cannot be opened"):
        opened(table)


def test_damaged_log_is_refused(table: Path) -> None:
    put(opened(table), 0, ROWS)
    put(opened(table), 1, ROWS)
    (table / "_delta_log" / f"{0:020d}.json").unlink()
    with pytest.raises(SinkError, match=r"restore .*_delta_log"):
        opened(table)


def test_table_may_be_given_as_text_or_file_uri(table: Path) -> None:
    put(DeltaSink(f"file://{table}").open(context(APPEND, ROWS.schema)), 0, ROWS)
    put(DeltaSink(str(table)).open(context(APPEND, ROWS.schema)), 1, ROWS)
    assert_table(table, pl.concat([ROWS, ROWS]))


def test_relative_folder_is_resolved_when_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    writer = opened(Path("orders"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    put(writer, 0, ROWS)
    assert_table(tmp_path / "orders", ROWS)


# --- a second run of the same query ---


@pytest.mark.parametrize("mode", [APPEND, UPDATE, COMPLETE])
def test_run_that_lost_the_race_for_a_batch_is_told_who_won(table: Path, mode: OutputMode) -> None:
    put(opened(table, mode), 0, ROWS)
    zombie, winner = opened(table, mode), opened(table, mode)
    put(winner, 1, frame(k=["c"], v=[3]))
    won = DeltaTable(table).history(1)[0]["microbatch"]["runId"]
    with pytest.raises(SinkError, match=rf"another run of query q has committed batch 1 \(version 1, run {won}\)") as refusal:
        put(zombie, 1, frame(k=["c"], v=[3]))
    assert not refusal.value.retryable
    assert_table(table, frame(k=["c"], v=[3]) if mode is COMPLETE else frame(k=["a", "b", "c"], v=[1, 2, 3]))


def test_run_that_lost_the_race_for_the_first_batch_writes_nothing(table: Path) -> None:
    zombie, winner = opened(table), opened(table)
    put(winner, 0, ROWS)
    with pytest.raises(SinkError, match="another run of query q has committed batch 0"):
        put(zombie, 0, ROWS)
    assert_table(table, ROWS)


def test_run_far_behind_writes_nothing(table: Path) -> None:
    put(opened(table), 0, ROWS)
    zombie, winner = opened(table), opened(table)
    for batch_id in (1, 2, 3):
        put(winner, batch_id, ROWS)
    with pytest.raises(SinkError, match=r"has committed batch 3 .* to write batch 1"):
        put(zombie, 1, ROWS)
    assert version(table) == 3


def test_second_run_is_found_out_also_through_a_handle_from_maintenance(table: Path) -> None:
    put(opened(table), 0, ROWS)
    zombie = opened(table, checkpoint_every=1)
    put(zombie, 1, ROWS)
    put(opened(table), 2, ROWS)
    assert zombie._maintenance is not None
    zombie._maintenance._thread.shutdown(wait=True)
    with pytest.raises(SinkError, match="another run of query q has committed batch 2"):
        put(zombie, 2, ROWS)
    assert version(table) == 2


def test_commit_whose_answer_was_lost_is_taken_as_done(table: Path) -> None:
    put(opened(table), 0, ROWS)
    writer = opened(table)
    kept = {"queryId": "q", "runId": writer._run_id, "batchId": 1}
    lost = CommitProperties(custom_metadata={"microbatch": kept}, app_transactions=[Transaction("q", 1)])
    write_deltalake(str(table), ROWS, mode="append", commit_properties=lost)
    put(writer, 1, ROWS)
    assert (version(table), writer.metrics()) == (1, {"version": "1"})


def test_transaction_of_another_engine_counts(table: Path) -> None:
    # Spark took over batch 4 of this query, and handed it back.
    put(opened(table), 3, ROWS)
    write_deltalake(str(table), ROWS, mode="append", commit_properties=CommitProperties(app_transactions=[Transaction("q", 4)]))
    put(opened(table), 4, ROWS)
    assert version(table) == 1


# --- other writers ---


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
