"""A batch against state of growing size: update mode over plain keys, 100 k touched keys a batch, then a restart.

``python -m benchmarks.state [--keys 1000000,10000000,50000000] [--touched 100000] [--batches 30]``; each size in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

import microbatch as mb
from benchmarks.plot import Curve, draw
from benchmarks.report import Table, versions
from microbatch.clock import stopwatch_us

SCHEMA = {"key": pl.Int64, "value": pl.Int64}
_LOAD_ROWS = 1_000_000
Keys = npt.NDArray[np.int64]


def query_over(folder: Path) -> mb.Query:
    """Return count and sum per key of the files that land in a folder; the rows that changed are counted, not kept."""
    rows = mb.scan_files(folder / "landing" / "*.parquet", schema=SCHEMA, max_files_per_trigger=1)
    totals = rows.group_by("key").agg(pl.len().alias("n"), pl.col("value").sum())
    return totals.sink_foreach_batch(lambda frame, _: frame.height, mode="update", checkpoint=folder / "checkpoint", retain_batches=2)


def land(folder: Path, name: str, keys: Keys) -> None:
    """Let a file of rows with these keys land, whole at once."""
    hidden = folder / f"{name}.tmp"
    pl.DataFrame({"key": keys, "value": np.ones(keys.size, dtype=np.int64)}).write_parquet(hidden)
    hidden.rename(folder / "landing" / f"{name}.parquet")


def fill(folder: Path, keys: int) -> None:
    """Bring the state to so many keys, in the order of a random permutation's pieces."""
    step = min(_LOAD_ROWS, keys)
    with query_over(folder).start() as running:
        for begin in range(0, keys, step):
            land(folder, f"0-{begin:012}", scattered(np.arange(begin, begin + step)))
            running.process_all_available()


def scattered(numbers: Keys) -> Keys:
    """Return keys that look random, one for each number."""
    return (numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)).view(np.int64)


def touch(folder: Path, keys: int, touched: int, batches: int) -> list[float]:
    """Return the milliseconds of each batch that touches random keys, one in ten of them new."""
    rng = np.random.default_rng(0)
    with query_over(folder).start() as running:
        for k in range(batches):
            land(folder, f"1-{k:012}", scattered(rng.integers(0, keys * 10 // 9, touched)))
            running.process_all_available()
        return [float(p["batchDuration"]) for p in running.recent_progress if p["numInputRows"]]


def restart(folder: Path) -> float:
    """Return the seconds until a query on the checkpoint is open and has run a batch of one row."""
    land(folder, "2", np.zeros(1, dtype=np.int64))
    started = stopwatch_us()
    query_over(folder).run()
    return (stopwatch_us() - started) / 1e6


@contextmanager
def peak_mb(into: dict[str, float]) -> Iterator[None]:
    """Note the largest resident memory without mapped files, MB, looked at twenty times a second."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            into["peak_mb"] = max(into.get("peak_mb", 0.0), anonymous_mb())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join()


def anonymous_mb() -> float:
    """Return this process's resident memory that no file backs, MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def measure(keys: int, touched: int, batches: int) -> dict[str, float]:
    """Return the figures of one size; run in a process of its own."""
    folder = Path(tempfile.mkdtemp(prefix="microbatch-bench-"))
    (folder / "landing").mkdir()
    figures: dict[str, float] = {}
    with peak_mb(figures):
        fill(folder, keys)
        taken = touch(folder, keys, touched, batches)
    figures |= {"median_ms": statistics.median(taken), "worst_ms": max(taken), "restart_s": restart(folder)}
    figures["state_mb"] = sum(f.stat().st_size for f in (folder / "checkpoint" / "state").rglob("*") if f.is_file()) / 2**20
    shutil.rmtree(folder)
    return figures


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", default="1000000,10000000,50000000")
    parser.add_argument("--touched", type=int, default=100_000)
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--one", type=int, default=0, help="measure one size here, for the process that does so")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.touched, args.batches)))
        return
    print(versions())
    table = Table("keys", "ms a batch", "growth (goal 4)", "worst ms", "memory MB (goal 2000)", "restart s (goal 3)", "state MB")
    first = 0.0
    sizes, medians = list(map(int, args.keys.split(","))), list[float]()
    for keys in sizes:
        command = [
            sys.executable,
            "-m",
            "benchmarks.state",
            "--one",
            str(keys),
            "--touched",
            str(args.touched),
            "--batches",
            str(args.batches),
        ]
        f = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        first = first or f["median_ms"]
        medians.append(f["median_ms"])
        cells = [f["median_ms"], f["median_ms"] / first, f["worst_ms"], f["peak_mb"], f["restart_s"], f["state_mb"]]
        table.add(f"{keys}", *(f"{cell:.{digits}f}" for cell, digits in zip(cells, (0, 2, 0, 0, 2, 0), strict=True)))
    if args.plot is not None:
        title = f"update mode, {args.touched:,} touched keys a batch"
        draw(args.plot, [Curve("median", sizes, medians)], title=title, x="keys of state", y="ms a batch", log_x=True)


if __name__ == "__main__":
    main()
