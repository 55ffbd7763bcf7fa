"""Many small batches: memory, files and latency must not grow with their number.

``python -m benchmarks.soak [--batches 20000] [--plot soak.png]``

Two queries, one after the other: repeats dropped within the watermark, counted per key and window, and these per longer window (three
stateful operators, append); and counts per plain key (update).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

import microbatch as mb
from benchmarks.plot import Curve, draw
from benchmarks.report import Table, versions

ROWS, KEYS = 1_000, 100_000
EVERY = 500  # batches between two looks at memory and files


@dataclass
class Diary:
    """What was seen of a run: latencies of all batches, and now and then resident memory and the number of files."""

    folder: Path
    batches: int
    done: threading.Event = field(default_factory=threading.Event)
    latencies_ms: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def note(self, milliseconds: float) -> None:
        """Take in one batch."""
        self.latencies_ms.append(milliseconds)
        if len(self.latencies_ms) % EVERY == 0:
            self.resident_mb.append(resident_mb())
            self.files.append(sum(len(names) for _, _, names in os.walk(self.folder)))
        if len(self.latencies_ms) >= self.batches:
            self.done.set()


class Watch(mb.StreamingQueryListener):
    """Writes the diary."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    def on_query_progress(self, progress: mb.Progress) -> None:
        """Note the batch."""
        self._diary.note(float(progress["batchDuration"]))


def resident_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def chained(rows: mb.StreamFrame) -> mb.StreamFrame:
    """Return counts of counts: three stateful operators."""
    fresh = rows.with_watermark("timestamp", "10s").unique("id", within_watermark=True)
    per_window = fresh.group_by(mb.window("timestamp", "10s"), "key").agg(pl.len().alias("n"))
    return per_window.group_by(mb.window(mb.window_time(), "1m")).agg(pl.len().alias("groups"), pl.col("n").sum())


def by_key(rows: mb.StreamFrame) -> mb.StreamFrame:
    """Return counts per plain key."""
    return rows.group_by("key").agg(pl.len().alias("n"), pl.col("value").sum())


def soak(verb: Callable[[mb.StreamFrame], mb.StreamFrame], mode: str, batches: int) -> Diary:
    """Return the diary of so many batches of a query."""
    folder = Path(tempfile.mkdtemp(prefix="microbatch-bench-"))
    rows = mb.scan_rate(rows_per_batch=ROWS, advance_ms_per_batch=1_000).with_columns(
        key=(pl.col("value") * 2_654_435_761) % KEYS, id=pl.col("value") // 2 * 2 + pl.col("value") % 10 // 9
    )
    diary = Diary(folder=folder, batches=batches)
    query = verb(rows).sink_foreach_batch(lambda _rows, _id: None, checkpoint=folder / "checkpoint", mode=mode)
    handle = query.start(listeners=[Watch(diary)])
    diary.done.wait()
    handle.stop()
    shutil.rmtree(folder)
    return diary


def slope(values: list[float]) -> float:
    """Return the growth per 1,000 batches over the second half, by least squares."""
    half = values[len(values) // 2 :]
    xs = [k * EVERY / 1_000 for k in range(len(half))]
    return statistics.linear_regression(xs, half).slope


def main() -> None:
    """Print one line per query and draw memory and latency over the batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--plot", default="benchmarks/soak.png")
    args = parser.parse_args()
    table = Table(
        "query", "batches", "p50 ms", "p99 ms", "p99 / p50", "max ms", "MB at end", "MB per 1,000 batches", "files at end", "most files"
    )
    curves = []
    for name, verb, mode in (("three operators, append", chained, "append"), ("plain keys, update", by_key, "update")):
        diary = soak(verb, mode, args.batches)
        ordered = sorted(diary.latencies_ms)
        p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        table.add(
            name, f"{args.batches:,}", f"{p50:.1f}", f"{p99:.1f}", f"{p99 / p50:.1f}", f"{ordered[-1]:.0f}", f"{diary.resident_mb[-1]:.0f}",
            f"{slope(diary.resident_mb):+.2f}", f"{diary.files[-1]}", f"{max(diary.files)}",
        )  # fmt: skip
        curves.append(Curve(name, [float(EVERY * (k + 1)) for k in range(len(diary.resident_mb))], diary.resident_mb))
    draw(Path(args.plot), curves, title="Resident memory over a soak of small batches", x="batches", y="MB")
    print(versions(), table, sep="\n")


if __name__ == "__main__":
    main()
