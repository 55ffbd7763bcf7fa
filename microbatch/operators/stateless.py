"""A node that keeps nothing between batches is one more step of the same lazy query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from microbatch.operators.base import Batch
from microbatch.plan.batch_time import at_time
from microbatch.plan.nodes import Node
from microbatch.plan.run import run_node
from microbatch.plan.schema import schema_of
from microbatch.protocols import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Stateless:
    """Appends the node's verb to the lazy query, so that Polars fuses it with its neighbours."""

    node: Node

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:  # noqa: ARG002
        """Return the node applied to its inputs."""
        return run_node(self.node, inputs, schema_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A node whose expressions ask for the time of the batch."""

    node: Node

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the node with the batch's logged time."""
        return run_node(at_time(self.node, batch.time_us), inputs, schema_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSource:
    """The batch's rows of one source, read once for all ``places`` of the plan they stand in."""

    source: Source
    places: int

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:  # noqa: ARG002
        """Return the rows between the batch's two offsets."""
        return batch.rows_of(self.source, self.places)
