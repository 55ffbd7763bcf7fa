"""The watermark of a query: each watermark operator's own value, and the global one made of them (Spark: WatermarkTracker)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from microbatch.operators.watermark import ObserveEventTime


def own_watermark_us(max_us: int, delay_us: int) -> int | None:
    """Return what a largest event time and a delay make of an unset watermark.

    Spark starts at 1970, so a delay longer than the time since 1970 leaves its watermark where it was; event times before 1970
    move ours all the same, or every such row would count as late.

    Examples
    --------
    >>> own_watermark_us(15, 10)
    5
    >>> own_watermark_us(5, 10) is None
    True
    >>> own_watermark_us(-5, 10)
    -15
    """
    mark = max_us - delay_us
    return None if mark < 0 <= max_us else mark


class WatermarkTracker:
    """Never moves back. With the policy ``min`` it waits for an operator that has seen no row yet; with ``max`` it does not."""

    def __init__(self, policy: str, operator_ids: Iterable[str], own_us: Mapping[str, int], global_us: int | None) -> None:
        self._policy = policy
        self.own_us: dict[str, int | None] = {operator_id: own_us.get(operator_id) for operator_id in operator_ids}
        self.global_us = global_us

    def advance(self, watermarks: Iterable[ObserveEventTime]) -> None:
        """Take in the event times of the batch that just ran."""
        for operator in watermarks:
            if operator.seen.max_us is not None:
                mark = own_watermark_us(operator.seen.max_us, operator.delay_us)
                self.own_us[operator.operator_id] = later(self.own_us[operator.operator_id], mark)
        self.global_us = later(self.global_us, self._combined())

    def _combined(self) -> int | None:
        known = [mark for mark in self.own_us.values() if mark is not None]
        if not known or (self._policy == "min" and len(known) < len(self.own_us)):
            return None
        return min(known) if self._policy == "min" else max(known)

    def known_us(self) -> dict[str, int]:
        """Return the own value of each operator that has one: what the commit log keeps."""
        return {operator_id: mark for operator_id, mark in self.own_us.items() if mark is not None}


def later(a: int | None, b: int | None) -> int | None:
    """Return the greater of two marks; None is before everything."""
    return b if a is None else a if b is None else max(a, b)
