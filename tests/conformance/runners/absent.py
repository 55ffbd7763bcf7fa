"""Runners whose engine part is not built: the seam where a harness goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conformance.report import NotSupportedError

REASONS = {
    "kafka": "Kafka source",
    "delta-source": "Delta source",
    "jvm-only": "behaviour of Spark's JVM API only",
    "foreach": "a row-by-row writer (open, process, close)",
}


def run(body: dict[str, Any], folder: Path) -> str:
    """Say what is missing."""
    runner = str(body.get("runner"))
    raise NotSupportedError(REASONS.get(runner, f"runner {runner}"))
