"""The interval join of the other form: a right row meets the left rows from whose time it is between two bounds away."""

from __future__ import annotations

from typing import Any

import polars as pl

from tests.conformance import engine
from tests.conformance.report import NotSupportedError

Op = dict[str, Any]

LEFT, RIGHT = "left.", "right."
_HOW = {"inner": "inner", "left": "left", "left_outer": "left", "right": "right", "right_outer": "right", "outer": "full", "full": "full"}
_HOW |= {"full_outer": "full", "semi": "semi", "left_semi": "semi", "anti": "anti", "left_anti": "anti"}


def interval_join(left: Any, right: Any, op: Op, times: tuple[str, str], mark: list[str]) -> Any:
    """Return the join, the sides' columns as ``left.x`` and ``right.x``, and the keys, which are ``mark`` too, by their own names.

    ``times`` are the sides' event time columns.
    """
    how = str(op.get("how", "inner"))
    if how not in _HOW:
        msg = f"interval_join how {how}"
        raise NotSupportedError(msg)
    keys = [*op["on"], *mark]
    joined = engine.feature(_prefixed(left, LEFT), "join")(
        _prefixed(right, RIGHT),
        left_on=[LEFT + k for k in keys],
        right_on=[RIGHT + k for k in keys],
        how=_HOW[how],
        coalesce=False,
        where=_between(pl.col(LEFT + times[0]), pl.col(RIGHT + times[1]), op),
        name=op.get("uid"),
    )
    sides = (LEFT,) if _HOW[how] in ("semi", "anti") else (LEFT, RIGHT)
    return joined.with_columns(*(pl.coalesce([side + k for side in sides]).alias(k) for k in keys))


def _prefixed(frame: Any, side: str) -> Any:
    return frame.rename({c: side + c for c in frame.collect_schema()})


def _between(left: pl.Expr, right: pl.Expr, op: Op) -> pl.Expr:
    lower, upper = (left + pl.duration(milliseconds=op[bound]) for bound in ("lower_ms", "upper_ms"))
    above = right >= lower if op.get("lower_inclusive", True) else right > lower
    below = right <= upper if op.get("upper_inclusive", True) else right < upper
    return above & below
