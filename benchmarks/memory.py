"""Peak memory: rows through many batches against one batch of the loop, each in a process of its own.

``python -m benchmarks.memory [--rows 20000000]``
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.report import Table, versions
from benchmarks.throughput import ads_engine, ads_loop, users_append_engine, users_append_loop

FILES = 100


def peak_mb(job: str, rows: int) -> float:
    """Return the peak resident memory of a process that runs one job, MB."""
    command = [sys.executable, "-m", "benchmarks.memory", "--rows", str(rows), "--job", job]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def run(job: str, rows: int) -> None:
    """Run one job here and print the peak."""
    kind, side = job.split("-")
    folder = data.ad_events(rows, FILES) if kind == "ads" else data.user_events(rows, FILES)
    out = Path(tempfile.mkdtemp(prefix="microbatch-bench-"))
    if side == "engine":
        (ads_engine if kind == "ads" else users_append_engine)(folder, 1)(out)
    else:
        one = out / "one"
        one.mkdir()
        first = min(folder.glob("*.parquet"))
        (one / first.name).symlink_to(first)
        (ads_loop if kind == "ads" else users_append_loop)(one, 1, "streaming")(out)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print the peaks and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--job", default="")
    args = parser.parse_args()
    if args.job:
        run(args.job, args.rows)
        return
    data.ad_events(args.rows, FILES), data.user_events(args.rows, FILES)
    table = Table("job", "one batch of the loop, MB", "engine, 100 batches, MB", "ratio", "goal")
    for kind in ("ads", "users"):
        loop, engine = peak_mb(f"{kind}-loop", args.rows), peak_mb(f"{kind}-engine", args.rows)
        table.add(kind, f"{loop:.0f}", f"{engine:.0f}", f"{engine / loop:.2f}", "1.5")
    print(versions(), table, sep="\n")


if __name__ == "__main__":
    main()
