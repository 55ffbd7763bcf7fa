"""Checkpoints and log clean-up beside the writer."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import DeltaError

from microbatch.sinks.delta_maintenance import DeltaMaintenance

NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
TWO_DAYS_AGO = 1_600_000_000


def grow(table: Path, to_version: int, retention: str | None = None) -> None:
    configuration = {"delta.logRetentionDuration": retention} if retention else None
    for _ in range(to_version - (DeltaTable(table).version() if DeltaTable.is_deltatable(str(table)) else -1)):
        write_deltalake(table, pl.DataFrame({"a": [1]}), mode="append", configuration=configuration, post_commithook_properties=NO_HOOKS)


def log_names(table: Path) -> list[str]:
    return sorted(path.name for path in (table / "_delta_log").iterdir())


def test_checkpoint_is_made_when_a_multiple_is_passed(tmp_path: Path) -> None:
    grow(tmp_path, 5)
    maintenance = DeltaMaintenance(lambda: DeltaTable(tmp_path), every=3, version=2)
    maintenance.committed(5)
    maintenance.close()
    assert f"{5:020d}.checkpoint.parquet" in log_names(tmp_path)


def test_no_checkpoint_between_multiples(tmp_path: Path) -> None:
    grow(tmp_path, 5)
    maintenance = DeltaMaintenance(lambda: DeltaTable(tmp_path), every=3, version=3)
    maintenance.committed(4)
    maintenance.committed(5)
    maintenance.close()
    assert not [name for name in log_names(tmp_path) if "checkpoint" in name]


def test_multiple_passed_in_an_earlier_run_is_not_made_up_for(tmp_path: Path) -> None:
    grow(tmp_path, 4)
    maintenance = DeltaMaintenance(lambda: DeltaTable(tmp_path), every=3, version=4)
    maintenance.committed(5)
    assert maintenance.fresh() is None
    maintenance.close()


def test_fresh_handle_is_given_once(tmp_path: Path) -> None:
    grow(tmp_path, 3)
    maintenance = DeltaMaintenance(lambda: DeltaTable(tmp_path), every=3, version=2)
    maintenance.committed(3)
    maintenance._thread.shutdown(wait=True)
    fresh = maintenance.fresh()
    assert fresh is not None
    assert fresh.version() == 3
    assert maintenance.fresh() is None


def test_old_log_entries_before_the_checkpoint_go(tmp_path: Path) -> None:
    grow(tmp_path, 3, retention="interval 1 days")
    for path in (tmp_path / "_delta_log").iterdir():
        os.utime(path, (TWO_DAYS_AGO, TWO_DAYS_AGO))
    maintenance = DeltaMaintenance(lambda: DeltaTable(tmp_path), every=3, version=2)
    maintenance.committed(3)
    maintenance.close()
    assert log_names(tmp_path) == [f"{3:020d}.checkpoint.parquet", f"{3:020d}.json", "_last_checkpoint"]
    assert pl.read_delta(str(tmp_path)).height == 4


def test_log_is_kept_if_the_table_says_so(tmp_path: Path) -> None:
    grow(tmp_path, 3, retention="interval 1 days")
    DeltaTable(tmp_path).alter.set_table_properties({"delta.enableExpiredLogCleanup": "false"})
    for path in (tmp_path / "_delta_log").iterdir():
        os.utime(path, (TWO_DAYS_AGO, TWO_DAYS_AGO))
    maintenance = DeltaMaintenance(lambda: DeltaTable(tmp_path), every=3, version=2)
    maintenance.committed(4)
    maintenance.close()
    assert sum(name.endswith(".json") for name in log_names(tmp_path)) == 5


def test_failed_job_warns_and_the_next_multiple_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    opened: list[int] = []

    def open_table() -> DeltaTable:
        opened.append(1)
        msg = "no disk"
        raise DeltaError(msg)

    maintenance = DeltaMaintenance(open_table, every=3, version=2)
    maintenance.committed(3)
    with caplog.at_level(logging.WARNING):
        maintenance.close()
    assert "no disk" in caplog.text
    assert maintenance.fresh() is None
    assert opened == [1]
