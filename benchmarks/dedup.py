"""Repeated ids: ``unique`` within the watermark against the hand-written loop that keeps all ids in one frame.

``python -m benchmarks.dedup [--ids 10000000] [--batches 20] [--grow 100000000]``
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

import microbatch as mb
from benchmarks.report import Table, versions
from microbatch.clock import stopwatch_us

SCHEMA = {"id": pl.Int64, "t": pl.Datetime("us")}
DELAY = "1h"
_BEGIN_US, _HOUR_US = 1_700_000_000_000_000, 3_600_000_000


def id_batches(ids: int, batches: int, *, seed: int = 0) -> Iterator[pl.DataFrame]:
    """Yield batches of ids, one in ten a repeat of an earlier one; all their times lie within the watermark's delay."""
    rng = np.random.default_rng(seed)
    per_batch = ids // batches
    known = rng.permutation(np.arange(ids, dtype=np.int64) * 2_654_435_761)
    for k in range(batches):
        fresh = known[k * per_batch : (k + 1) * per_batch].copy()
        repeats = rng.random(per_batch) < 0.1
        if k:
            fresh[repeats] = known[rng.integers(0, k * per_batch, int(repeats.sum()))]
        micros = _BEGIN_US + (k * per_batch + np.arange(per_batch)) * (_HOUR_US // 2) // ids
        yield pl.DataFrame({"id": fresh, "t": pl.Series(micros).cast(pl.Datetime("us"))})


def loop(batches: list[pl.DataFrame], out: Path) -> list[float]:
    """Keep all ids in one frame: anti join, then append; write what is new. Return seconds per batch."""
    seen = pl.DataFrame(schema={"id": pl.Int64})
    taken = []
    for k, batch in enumerate(batches):
        started = stopwatch_us()
        new = batch.unique("id", keep="first", maintain_order=True).join(seen, on="id", how="anti")
        seen = pl.concat([seen, new.select("id")], rechunk=True)
        new.write_parquet(out / f"{k:04}.parquet")
        taken.append((stopwatch_us() - started) / 1e6)
    return taken


def engine(batches: list[pl.DataFrame], out: Path) -> list[float]:
    """Return seconds per batch of the stream, checkpoint on, rows into Parquet files."""
    stream = mb.MemoryStream(SCHEMA)
    new = stream.frame().with_watermark("t", DELAY).unique("id", within_watermark=True)
    query = new.sink_files(out / "files", checkpoint=out / "checkpoint").start()
    taken = []
    for batch in batches:
        started = stopwatch_us()
        stream.add(batch)
        query.process_all_available()
        taken.append((stopwatch_us() - started) / 1e6)
    query.stop()
    return taken


def timed(side: str, batches: list[pl.DataFrame]) -> list[float]:
    """Return seconds per batch of one side in an empty folder."""
    out = Path(tempfile.mkdtemp(prefix="microbatch-bench-"))
    taken = {"loop": loop, "engine": engine}[side](batches, out)
    shutil.rmtree(out)
    return taken


def growth(ids: int, per_batch: int) -> tuple[float, float]:
    """Return the engine's median seconds per batch at a tenth of the ids, and at all of them."""
    batches = list(id_batches(ids, ids // per_batch))
    taken = timed("engine", batches)
    n = len(taken)
    window = max(n // 20, 3)
    return statistics.median(taken[n // 10 - window : n // 10 + window]), statistics.median(taken[-2 * window :])


def main() -> None:
    """Print both sides and their ratio, then how a batch's cost grows with the ids."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=10_000_000)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--grow", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(versions())
    batches = list(id_batches(args.ids, args.batches))
    timed("engine", batches[:3])
    pairs = [(sum(timed("loop", batches)), sum(timed("engine", batches))) for _ in range(args.rounds)]
    loop_s, engine_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    table = Table("job", "loop s", "engine s", "ratio", "goal")
    table.add(f"{args.ids} ids in {args.batches} batches", f"{loop_s:.2f}", f"{engine_s:.2f}", f"{loop_s / engine_s:.2f}", "0.5")
    if args.grow:
        del batches
        early, late = growth(args.grow, args.ids // args.batches)
        grown = Table("ids before the batch", "seconds a batch", "growth", "goal")
        grown.add(f"{args.grow // 10}", f"{early:.3f}", "1", "")
        grown.add(f"{args.grow}", f"{late:.3f}", f"{late / early:.2f}", "2.5")


if __name__ == "__main__":
    main()
