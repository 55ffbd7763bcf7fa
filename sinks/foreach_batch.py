"""Batches handed to a function of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import polars as pl

from microbatch.errors import PlanError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import SinkBatch, SinkContext

BatchFunction = Callable[[pl.DataFrame, int], object]
_SHAPE = "write def function(rows: pl.DataFrame, batch_id: int) -> None"


class ForeachBatchSink:
    """Calls ``function(rows, batch_id)`` once for each batch, batches without rows included; at least once.

    After a crash the last batch comes again with the same id and the same rows (float sums: up to their last bits), and after an
    exception too, once the query is started again. To count each row once, store the id with what is written and skip ids already
    there. The function runs on the query's thread, and the next batch waits for it; its return value is ignored. Append mode hands
    over final rows, update mode the rows that changed, complete mode the whole result (Spark: ForeachBatchSink).

    A checkpoint is optional, as in Spark: without one every start begins anew, with batch 0.

    Parameters
    ----------
    function
        Anything that can be called with a frame and an integer, by position. Its exceptions stop the query and are the cause of the
        QueryFailedError.
    description
        Its name in progress and ``explain``; None: the function's own.

    Raises
    ------
    PlanError
        ``function`` cannot be called that way, or is asynchronous.
    """

    def __init__(self, function: BatchFunction, *, description: str | None = None) -> None:
        _check_callable(function)
        self._function = function
        self._description = description

    @property
    def description(self) -> str:
        """One line that names the function."""
        return f"ForeachBatchSink[{self._description or getattr(self._function, '__qualname__', type(self._function).__qualname__)}]"

    @property
    def delivery(self) -> Delivery:
        """At least once: only the function knows what it has done."""
        return Delivery.AT_LEAST_ONCE

    @property
    def durable(self) -> bool:
        """False: a checkpoint is optional."""
        return False

    def check(self, mode: OutputMode, schema: pl.Schema, keys: tuple[str, ...]) -> None:
        """Refuse nothing."""

    def open(self, context: SinkContext) -> _ForeachBatchWriter:  # noqa: ARG002 - nothing of the run is needed
        """Return a writer; does not call the function."""
        return _ForeachBatchWriter(self._function)


class _ForeachBatchWriter:
    def __init__(self, function: BatchFunction) -> None:
        self._function = function

    def write(self, batch: SinkBatch) -> None:
        """Call the function; what it raises passes through as it is."""
        self._function(batch.rows, batch.batch_id)

    def metrics(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """There is nothing to give back."""


def _check_callable(function: object) -> None:
    """Raise PlanError unless ``function(rows, batch_id)`` can be called and does its work in the call."""
    if not callable(function):
        msg = f"foreach_batch needs a function, not {function!r} of type {type(function).__name__}; {_SHAPE}"
        raise PlanError(msg)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        msg = f"foreach_batch cannot await {function!r}: its work would never be done; {_SHAPE}, with asyncio.run(...) inside"
        raise PlanError(msg)
    if inspect.isgeneratorfunction(function):
        msg = f"{function!r} is a generator, so calling it would do nothing; {_SHAPE}, without yield"
        raise PlanError(msg)
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C do not tell their arguments
        return
    try:
        signature.bind(pl.DataFrame(), 0)
    except TypeError as error:
        msg = (
            f"foreach_batch calls function(rows, batch_id), which does not fit {function!r} with arguments {signature} ({error}); {_SHAPE}"
        )
        raise PlanError(msg) from error
