"""The code of README.md runs from top to bottom, and prints what stands below it."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_and_output() -> list[tuple[str, str]]:
    """Return each python block with the text block that follows it, empty if none does."""
    found: list[tuple[str, str]] = []
    for kind, body in _BLOCK.findall(README.read_text(encoding="utf-8")):
        if kind == "python":
            found.append((body, ""))
        else:
            found[-1] = (found[-1][0], body)
    return found


def test_the_tour_runs_and_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    tour = code_and_output()
    assert len(tour) > 4
    with pl.Config(tbl_width_chars=120):
        for code, wanted in tour:
            exec(compile(code, "README.md", "exec"), names)
            assert capsys.readouterr().out == wanted


def test_every_command_named_is_a_target_of_the_makefile() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for file in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`?\bmake ([a-z]+)`|^make ([a-z]+) ", (README.parent / file).read_text(encoding="utf-8"), re.MULTILINE))
        for verb in {a or b for a, b in named}:
            assert re.search(rf"^{verb}:", makefile, re.MULTILINE), f"{file} names `make {verb}`"
