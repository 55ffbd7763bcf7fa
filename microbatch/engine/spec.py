"""What a query is, before it runs: the plan, the sink, and the settings that hold for its life."""

from __future__ import annotations

from dataclasses import dataclass

from microbatch.model import OutputMode
from microbatch.plan.nodes import Node
from microbatch.protocols import Clock, Sink

# Spark reads this setting back from the log of an unfinished batch and fails without it (scale-out experiments, Spark 4.2).
_PARTITIONS = {"spark.sql.shuffle.partitions": "1"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuerySpec:
    """A query as described by ``sink_*``; ``checkpoint`` None means a temporary folder that goes with the run."""

    node: Node
    sink: Sink
    late_sink: Sink | None
    mode: OutputMode
    checkpoint: str | None
    name: str | None
    watermark_policy: str
    no_data_batches: bool
    retain_batches: int
    evolve: bool
    clock: Clock

    def frozen_conf(self) -> dict[str, str]:
        """Return the settings that must not change over the life of a checkpoint, under Spark's names."""
        return _PARTITIONS | {"spark.sql.streaming.multipleWatermarkPolicy": self.watermark_policy}
