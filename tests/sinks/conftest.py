"""Places the sinks of these tests write to."""

from __future__ import annotations

from pathlib import Path

import pytest

from microbatch.sinks.files import FileSink


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return where a Delta table will be."""
    return tmp_path / "lake" / "orders"


@pytest.fixture(params=[(), ("kind",)], ids=["one file", "partitioned"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> FileSink:
    """A file sink in ``tmp_path / "out"``: one file a batch, or a folder of partitions."""
    return FileSink(tmp_path / "out", partition_by=request.param)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
