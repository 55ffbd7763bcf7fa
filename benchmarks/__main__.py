"""All benchmarks, one after the other: ``python -m benchmarks``."""

from benchmarks import memory, soak, throughput, trigger

for benchmark in (throughput, trigger, memory, soak):
    print(f"\n{benchmark.__name__}", flush=True)
    benchmark.main()
