"""A case of the other form: in memory, of raw texts, or, where the process must die or the checkpoint go, on files and a Delta table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conformance.others import durable, memory, parsed

_DURABLE_STEPS = {"crash_at", "delete_checkpoint", "option", "replay_commit_of_batch", "second_instance"}


def run(body: dict[str, Any], folder: Path) -> str:
    """Run the case's steps and return remarks, empty if there are none."""
    if body["pipeline"] and body["pipeline"][0]["op"] == "parse":
        return parsed.run(body, folder)
    lasting = any(step.keys() & _DURABLE_STEPS for step in body["steps"])
    return durable.run(body, folder) if lasting else memory.run(body, folder)
