"""Rows made by the clock, or so many a batch: for trying queries and measuring them. A row depends on its offset alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from microbatch.durations import Duration, duration_us
from microbatch.errors import CheckpointCorruptError, CheckpointMismatchError, PlanError
from microbatch.model import Offset
from microbatch.protocols import Clock, Folder, SourceContext, SourceReader

SCHEMA = pl.Schema({"timestamp": pl.Datetime("us", "UTC"), "value": pl.Int64()})

_SECOND_US = 1_000_000
_PIN = "start.json"


class RateSource:
    """A counter with a clock: ``timestamp`` Datetime("us", "UTC"), ``value`` Int64, counted from 0 without gaps.

    By time (the default; Spark: RateStreamProvider): second ``s`` of the query has its rows when it is over, spread evenly over it;
    the offset is the number of whole seconds. By batch (``rows_per_batch``; Spark: RatePerMicroBatchProvider): each batch has that many
    rows, all with the same timestamp; the offset is ``{"offset": rows, "timestamp": ms}``.

    Parameters
    ----------
    rows_per_second
        Rows of a second, 1 or more.
    ramp_up
        Whole seconds in which the speed grows evenly to ``rows_per_second``.
    start_us
        When second 0 begins, microseconds since 1970, UTC. None: at the first start of the query, by time; 1970, by batch. It is
        pinned in the checkpoint.
    rows_per_batch
        Rows of a batch, 1 or more; instead of ``rows_per_second``. A run that ends with what is there has one batch.
    advance_ms_per_batch
        How far the timestamp moves with each batch, milliseconds, 0 or more.

    Raises
    ------
    PlanError
        An option or value cannot be.
    """

    def __init__(
        self,
        rows_per_second: int | None = None,
        *,
        ramp_up: Duration = "0s",
        start_us: int | None = None,
        rows_per_batch: int | None = None,
        advance_ms_per_batch: int = 1_000,
    ) -> None:
        ramp_up_us = duration_us(ramp_up, what="ramp_up")
        if rows_per_batch is not None and (rows_per_second not in (None, 1) or ramp_up_us):
            msg = f"rows_per_batch={rows_per_batch} makes rows by batch: leave out rows_per_second and ramp_up, which make them by time"
            raise PlanError(msg)
        if ramp_up_us < 0 or ramp_up_us % _SECOND_US:
            msg = f"ramp_up={ramp_up!r} must be whole seconds, 0 or more"
            raise PlanError(msg)
        _check_whole("rows_per_second", rows_per_second, at_least=1)
        _check_whole("rows_per_batch", rows_per_batch, at_least=1)
        _check_whole("start_us", start_us, at_least=0)
        _check_whole("advance_ms_per_batch", advance_ms_per_batch, at_least=0)
        self._start_us = start_us
        self._rows_per_batch = rows_per_batch
        self._advance_ms = advance_ms_per_batch
        self._speed = Speed(rows_per_second or 1, ramp_up_us // _SECOND_US)

    @property
    def description(self) -> str:
        """One line for progress and ``explain``."""
        if self._rows_per_batch is not None:
            return f"RateSource[{self._rows_per_batch} rows/batch]"
        return f"RateSource[{self._speed.rows_per_second} rows/s]"

    def schema(self) -> pl.Schema:
        """Return the two columns."""
        return SCHEMA

    def open(self, context: SourceContext) -> SourceReader:
        """Return a reader; the first one on a checkpoint fixes when second 0 begins."""
        if self._rows_per_batch is not None:
            start_us = _pinned_start_us(context.folder, self._start_us or 0)
            return BatchRateReader(self._rows_per_batch, self._advance_ms, start_us // 1_000)
        now_us = context.clock.now_us() if self._start_us is None else self._start_us
        return TimeRateReader(self._speed, _pinned_start_us(context.folder, now_us), context.clock)

    def read_all(self) -> pl.LazyFrame:
        """Raise PlanError: a rate has no rows but those its running query makes, so there is nothing to compare them with."""
        msg = f"{self.description} makes rows only while a query runs; for a batch over fixed rows use mb.static or mb.MemoryStream"
        raise PlanError(msg)


def _check_whole(name: str, value: object, *, at_least: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < at_least):
        msg = f"{name}={value!r} must be a whole number, {at_least} or more"
        raise PlanError(msg)


@dataclass(frozen=True, slots=True)
class Speed:
    """How many rows there are after how many seconds."""

    rows_per_second: int
    ramp_up_seconds: int

    def rows_before(self, seconds: int) -> int:
        """Return the number of rows of the first so many seconds, also the first ``value`` after them.

        While the speed grows, each second has the same number of rows more than the one before (Spark: RateStreamProvider.valueAtSecond).

        Examples
        --------
        >>> [Speed(10, 4).rows_before(seconds) for seconds in range(7)]
        [0, 2, 6, 12, 20, 30, 40]
        """
        ramp = min(seconds, self.ramp_up_seconds)
        step = self.rows_per_second // (self.ramp_up_seconds + 1)
        return step * ramp * (ramp + 1) // 2 + (seconds - ramp) * self.rows_per_second

    def between(self, start: int, end: int, start_us: int) -> pl.LazyFrame:
        """Return the rows of the seconds from ``start`` up to, not including, ``end``; they do not depend on where the range is cut."""
        seconds = np.arange(start, end + 1, dtype=np.int64)
        ramp = np.minimum(seconds, self.ramp_up_seconds)
        step = self.rows_per_second // (self.ramp_up_seconds + 1)
        before = step * ramp * (ramp + 1) // 2 + (seconds - ramp) * self.rows_per_second
        counts = np.diff(before)
        values = np.arange(before[0], before[-1], dtype=np.int64)
        within = (values - np.repeat(before[:-1], counts)) * _SECOND_US // np.repeat(counts, counts)
        at_us = start_us + np.repeat(seconds[:-1], counts) * _SECOND_US + within
        return _frame(at_us, values)


def _frame(at_us: np.ndarray, values: np.ndarray) -> pl.LazyFrame:
    return pl.LazyFrame({"timestamp": at_us, "value": values}).cast(SCHEMA)


def _pinned_start_us(folder: Folder, start_us: int) -> int:
    """Return when the query of this checkpoint began; the first call of all decides."""
    folder.add(_PIN, json.dumps({"startUs": start_us}).encode())
    try:
        found = json.loads(folder.read(_PIN) or b"")["startUs"]
        return int(found)
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{folder.path}/{_PIN} is damaged ({error}); restore it from a copy"
        raise CheckpointCorruptError(msg) from error


class TimeRateReader:
    """Reads the seconds that are over."""

    def __init__(self, speed: Speed, start_us: int, clock: Clock) -> None:
        self._speed = speed
        self._start_us = start_us
        self._clock = clock
        self._frozen: int | None = None

    def latest_offset(self, start: Offset, *, limited: bool) -> Offset:  # noqa: ARG002 - there is no limit
        """Return the number of whole seconds since the beginning; a clock that was put back does not move it back."""
        end = self._seconds_over() if self._frozen is None else self._frozen
        return end if end > _seconds(start) else start

    def freeze(self) -> None:
        """Fix the end at the seconds that are over now."""
        self._frozen = self._seconds_over()

    def read(self, start: Offset, end: Offset) -> pl.LazyFrame:
        """Return the rows of the seconds after ``start`` up to ``end``."""
        return self._speed.between(_seconds(start), _seconds(end), self._start_us)

    def row_count(self, start: Offset, end: Offset) -> int:
        """Return the number of rows."""
        return self._speed.rows_before(_seconds(end)) - self._speed.rows_before(_seconds(start))

    def commit(self, end: Offset) -> None:
        """Nothing is kept."""

    def metrics(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""

    def _seconds_over(self) -> int:
        return max(0, (self._clock.now_us() - self._start_us) // _SECOND_US)


class BatchRateReader:
    """Reads the next so many rows, each time it is asked."""

    def __init__(self, rows_per_batch: int, advance_ms: int, start_ms: int) -> None:
        self._rows_per_batch = rows_per_batch
        self._advance_ms = advance_ms
        self._start_ms = start_ms
        self._frozen = False
        self._last: Offset = None

    def latest_offset(self, start: Offset, *, limited: bool) -> Offset:  # noqa: ARG002 - a batch is a batch
        """Return one batch beyond ``start``; after ``freeze`` only once."""
        if self._frozen and self._last is not None:
            return self._last if _position(start, self._start_ms) < _position(self._last, self._start_ms) else start
        rows, at_ms = _position(start, self._start_ms)
        end: Offset = {"offset": rows + self._rows_per_batch, "timestamp": at_ms + self._advance_ms}
        if self._frozen:
            self._last = end
        return end

    def freeze(self) -> None:
        """Let there be one more batch."""
        self._frozen = True
        self._last = None

    def read(self, start: Offset, end: Offset) -> pl.LazyFrame:
        """Return the rows after ``start`` up to ``end``; the timestamp is that of ``start``, and moves on with each batch in the range."""
        first, at_ms = _position(start, self._start_ms)
        last, _ = _position(end, self._start_ms)
        values = np.arange(first, last, dtype=np.int64)
        at_us = (at_ms + (values - first) // self._rows_per_batch * self._advance_ms) * 1_000
        return _frame(at_us, values)

    def row_count(self, start: Offset, end: Offset) -> int:
        """Return the number of rows."""
        return _position(end, self._start_ms)[0] - _position(start, self._start_ms)[0]

    def commit(self, end: Offset) -> None:
        """Nothing is kept."""

    def metrics(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""


def _seconds(offset: Offset) -> int:
    match offset:
        case None:
            return 0
        case int(seconds) if not isinstance(seconds, bool):
            return seconds
        case _:
            raise _foreign(offset)


def _position(offset: Offset, start_ms: int) -> tuple[int, int]:
    match offset:
        case None:
            return 0, start_ms
        case {"offset": int(rows), "timestamp": int(at_ms)}:
            return rows, at_ms
        case _:
            raise _foreign(offset)


def _foreign(offset: Offset) -> CheckpointMismatchError:
    msg = f"{offset!r} is no offset of this rate source; restore the old query, or take a new checkpoint"
    return CheckpointMismatchError(msg)
