"""Command line: ``python -m tests.conformance PATH --json OUT``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.conformance.cases import load, shared_folder
from tests.conformance.execute import execute_all
from tests.conformance.report import Outcome, as_text, write_json


def main(arguments: list[str] | None = None) -> int:
    """Run the cases of a folder, print what became of them, and return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description="Run conformance cases against microbatch.")
    parser.add_argument("path", nargs="?", type=Path, default=None, help="folder with cases.jsonl and/or refused.jsonl, or one such file")
    parser.add_argument("--json", type=Path, default=None, metavar="OUT", help="write {summary, cases} to this file")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only cases whose id or area contains this")
    given = parser.parse_args(arguments)
    cases = [c for c in load(given.path or shared_folder()) if given.only in c.id or given.only == c.area]
    results = execute_all(cases)
    print(as_text(results))
    if given.json is not None:
        write_json(results, given.json)
    return int(any(r.outcome is Outcome.FAILED for r in results))


if __name__ == "__main__":
    sys.exit(main())
