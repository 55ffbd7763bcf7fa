"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def conformance_folder() -> Path:
    """The shared conformance cases, ``../shared/conformance`` or ``$MICROBATCH_CONFORMANCE``; skips where they are not."""
    folder = Path(os.environ.get("MICROBATCH_CONFORMANCE") or ROOT.parent / "shared" / "conformance")
    if not folder.is_dir():
        pytest.skip(f"no conformance cases at {folder}; set MICROBATCH_CONFORMANCE to their folder")
    return folder
