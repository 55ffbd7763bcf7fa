"""A join of two streams row by row, as the semantics say it: slow, and written without a look at the operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Row: TypeAlias = tuple[Any, ...]
NULLS = (None, None, None)


@dataclass(kw_only=True)
class Kept:
    """A row in the state."""

    row: Row
    matched: bool


@dataclass(kw_only=True)
class Model:
    """Rows are (key, time, value); times are integers.

    ``meets`` says whether a left and a right row are a pair, ``left_holds`` and ``right_holds`` what concerns one side alone;
    ``left_dead`` and ``right_dead`` whether the watermark says that a row can meet no more.
    """

    how: str
    meets: Callable[[Row, Row], bool]
    left_holds: Callable[[Row], bool]
    right_holds: Callable[[Row], bool]
    left_dead: Callable[[Row, int], bool]
    right_dead: Callable[[Row, int], bool]
    left: list[Kept] = field(default_factory=list[Kept])
    right: list[Kept] = field(default_factory=list[Kept])

    def batch(self, lefts: Sequence[Row], rights: Sequence[Row], late: int | None, eviction: int | None) -> list[Row]:
        """Return the rows a batch puts out."""
        out: list[Row] = []
        for row in lefts:
            if not _is_late(row, late):
                self._left_arrives(row, out)
        for row in rights:
            if not _is_late(row, late):
                self._right_arrives(row, out)
        if eviction is not None:
            self._evict(eviction, out)
        return out

    def _left_arrives(self, row: Row, out: list[Row]) -> None:
        if not self.left_holds(row):
            if self.how in ("left", "full"):
                out.append(row + NULLS)
            if self.how == "anti":
                out.append(row)
            return
        new = Kept(row=row, matched=False)
        for other in self.right:
            if self.meets(row, other.row):
                self._pair(new, other, out)
        self.left.append(new)

    def _right_arrives(self, row: Row, out: list[Row]) -> None:
        if not self.right_holds(row):
            if self.how in ("right", "full"):
                out.append(NULLS + row)
            return
        new = Kept(row=row, matched=False)
        for other in self.left:
            if self.meets(other.row, row):
                self._pair(other, new, out)
        self.right.append(new)

    def _pair(self, left: Kept, right: Kept, out: list[Row]) -> None:
        if self.how == "semi" and not left.matched:
            out.append(left.row)
        if self.how not in ("semi", "anti"):
            out.append(left.row + right.row)
        left.matched = right.matched = True

    def _evict(self, mark: int, out: list[Row]) -> None:
        for kept in self.left:
            if self.left_dead(kept.row, mark) and not kept.matched:
                if self.how in ("left", "full"):
                    out.append(kept.row + NULLS)
                if self.how == "anti":
                    out.append(kept.row)
        for kept in self.right:
            if self.right_dead(kept.row, mark) and not kept.matched and self.how in ("right", "full"):
                out.append(NULLS + kept.row)
        self.left = [kept for kept in self.left if not self.left_dead(kept.row, mark)]
        self.right = [kept for kept in self.right if not self.right_dead(kept.row, mark)]


def _is_late(row: Row, late: int | None) -> bool:
    return late is not None and row[1] is not None and row[1] <= late
