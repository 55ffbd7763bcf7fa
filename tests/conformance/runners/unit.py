"""Single parts of the engine, tried by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from microbatch.sources.seen_files import SeenFiles
from tests.conformance.compare import check_equal
from tests.conformance.report import NotSupportedError


def run(body: dict[str, Any], folder: Path) -> str:
    """Do the steps."""
    for step in body["steps"]:
        name = next(iter(step))
        if name != "seen_files":
            msg = f"step {name}"
            raise NotSupportedError(msg)
        _seen_files(step[name])
    return ""


def _seen_files(value: dict[str, Any]) -> None:
    """Which files count as new; times of the case are milliseconds."""
    seen = SeenFiles(max_age_us=value["max_age_ms"] * 1_000)
    for step in value["steps"]:
        if "add" in step:
            seen.add(step["add"][0], step["add"][1] * 1_000)
        elif "purge" in step:
            seen.purge()
        elif "is_new" in step:
            check_equal(f"is_new {step['is_new']}", step["answer"], seen.is_new(step["is_new"][0], step["is_new"][1] * 1_000))
        elif "size" in step:
            check_equal("size", step["size"], len(seen))
        else:
            msg = f"seen_files {next(iter(step))}"
            raise NotSupportedError(msg)
