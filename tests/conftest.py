"""What several rooms' tests share: an object store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket ``checkpoints`` on a real S3 server, found through the environment by this process and its children."""
    command = [sys.executable, "-m", "tests.s3_server"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), f"the S3 server did not start: {url!r}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "tester")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("checkpoints")
        yield "s3://checkpoints"
    server.communicate()
