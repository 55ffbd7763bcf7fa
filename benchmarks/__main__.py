"""All benchmarks, one after the other: ``python -m benchmarks``."""

from benchmarks import memory, throughput, trigger

for benchmark in (throughput, trigger, memory):
    print(f"\n{benchmark.__name__}", flush=True)
    benchmark.main()
