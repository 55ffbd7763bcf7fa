"""Runs jobs in forked children that may die: one JSON command a line on stdin, the child's exit status a line on stdout.

Everything is imported once, before the first fork and before Polars has started a thread, so a child begins in milliseconds.
Command: {"root": folder, "sink": name, "fault": "point:n" | null, "die_after_ms": number | null}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from microbatch import faults
from tests.recovery import jobs


def child(command: dict[str, str]) -> None:
    """Run the job, perhaps to its death."""
    faults.arm(command["fault"])
    if command["die_after_ms"] is not None:
        timer = threading.Timer(float(command["die_after_ms"]) / 1_000, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    jobs.query(Path(command["root"]), command["sink"]).run()


def main() -> None:
    """Serve until stdin is closed."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                child(json.loads(line))
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
