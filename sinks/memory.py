"""Rows kept in memory: for tests and notebooks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

import polars as pl

from microbatch.errors import SinkError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import SinkBatch, SinkContext

_RESULTS_KEPT = 100


class MemorySink:
    """Rows live with this object, exactly once: a query restarted in this process finds its rows and their batch ids.

    Append and update mode add the rows of each batch (an updated row comes again, it replaces nothing); complete mode replaces all
    rows. A batch whose id is not above the last one is ignored (Spark: MemorySink.addBatch). A query of another id, which is what every
    run without a checkpoint is, begins an empty result. One object serves one running query. Safe to read from any thread.

    Examples
    --------
    >>> sink = MemorySink()
    >>> sink.rows().height, sink.last_batch_id
    (0, None)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._query_id: str | None = None
        self._schema = pl.Schema()
        self._mode = OutputMode.APPEND
        self._batches: list[tuple[int, pl.DataFrame]] = []
        self._last_batch_id: int | None = None

    @property
    def description(self) -> str:
        """The line ``MemorySink``."""
        return "MemorySink"

    @property
    def delivery(self) -> Delivery:
        """Exactly once, as long as this object lives."""
        return Delivery.EXACTLY_ONCE

    @property
    def durable(self) -> bool:
        """False: the rows end with the process."""
        return False

    def check(self, mode: OutputMode, schema: pl.Schema, keys: tuple[str, ...]) -> None:
        """Refuse nothing."""

    def open(self, context: SinkContext) -> _MemoryWriter:
        """Return a writer for one run; forgets the rows of a query of another id."""
        with self._lock:
            if self._query_id != context.query_id:
                self._batches, self._last_batch_id = [], None
            self._query_id, self._schema, self._mode = context.query_id, context.schema, context.mode
        return _MemoryWriter(partial(self._take, context.query_id))

    def rows(self) -> pl.DataFrame:
        """Return the result: the rows of all batches since ``clear`` in their order; in complete mode those of the newest batch.

        No rows before the first batch, and no columns before the first run.
        """
        with self._lock:
            frames = [rows for _, rows in self._batches]
            newest_only = self._mode == OutputMode.COMPLETE
            empty = self._schema.to_frame()
        return pl.concat(frames[-1:] if newest_only else frames) if frames else empty

    def batches(self) -> list[tuple[int, pl.DataFrame]]:
        """Return id and rows of each batch since ``clear``, in order, batches without rows included.

        In complete mode each holds a whole result, and only the newest 100 are kept.
        """
        with self._lock:
            return list(self._batches)

    @property
    def last_batch_id(self) -> int | None:
        """The id of the newest batch taken, None before the first; ``clear`` leaves it unless told."""
        with self._lock:
            return self._last_batch_id

    def clear(self, *, forget_ids: bool = False) -> None:
        """Forget all rows; with ``forget_ids`` also the last batch id, so that a batch run again is taken again."""
        with self._lock:
            self._batches = []
            if forget_ids:
                self._last_batch_id = None

    def _take(self, query_id: str, batch: SinkBatch) -> None:
        with self._lock:
            if query_id != self._query_id:
                msg = (
                    f"this MemorySink was opened by query {self._query_id} while query {query_id} still writes to it "
                    f"(batch {batch.batch_id}); give each running query a MemorySink of its own"
                )
                raise SinkError(msg)
            if self._last_batch_id is not None and batch.batch_id <= self._last_batch_id:
                return
            self._batches.append((batch.batch_id, batch.rows))
            self._last_batch_id = batch.batch_id
            if self._mode == OutputMode.COMPLETE:
                del self._batches[:-_RESULTS_KEPT]


class _MemoryWriter:
    """Hands the batches of one run to the sink it came from."""

    def __init__(self, take: Callable[[SinkBatch], None]) -> None:
        self._take = take

    def write(self, batch: SinkBatch) -> None:
        """Keep the batch unless its id is known."""
        self._take(batch)

    def metrics(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Keep the rows: they belong to the sink."""
