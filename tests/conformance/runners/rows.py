"""The default runner: a whole query, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conformance.steps import Script
from tests.conformance.subject import Subject


def run(body: dict[str, Any], folder: Path) -> str:
    """Run the case's steps and return remarks, empty if there are none."""
    subject = Subject(body, folder)
    script = Script(subject, body)
    try:
        script.do(body["steps"])
    finally:
        subject.close()
    return "; ".join(script.remarks)
