"""Runs a durable query in a process of its own, to be killed: ``python -m tests.conformance.others.child DESCRIPTION``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.conformance.others.durable import define

if __name__ == "__main__":
    define(json.loads(Path(sys.argv[1]).read_text())).run()
