"""The job in a process of its own that is killed with SIGKILL again and again, and started again each time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import microbatch as mb
from microbatch.demo import job
from microbatch.errors import MicrobatchError

_BATCHES_LIVED = 5  # a life ends within this many batches
_LAST_MOMENTS_SECONDS = 0.3  # and within this time after one of them: some batches are caught in the middle


class _PrintProgress(mb.StreamingQueryListener):
    def on_query_progress(self, progress: mb.Progress) -> None:
        """Hand the figures to the parent, one line a batch."""
        sys.stdout.write(progress.json + "\n")
        sys.stdout.flush()


def run_killed(output: Path, kills: int, rng: random.Random, show: Callable[[mb.Progress], None]) -> int:
    """Run the job to its end through up to ``kills`` deaths, and return how many it died.

    Parameters
    ----------
    output
        Folder of the demo; the job goes on from what lies in its checkpoint.
    kills
        Deaths wanted, 0 or more; fewer if the job is done before.
    rng
        Chooses when each life ends.
    show
        Called with the figures of each batch a child told of before its death.

    Raises
    ------
    MicrobatchError
        A child ended by itself with an error.
    """
    for deaths in range(kills):
        if not _live(output, rng, show):
            return deaths
    _live(output, None, show)
    return kills


def _live(output: Path, rng: random.Random | None, show: Callable[[mb.Progress], None]) -> bool:
    """Run a child; True if it was killed, False if it was done."""
    command = [sys.executable, "-m", "microbatch.demo.crash", str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        left = rng.randrange(_BATCHES_LIVED + 1) if rng else None
        while left != 0 and (line := _read_line(child)):
            show(mb.Progress(json.loads(line)))
            left = None if left is None else left - 1
        if rng and _killed(child, rng.uniform(0, _LAST_MOMENTS_SECONDS)):
            return True
    if child.returncode != 0:
        msg = f"the job in {output} ended with exit code {child.returncode}; its own message stands above"
        raise MicrobatchError(msg)
    return False


def _read_line(child: subprocess.Popen[str]) -> str:
    return child.stdout.readline() if child.stdout else ""


def _killed(child: subprocess.Popen[str], after_seconds: float) -> bool:
    """Kill the child after that time; False if it ended before."""
    try:
        child.wait(after_seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        return True
    return False


if __name__ == "__main__":
    job.query(Path(sys.argv[1])).run(listeners=[_PrintProgress()])
