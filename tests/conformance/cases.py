"""The files of a folder of cases, read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class Form(StrEnum):
    """Which schema a case is written in."""

    SPARK = "spark"
    SHAPE = "shape"
    OTHERS = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of a file of cases."""

    form: Form
    body: Json

    @property
    def id(self) -> str:
        """The name of the case."""
        return str(self.body["id"])

    @property
    def area(self) -> str:
        """What the case is about; shapes have no area of their own."""
        return str(self.body.get("area", "refused"))


def load(path: Path) -> list[Case]:
    """Return the cases of a file or of all files in a folder (and the folders in it) with the two known names."""
    files = [path] if path.is_file() else [f for name in ("cases.jsonl", "refused.jsonl") for f in sorted(path.rglob(name))]
    return [_case(json.loads(line)) for file in files for line in file.read_text().splitlines() if line.strip()]


def _case(body: Json) -> Case:
    if "verdict" in body:
        return Case(form=Form.SHAPE, body=body)
    return Case(form=Form.OTHERS if "time_unit" in body or "from" in body else Form.SPARK, body=body)


def shared_folder() -> Path:
    """Return where the shared cases lie: $MICROBATCH_CONFORMANCE, else beside the repository."""
    default = Path(__file__).resolve().parents[2] / ".." / "shared" / "conformance"
    return Path(os.environ.get("MICROBATCH_CONFORMANCE") or default).resolve()
