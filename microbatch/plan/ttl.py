"""How long state is kept that nothing else would end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from microbatch.durations import Duration, positive_us
from microbatch.errors import PlanError

EXPIRED = "expired"
"""The column that tells the last row of a group that is forgotten from the others."""

Clock = Literal["event", "processing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeToLive:
    """State is forgotten ``us`` microseconds after its time: by event time, when the watermark has got there, or by the time of batches.

    ``emits``: what is forgotten is put out once more, marked in a column ``expired``.
    """

    us: int
    clock: Clock
    emits: bool = False


def time_to_live(ttl: Duration | None, clock: str | None, *, verb: str, has_event_time: bool, emits: bool = False) -> TimeToLive | None:
    """Return a time to live as the user asked for it, None if not; ``clock`` None: event time if the rows have a watermark.

    Raises
    ------
    PlanError
        The length is none or not longer than zero; there is no such clock; event time without a watermark.
    """
    if ttl is None:
        if clock is not None or emits:
            msg = f"{verb}: ttl_time and on_expiry say how ttl works; give ttl= too, or leave them out"
            raise PlanError(msg)
        return None
    us = positive_us(ttl, what=f"{verb} ttl")
    if clock not in (None, "event", "processing"):
        msg = f'{verb}: ttl_time={clock!r} is no clock; it is "event" (the watermark) or "processing" (the time of batches)'
        raise PlanError(msg)
    if clock == "event" and not has_event_time:
        msg = (
            f'{verb}: ttl_time="event" needs a watermark to tell the time: write .with_watermark(...) before, or use ttl_time="processing"'
        )
        raise PlanError(msg)
    by_event = has_event_time if clock is None else clock == "event"
    return TimeToLive(us=us, clock="event" if by_event else "processing", emits=emits)
