"""The demo from beginning to end, on the first days of the year."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

import microbatch as mb
from microbatch.demo import command, crash, job
from microbatch.errors import MicrobatchError


def test_the_table_equals_one_polars_query(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(tmp_path / "demo", days=12, kills=0, seed=0)
    said = capsys.readouterr().out
    assert "10,452 flights landed as 12 files" in said
    assert "equal: the" in said
    assert (tmp_path / "demo" / "departures.png").exists()


def test_a_second_demo_in_the_same_folder_begins_anew(tmp_path: Path) -> None:
    assert command.run(tmp_path, days=2, kills=0, seed=0)
    assert command.run(tmp_path, days=1, kills=0, seed=0)
    assert [file.name for file in (tmp_path / "landing").iterdir()] == ["2013-01-01.csv"]


def test_a_table_that_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    one_more = job.in_plain_polars
    monkeypatch.setattr(job, "in_plain_polars", lambda flights: one_more(flights).with_columns(pl.col("flights") + 1))
    assert not command.run(tmp_path / "demo", days=1, kills=0, seed=0)
    assert "not equal" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_on_its_way_the_table_is_the_same(tmp_path: Path, seed: int) -> None:
    assert command.run(tmp_path / "demo", days=120, kills=8, seed=seed)


def test_a_job_that_fails_by_itself_is_not_taken_for_a_killed_one(tmp_path: Path) -> None:
    def show(progress: mb.Progress) -> None:
        raise AssertionError(progress)

    with pytest.raises(MicrobatchError, match="ended with exit code 1"):
        crash.run_killed(tmp_path / "nowhere", 0, random.Random(0), show)
