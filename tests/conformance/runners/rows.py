"""The default runner: a whole query, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conformance.sinks import Recorder
from tests.conformance.steps import Do, Script
from tests.conformance.subject import Subject


def run(body: dict[str, Any], folder: Path, recorder: Recorder | None = None, more_steps: Mapping[str, Do] | None = None) -> str:
    """Run the case's steps and return remarks, empty if there are none; ``recorder`` None: the sink that the area is about."""
    subject = Subject(body, folder)
    subject.recorder = recorder or subject.recorder
    script = Script(subject, body, more_steps)
    try:
        script.do(body["steps"])
    finally:
        subject.close()
    return "; ".join(script.remarks)
