"""What a function that is called key by key sees of a key's state (Spark: StatefulProcessorHandle, GroupState)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import polars as pl

from microbatch.durations import Duration, positive_us
from microbatch.errors import PlanError
from microbatch.plan.keyed_state import StateBatch, TimeMode
from microbatch.plan.nodes import MapState

Moment: TypeAlias = datetime | int
"""A datetime (UTC if it has no zone), or microseconds since 1970, UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is the same for every key of a batch.

    ``variables`` has the place of each, and what it is seen as; ``due_before_us`` the time before which timers are due, None: none is.
    """

    node: MapState
    batch: StateBatch
    variables: Mapping[str, tuple[int, type[_Variable]]]
    due_before_us: int | None


def surroundings(node: MapState, batch: StateBatch) -> Surroundings:
    """Return what is the same for every key of a batch."""
    before = batch.batch_time_us if node.time is TimeMode.PROCESSING else batch.watermark_us
    variables = {name: (place, _kind(dtype)) for place, (name, dtype) in enumerate(node.state.items())}
    return Surroundings(node=node, batch=batch, variables=variables, due_before_us=before)


def _kind(dtype: pl.DataType) -> type[_Variable]:
    return ListVariable if isinstance(dtype, pl.List) else MapVariable if isinstance(dtype, pl.Map) else ValueVariable


class KeyState:
    """The state of one key during one call; what it is told counts when the batch is committed.

    ``state["name"]`` is a variable of ``state_schema``: a ``ListVariable`` for a ``pl.List``, a ``MapVariable`` for a ``pl.Map``, else a
    ``ValueVariable``.
    """

    __slots__ = ("_around", "_pending", "changed", "expires", "firing_us", "values")

    def __init__(self, around: Surroundings, values: list[Any], expires: dict[str, int | None], pending: set[int]) -> None:
        self._around = around
        self._pending = pending
        self.values = values
        self.expires = expires
        self.changed = False
        self.firing_us: int | None = None

    # -- variables --------------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        variable = self._around.variables.get(name)
        if variable is None:
            msg = f"there is no state variable {name!r}; state_schema has {list(self._around.variables)}"
            raise PlanError(msg)
        place, kind = variable
        return kind(self, name, place)

    @property
    def exists(self) -> bool:
        """True if a variable has a value."""
        return any(value is not None for value in self.values)

    def remove(self) -> None:
        """Clear all variables; timers stay."""
        for name, (place, _) in self._around.variables.items():
            self.put(name, place, None)

    def put(self, name: str, place: int, value: Any) -> None:
        """Write a variable, None to clear it; its time to live begins anew."""
        self.values[place] = value
        self.changed = True
        if name in self._around.node.ttl_us:
            self.expires[name] = None if value is None else self._around.batch.batch_time_us + self._around.node.ttl_us[name]

    # -- time -------------------------------------------------------------------------------------------------------------

    @property
    def batch_time_us(self) -> int:
        """The logged time of the batch, microseconds since 1970, UTC: the same when the batch runs again."""
        return self._around.batch.batch_time_us

    @property
    def watermark_us(self) -> int | None:
        """The watermark, microseconds since 1970, UTC; None until an event time was seen. PlanError if the rows have no watermark."""
        if not self._around.node.watermarked:
            msg = "there is no watermark to ask for: write .with_watermark(column, delay) before group_by"
            raise PlanError(msg)
        return self._around.batch.watermark_us

    @property
    def timed_out(self) -> bool:
        """True if this call is for the key's timeout: it has no rows."""
        return self._around.node.timeout is not None and self.firing_us is not None

    @property
    def timer_us(self) -> int | None:
        """The time of the timer this call is for, None in a call with rows."""
        return self.firing_us

    def set_timeout(self, after: Duration) -> None:
        """Set the key's one timeout, so long after the batch's time (``timeout="processing_time"``); it replaces the last."""
        self._must_have("set_timeout", "timeout", TimeMode.PROCESSING)
        self._pending = {self._around.batch.batch_time_us + positive_us(after, what="set_timeout")}

    def set_timeout_at(self, when: Moment) -> None:
        """Set the key's one timeout, in event time (``timeout="event_time"``), after the watermark; it replaces the last."""
        self._must_have("set_timeout_at", "timeout", TimeMode.EVENT)
        at_us = moment_us(when)
        if self._around.batch.watermark_us is not None and at_us <= self._around.batch.watermark_us:
            msg = f"set_timeout_at({when!r}) is {at_us} us, the watermark has come to {self._around.batch.watermark_us} us: set it later"
            raise PlanError(msg)
        self._pending = {at_us}

    def register_timer(self, when: Moment) -> None:
        """Set a timer, in addition to others; the same time twice is one timer.

        One that is due already fires after this call. While a timer fires, a new one must be later than it.
        """
        self._must_have("register_timer", "timers", self._around.node.timers)
        at_us = moment_us(when)
        if self.firing_us is not None and at_us <= self.firing_us:
            msg = f"register_timer({when!r}) is {at_us} us, not after the timer that fires, {self.firing_us} us: it would fire for ever"
            raise PlanError(msg)
        self._pending.add(at_us)

    def delete_timer(self, when: Moment) -> None:
        """Delete the timer of that time; no error if there is none."""
        self._must_have("delete_timer", "timers", self._around.node.timers)
        self._pending.discard(moment_us(when))

    def list_timers(self) -> list[int]:
        """Return the times of the key's timers, microseconds since 1970, UTC, ascending."""
        return sorted(self._pending)

    def take_due(self) -> bool:
        """Make the earliest timer that is due the one that fires; False if none is."""
        before, first = self._around.due_before_us, min(self._pending, default=None)
        if first is None or before is None or first >= before:
            return False
        self.firing_us = first
        self._pending.discard(first)
        return True

    def _must_have(self, call: str, option: str, mode: TimeMode | None) -> None:
        has: TimeMode | None = getattr(self._around.node, option)
        if has is None or has is not mode:
            wanted = f'{option}="{mode or TimeMode.EVENT}"'
            msg = (
                f"{call} needs map_state({wanted}); this one has timeout={self._around.node.timeout!s}, timers={self._around.node.timers!s}"
            )
            raise PlanError(msg)


