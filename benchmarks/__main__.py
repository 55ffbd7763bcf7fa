"""All benchmarks, one after the other: ``python -m benchmarks``."""

from benchmarks import dedup, join, memory, sessions, soak, state, throughput, trigger

for benchmark in (throughput, trigger, memory, state, dedup, join, sessions, soak):
    print(f"\n{benchmark.__name__}", flush=True)
    benchmark.main()
