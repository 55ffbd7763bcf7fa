"""The Delta sink on real tables; the oracle is what `pl.read_delta` reads."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from microbatch.errors import SinkError
from microbatch.model import OutputMode
from microbatch.sinks.delta import DeltaSink
from tests.sinks.delta_rows import ROWS, assert_table, context, frame, opened, put, recorded, version

APPEND, UPDATE, COMPLETE = OutputMode.APPEND, OutputMode.UPDATE, OutputMode.COMPLETE


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