def moment_us(when: Moment) -> int:
    """Return a moment as microseconds since 1970, UTC."""
    if isinstance(when, datetime):
        return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)
    if isinstance(when, bool) or not isinstance(when, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"{when!r} is no moment: give a datetime, or microseconds since 1970 as an int"
        raise PlanError(msg)
    return when


class _Variable:
    """One variable of one key."""

    __slots__ = ("_name", "_place", "_state")

    def __init__(self, state: KeyState, name: str, place: int) -> None:
        self._state = state
        self._name = name
        self._place = place

    @property
    def exists(self) -> bool:
        """True if it has a value (an empty list or map is one) that has not expired."""
        return self._state.values[self._place] is not None

    def clear(self) -> None:
        """Take the value away."""
        self._put(None)

    @property
    def _value(self) -> Any:
        return self._state.values[self._place]

    def _put(self, value: Any) -> None:
        self._state.put(self._name, self._place, value)


class ValueVariable(_Variable):
    """A variable that holds one value."""

    __slots__ = ()

    def get(self, default: Any = None) -> Any:
        """Return the value, ``default`` if there is none."""
        value = self._value
        return default if value is None else value

    def update(self, value: Any) -> None:
        """Put a value in the place of the last; None is none: use ``clear``."""
        if value is None:
            msg = f"state variable {self._name!r} cannot be updated to None; clear() takes the value away"
            raise PlanError(msg)
        self._put(value)


class ListVariable(_Variable):
    """A variable that holds a list."""

    __slots__ = ()

    def get(self) -> list[Any]:
        """Return a copy of the list, empty if there is none."""
        return list(self._value or ())

    def append(self, value: Any) -> None:
        """Add a value at the end."""
        self._put([*(self._value or ()), value])

    def extend(self, values: Iterable[Any]) -> None:
        """Add values at the end."""
        self._put([*(self._value or ()), *values])

    def update(self, values: Iterable[Any]) -> None:
        """Put a list in the place of the last."""
        self._put(list(values))

    def __len__(self) -> int:
        return len(self._value or ())


class MapVariable(_Variable):
    """A variable that holds a value per key of its own."""

    __slots__ = ()

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, ``default`` if it has none."""
        return (self._value or {}).get(key, default)

    def update(self, key: Any, value: Any) -> None:
        """Put a value in the place of the key's last."""
        self._put({**(self._value or {}), key: value})

    def remove(self, key: Any) -> None:
        """Take a key away; no error if it is not there."""
        self._put({k: v for k, v in (self._value or {}).items() if k != key})

    def items(self) -> dict[Any, Any]:
        """Return a copy: keys and their values."""
        return dict(self._value or {})

    def __contains__(self, key: object) -> bool:
        return key in (self._value or {})

    def __len__(self) -> int:
        return len(self._value or {})
