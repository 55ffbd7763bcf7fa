"""What one small trigger costs: 1,000 rows against 1 M keys of state, and a Delta commit at a high version.

``python -m benchmarks.trigger [--triggers 200] [--versions 2000]``
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from deltalake import DeltaTable, write_deltalake

import microbatch as mb
from benchmarks.report import Table, versions
from microbatch.clock import stopwatch_us

KEYS = 1_000_000


def small_batches(n: int) -> list[pl.DataFrame]:
    """Return batches of 1,000 rows, nine of ten keys known."""
    rng = np.random.default_rng(0)
    return [pl.DataFrame({"key": rng.integers(0, KEYS * 10 // 9, 1_000), "value": rng.integers(0, 100, 1_000)}) for _ in range(n)]


def milliseconds(step: Callable[[pl.DataFrame], object], batches: list[pl.DataFrame]) -> list[float]:
    """Return how long each batch took."""
    taken = []
    for batch in batches:
        started = stopwatch_us()
        step(batch)
        taken.append((stopwatch_us() - started) / 1_000)
    return taken


def bare(state: dict[str, pl.DataFrame], batch: pl.DataFrame) -> pl.DataFrame:
    """Do the work of the batch itself in Polars: filter and group; what the state costs is the engine's."""
    aggs = [pl.len().alias("n"), pl.col("value").sum()]
    state["last"] = batch.lazy().filter(pl.col("value") >= 0).group_by("key").agg(aggs).collect()
    return state["last"]


def stateful(triggers: int) -> tuple[list[float], list[float]]:
    """Return milliseconds of bare Polars and of engine triggers, checkpoint on, memory sink."""
    folder = Path(tempfile.mkdtemp(prefix="microbatch-bench-"))
    stream, out = mb.MemoryStream({"key": pl.Int64, "value": pl.Int64}), mb.MemorySink()
    rows = stream.frame().filter(pl.col("value") >= 0).group_by("key").agg(pl.len().alias("n"), pl.col("value").sum())
    query = rows.sink_memory(out, mode="update", checkpoint=folder / "checkpoint").start()
    stream.add(pl.DataFrame({"key": np.arange(KEYS), "value": np.ones(KEYS, dtype=np.int64)}))
    query.process_all_available()
    batches = small_batches(triggers)

    def one(batch: pl.DataFrame) -> None:
        stream.add(batch)
        query.process_all_available()

    engine = milliseconds(one, batches)
    inner = [float(p["batchDuration"]) for p in query.recent_progress]
    query.stop()
    shutil.rmtree(folder)
    state: dict[str, pl.DataFrame] = {}
    print(f"engine's own batch duration: median {statistics.median(inner[-90:])} ms")
    return milliseconds(lambda b: bare(state, b), batches), engine


def delta(versions_before: int, triggers: int) -> tuple[list[float], list[float]]:
    """Return milliseconds of ``write_deltalake`` on a held table and of engine triggers into Delta, at a high version."""
    folder = Path(tempfile.mkdtemp(prefix="microbatch-bench-"))
    stream = mb.MemoryStream({"key": pl.Int64, "value": pl.Int64})
    query = stream.frame().sink_delta(folder / "engine", checkpoint=folder / "checkpoint").start()
    batches = small_batches(triggers + versions_before)

    def one(batch: pl.DataFrame) -> None:
        stream.add(batch)
        query.process_all_available()

    engine = milliseconds(one, batches)[-triggers:]
    query.stop()
    write_deltalake(str(folder / "bare"), batches[0])
    table = DeltaTable(str(folder / "bare"))
    held = milliseconds(lambda b: write_deltalake(table, b, mode="append"), batches)[-triggers:]
    shutil.rmtree(folder)
    return held, engine


def main() -> None:
    """Print medians and the overhead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triggers", type=int, default=200)
    parser.add_argument("--versions", type=int, default=2_000)
    args = parser.parse_args()
    table = Table("trigger of 1,000 rows", "bare ms", "engine ms", "overhead ms", "goal")
    for name, goal, (without, engine) in (
        ("1 M keys of state, memory sink", "8", stateful(args.triggers)),
        ("Delta sink, first versions", "25", delta(0, args.triggers)),
        (f"Delta sink, version {args.versions}", "25", delta(args.versions, args.triggers)),
    ):
        a, b = statistics.median(without), statistics.median(engine)
        table.add(name, f"{a:.1f}", f"{b:.1f}", f"{b - a:.1f}", goal)
    print(versions(), table, sep="\n")


if __name__ == "__main__":
    main()
