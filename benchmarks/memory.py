"""Peak memory: rows through many batches against the loop, over one batch and over all, each in a process of its own.

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
        files = sorted(folder.glob("*.parquet"))[: 1 if side == "one" else None]
        chosen = out / "chosen"
        chosen.mkdir()
        for file in files:
            (chosen / file.name).symlink_to(file)
        (ads_loop if kind == "ads" else users_append_loop)(chosen, 1, "streaming")(out)
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
    table = Table(
        "job", "loop, 1 batch, MB", "loop, 100 batches, MB", "engine, 100 batches, MB", "engine / loop's 1", "engine / loop's 100"
    )
    for kind in ("ads", "users"):
        one, loop, engine = (peak_mb(f"{kind}-{side}", args.rows) for side in ("one", "loop", "engine"))
        table.add(kind, f"{one:.0f}", f"{loop:.0f}", f"{engine:.0f}", f"{engine / one:.2f}", f"{engine / loop:.2f}")
    print(versions(), table, sep="\n")


if __name__ == "__main__":
    main()
