"""The records that rooms hand to each other: frozen, plain, without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Offset: TypeAlias = Json
"""A source's position, a JSON value only that source understands; None is "before the first row"."""


class OutputMode(StrEnum):
    """Which rows of the result a batch hands to the sink."""

    APPEND = "append"  # a row once, when it is final
    UPDATE = "update"  # the rows that changed in this batch
    COMPLETE = "complete"  # the whole result, every time


class Delivery(StrEnum):
    """What a sink promises when a batch is handed to it twice."""

    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Two watermarks of one batch, microseconds since 1970, UTC; None: no event time was seen yet.

    Rows at or before ``late_us`` are dropped on arrival; state at or before ``eviction_us`` is closed (Spark:
    IncrementalExecution, "late events" and "eviction" watermark).
    """

    late_us: int | None
    eviction_us: int | None

    def behind(self, behind_us: int | None) -> Marks:
        """Return the marks of an operator whose event time is so far behind; with None, which is no event time, both are unset.

        Examples
        --------
        >>> Marks(late_us=None, eviction_us=7).behind(2)
        Marks(late_us=None, eviction_us=5)
        """
        if behind_us is None:
            return Marks(late_us=None, eviction_us=None)
        late, eviction = (mark if mark is None else mark - behind_us for mark in (self.late_us, self.eviction_us))
        return Marks(late_us=late, eviction_us=eviction)

    @property
    def moved(self) -> bool:
        """True if the eviction mark is past the one that the batch before had, which is now the late mark."""
        return self.eviction_us is not None and (self.late_us is None or self.eviction_us > self.late_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """All that the result of a batch depends on: one entry of the offset log.

    ``offsets`` holds the *end* offset of each source in plan order; the start is the end of the entry before. ``conf`` is frozen
    over the life of a checkpoint.
    """

    batch_id: int
    offsets: tuple[Offset, ...]
    marks: Marks
    batch_time_us: int
    conf: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCommit:
    """What a finished batch leaves for the next one: one entry of the commit log.

    ``state`` is the file name of the state delta of version ``batch_id + 1``, None for a query without state.
    ``operator_watermarks_us`` is each watermark operator's own value, so that a restart is invisible.
    """

    batch_id: int
    next_watermark_us: int | None
    operator_watermarks_us: Mapping[str, int] = field(default_factory=dict[str, int])
    state: str | None = None
