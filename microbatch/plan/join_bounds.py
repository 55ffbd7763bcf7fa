"""How long a row of one side of a join can still meet rows of the other (Spark: StreamingJoinHelper.getStateValueWatermark).

A condition ``other + c < own`` lets a row of the own side meet only others before ``own - c``. Others at or before the watermark are late,
so once it reaches ``own - c`` the row is dead. Event time among the equal keys does the same with c = 0 for both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from microbatch.plan.join_columns import condition_trees, plain_column
from microbatch.plan.nodes import JoinStreams
from microbatch.plan.rowwise import is_constant
from microbatch.plan.trees import Tree, expression_of, function_of, node

# d and w are left out: in a time zone they are not always of one length.
_FIXED = re.compile(r"-?(\d+(ns|us|ms|s|m|h))+")
_US = timedelta(microseconds=1)
_MIRRORED = {"Lt": "Gt", "LtEq": "GtEq", "Gt": "Lt", "GtEq": "LtEq", "Eq": "Eq"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinBounds:
    """When the rows of each side are dead.

    Attributes
    ----------
    key
        Number of the pair of equal keys that is event time: rows of both sides are dead when its time is at or before the watermark.
    left_us, right_us
        Without such a pair: rows of that side are dead when their event time is at or before the watermark plus this; None: never.
    """

    key: int | None = None
    left_us: int | None = None
    right_us: int | None = None

    def ends(self, side: str) -> bool:
        """Return True if the rows of a side die some day."""
        return self.key is not None or (self.left_us if side == "left" else self.right_us) is not None

    @property
    def behind_us(self) -> int:
        """How far behind the watermark the rows are that come out last, microseconds."""
        return max(0, -(self.left_us or 0), -(self.right_us or 0))


def join_bounds(
    join: JoinStreams, left: dict[str, bool], right: dict[str, bool], names: dict[str, str], *, in_nanoseconds: bool
) -> JoinBounds:
    """Return the bounds of a join.

    Parameters
    ----------
    join
        The join.
    left, right
        The event times of its sides.
    names
        Under which names the right columns stand in the condition.
    in_nanoseconds
        Whether times may lie between two microseconds.
    """
    by_key = [(max(left.get(plain_column(a) or "", -1), right.get(plain_column(b) or "", -1)), k) for k, (a, b) in enumerate(join.keys)]
    rank, key = max(by_key, key=lambda pair: pair[0])
    if rank >= 0:
        return JoinBounds(key=key)
    own, other = time_of(left), time_of(right)
    if own is None or other is None:
        return JoinBounds()
    found: dict[bool, list[int]] = {True: [], False: []}
    for tree in condition_trees(join):
        for is_left, inclusive, offset_us in _offsets(tree, own, names[other]):
            # Inclusive: as Spark, a unit earlier. Strict: a row that is not late is a unit behind the watermark, so one more is dead.
            found[is_left].append(offset_us - 1 if inclusive else offset_us + (not in_nanoseconds))
    # The least of several, as Spark has it: any of them is right.
    return JoinBounds(left_us=min(found[True], default=None), right_us=min(found[False], default=None))


def time_of(times: dict[str, bool]) -> str | None:
    """Return the column a side's rows are judged by: the end of a window before an instant."""
    return max(times, key=lambda column: times[column], default=None)


def _offsets(tree: Tree, left: str, right: str) -> Iterator[tuple[bool, bool, int]]:
    """Yield for a conjunct the sides it bounds (True: left), whether it lets rows at the bound meet, and c of the bound."""
    tag, body = node(tree)
    if tag != "BinaryExpr" or body["op"] not in _MIRRORED:
        return
    sides = _linear(body["left"], (left, right)), _linear(body["right"], (left, right))
    if sides[0] is None or sides[1] is None:
        return
    factors = [a - b for a, b in zip(*(side.factors for side in sides if side), strict=True)]
    constant = sides[0].constant_us - sides[1].constant_us
    if factors not in ([1, -1], [-1, 1]):
        return
    # left - right + constant (op) 0
    op = body["op"] if factors == [1, -1] else _MIRRORED[body["op"]]
    constant = constant if factors == [1, -1] else -constant
    inclusive = op in ("LtEq", "GtEq", "Eq")
    if op in ("Gt", "GtEq", "Eq"):
        yield True, inclusive, -constant
    if op in ("Lt", "LtEq", "Eq"):
        yield False, inclusive, constant


@dataclass(frozen=True, slots=True, kw_only=True)
class _Linear:
    """``factors`` times the two time columns, and a constant."""

    factors: tuple[int, int]
    constant_us: int

    def plus(self, other: _Linear, sign: int) -> _Linear:
        a, b = (x + sign * y for x, y in zip(self.factors, other.factors, strict=True))
        return _Linear(factors=(a, b), constant_us=self.constant_us + sign * other.constant_us)


def _linear(tree: Tree, times: Sequence[str]) -> _Linear | None:
    """Return a tree as a linear form in the two time columns, None if it is none."""
    tag, body = node(tree)
    if tag == "Column":
        return _Linear(factors=(int(body == times[0]), int(body == times[1])), constant_us=0) if body in times else None
    if tag == "Alias":
        return _linear(body[0], times)
    if is_constant(tree):
        return _constant(tree)
    if tag == "BinaryExpr" and body["op"] in ("Plus", "Minus"):
        parts = [_linear(body[side], times) for side in ("left", "right")]
        return parts[0].plus(parts[1], 1 if body["op"] == "Plus" else -1) if parts[0] and parts[1] else None
    if tag == "Function" and function_of(body)[0] == "TemporalExpr.OffsetBy":
        time, by = _linear(body["input"][0], times), _shift(body["input"][1])
        return time.plus(by, 1) if time and by else None
    return None


def _constant(tree: Tree) -> _Linear | None:
    value = pl.select(expression_of(tree)).to_series()[0]
    if not isinstance(value, timedelta):
        return None
    return _Linear(factors=(0, 0), constant_us=value // _US)


def _shift(tree: Tree) -> _Linear | None:
    text = pl.select(expression_of(tree)).to_series()[0] if is_constant(tree) else None
    if not isinstance(text, str) or not _FIXED.fullmatch(text):
        return None
    shifted = pl.select(pl.lit(0, pl.Datetime("us")).dt.offset_by(text).to_physical()).item()
    return _Linear(factors=(0, 0), constant_us=shifted)
