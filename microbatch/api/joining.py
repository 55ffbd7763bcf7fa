"""What users write for a join, as a node: with a bounded side, or of two streams by pairs of keys and one condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import polars as pl

from microbatch.api.options import did_you_mean
from microbatch.durations import Duration, duration_us
from microbatch.errors import PlanError
from microbatch.plan.batch_time import asks_time
from microbatch.plan.checks import check_static_join, check_stream_join
from microbatch.plan.join_bounds import time_of
from microbatch.plan.nodes import JoinStatic, JoinStreams, Node, is_streaming
from microbatch.plan.rowwise import check_row_wise
from microbatch.plan.schema import event_times, schema_of

On: TypeAlias = str | pl.Expr | Sequence[str | pl.Expr] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joined:
    """The arguments of a join that both kinds have."""

    left: Node
    right: Node
    how: str
    on: On
    left_on: On
    right_on: On
    suffix: str
    nulls_equal: bool
    coalesce: bool | None

    def node(self, where: pl.Expr | None, within: Duration | None, name: str | None) -> JoinStatic | JoinStreams:
        """Return the join; PlanError, saying what to write, if it cannot run as a stream."""
        if is_streaming(self.left) and is_streaming(self.right):
            return self._of_streams(where, within, name)
        if where is not None or within is not None or name is not None:
            msg = (
                "join with a bounded frame takes no where, within or name: it keeps no state; write .filter(condition) behind an inner join"
            )
            raise PlanError(msg)
        return self._with_bounded()

    def _with_bounded(self) -> JoinStatic:
        options: dict[str, object] = {
            "on": self.on,
            "how": self.how,
            "left_on": self.left_on,
            "right_on": self.right_on,
            "suffix": self.suffix,
            "nulls_equal": self.nulls_equal,
        }
        options |= {} if self.coalesce is None else {"coalesce": self.coalesce}
        # A stream's own order is kept, so that first and last mean the same in a batch of one file and of many.
        order = {} if self.how in ("semi", "anti") else {"maintain_order": "left" if is_streaming(self.left) else "right"}
        node = JoinStatic(left=self.left, right=self.right, options=options | order)
        check_static_join(node)
        return node

    def _of_streams(self, where: pl.Expr | None, within: Duration | None, name: str | None) -> JoinStreams:
        node = JoinStreams(
            left=self.left,
            right=self.right,
            how=self.how,
            keys=key_pairs(self.left, self.right, self.on, self.left_on, self.right_on),
            where=join_condition(self.left, self.right, self.suffix, where, within),
            suffix=self.suffix,
            nulls_equal=self.nulls_equal,
            coalesce=self.coalesce,
            name=name,
        )
        if asks_time([*(side for pair in node.keys for side in pair), node.where]):
            msg = (
                "join: mb.batch_time() differs by batch, and rows of several batches meet; write .with_columns(now=mb.batch_time()) before "
                "the join, or filter behind it"
            )
            raise PlanError(msg)
        check_stream_join(node)
        return node


def key_pairs(left: Node, right: Node, on: On, left_on: On, right_on: On) -> tuple[tuple[pl.Expr, pl.Expr], ...]:
    """Return the expressions that must be equal; PlanError unless there are as many on both sides, at least one."""
    if on is not None and (left_on is not None or right_on is not None):
        msg = "join has on= and left_on= or right_on=; give on= for keys of one name, else the other two"
        raise PlanError(msg)
    lefts = _keys(left, "left", left_on if on is None else on)
    rights = _keys(right, "right", right_on if on is None else on)
    if len(lefts) != len(rights) or not lefts:
        msg = (
            f"join of two streams needs equal keys, as many on both sides: {len(lefts)} on the left, {len(rights)} on the right; "
            f"give on=..., or left_on=... and right_on=...; what is no equality goes into where="
        )
        raise PlanError(msg)
    return tuple(zip(lefts, rights, strict=True))


def _keys(node: Node, side: str, on: On) -> list[pl.Expr]:
    given = [] if on is None else [on] if isinstance(on, str | pl.Expr) else list(on)
    schema = schema_of(node)
    if missing := [k for k in given if isinstance(k, str) and k not in schema]:
        msg = f"join: the {side} side has no column {missing[0]!r}{did_you_mean(str(missing[0]), schema)}; it has {dict(schema)}"
        raise PlanError(msg)
    keys = [pl.col(k) if isinstance(k, str) else k for k in given]
    check_row_wise(keys, verb="join")
    frame = pl.LazyFrame(schema=schema)
    return [one for key in keys for one in (map(pl.col, frame.select(key).collect_schema()) if key.meta.is_column_selection() else [key])]


def join_condition(left: Node, right: Node, suffix: str, where: pl.Expr | None, within: Duration | None) -> pl.Expr | None:
    """Return ``where`` and ``within`` as one condition; PlanError if they are none."""
    if where is not None:
        check_row_wise([where], verb="join(where=...)")
    if within is None:
        return where
    apart_us = duration_us(within, what="join(within=...)")
    if apart_us < 0:
        msg = f"join(within={within!r}) is less than zero: no two times are so close"
        raise PlanError(msg)
    times = [time_of(event_times(n)) for n in (left, right)]
    if times[0] is None or times[1] is None:
        side = "left" if times[0] is None else "right"
        msg = f"join(within={within!r}) compares event times, but the {side} side has none: write .with_watermark(column, delay) before"
        raise PlanError(msg)
    own = pl.col(times[0])
    other = pl.col(f"{times[1]}{suffix}" if times[1] in schema_of(left) else times[1])
    apart = pl.duration(microseconds=apart_us)
    near = other.is_between(own - apart, own + apart)
    return near if where is None else where & near
