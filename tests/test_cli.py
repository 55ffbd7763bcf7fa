"""The command line: what it says without its libraries, and its exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from microbatch import cli
from microbatch.demo import command
from microbatch.errors import PlanError


class Calls:
    """Stands in for the demo: keeps what it was asked, answers as told."""

    def __init__(self, *, equal: bool) -> None:
        self.equal = equal
        self.asked: list[tuple[Path, dict[str, Any]]] = []

    def __call__(self, output: Path, **options: Any) -> bool:
        self.asked.append((output, options))
        return self.equal


@pytest.mark.parametrize(("equal", "code"), [(True, 0), (False, 1)])
def test_an_unequal_result_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, equal: bool, code: int) -> None:
    monkeypatch.setattr(command, "run", Calls(equal=equal))
    assert CliRunner().invoke(cli.app(), ["demo"]).exit_code == code


def test_the_demo_runs_a_year_without_kills_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(equal=True)
    monkeypatch.setattr(command, "run", calls)
    CliRunner().invoke(cli.app(), ["demo"])
    assert calls.asked == [(Path("demo-output"), {"days": 365, "kills": 0, "seed": 13})]


def test_crash_kills_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(equal=True)
    monkeypatch.setattr(command, "run", calls)
    CliRunner().invoke(cli.app(), ["demo", "--crash", "--days", "9", "--seed", "2", "--output", "elsewhere"])
    assert calls.asked == [(Path("elsewhere"), {"days": 9, "kills": 8, "seed": 2})]


@pytest.mark.parametrize("arguments", [["demo", "--days", "0"], ["demo", "--days", "366"], ["demo", "--no-such"], ["dmo"]])
def test_a_wrong_option_is_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli.app(), arguments).exit_code == 2


def test_an_error_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(output: Path, **options: Any) -> bool:
        msg = f"{output} is not empty"
        raise PlanError(msg)

    monkeypatch.setattr(command, "run", refuse)
    monkeypatch.setattr(sys, "argv", ["microbatch", "demo"])
    with pytest.raises(SystemExit, match=r"^PlanError: demo-output is not empty$"):
        cli.main()


def test_without_typer_the_way_to_get_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match=r"typer, which is not installed: pip install 'microbatch\[demo\]'"):
        cli.main()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "precious.csv").write_text("x")
    with pytest.raises(PlanError, match="and was not made by `microbatch demo`; name another folder with --output"):
        command.begin_anew(tmp_path)
    assert (tmp_path / "landing" / "precious.csv").read_text() == "x"


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlanError, match="file is not empty or no folder"):
        command.begin_anew(tmp_path / "file")


def test_what_an_earlier_demo_left_is_removed_and_no_more(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    command.begin_anew(output)
    (output / "landing").mkdir()
    (output / "departures.png").touch()
    (output / "notes.txt").touch()
    command.begin_anew(output)
    assert sorted(file.name for file in output.iterdir()) == [".microbatch-demo", "notes.txt"]
