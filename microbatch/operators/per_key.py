"""A function that is called key by key, as one that is called once a batch.

The rows are sorted by key once and sliced; the calls, one or more a key, are what the user asked for, and cost a few microseconds each.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from microbatch.errors import DataError, PlanError
from microbatch.operators.key_state import KeyState, surroundings
from microbatch.plan.keyed_state import AT, EXPIRES, StateBatch, StateChange
from microbatch.plan.nodes import MapState

Row = tuple[Any, ...]
KeyFunction = Callable[[Row, list[Any], KeyState], "Row | Iterable[Any] | None"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PerKey:
    """Calls ``function(key, rows, state)`` for each key with rows, then for each of its timers that is due; a ``StateFunction``."""

    function: KeyFunction
    node: MapState

    def __call__(self, batch: StateBatch) -> StateChange:
        """Return what the calls put out and leave."""
        calls = _Calls(self, batch)
        timers = self._timers_of(batch)
        expiries = [e for v in self.node.ttl_us if (e := f"{EXPIRES}{v}") in batch.states.columns]
        kept = batch.states.select(*self.node.state, *expiries).rows()
        of_key = self._slices(batch.rows)
        around, width = surroundings(self.node, batch), len(self.node.state)
        for k, values in enumerate(kept):
            expires = dict(zip(self.node.ttl_us, values[width:], strict=False))
            state = KeyState(around, list(values[:width]), expires, timers[k])
            if k < len(of_key):
                calls.call(k, of_key[k], state)
            while state.take_due():
                calls.call(k, [], state)
            calls.keep(k, state)
        return calls.change()

    def _slices(self, rows: pl.DataFrame) -> list[list[Any]]:
        """Return the rows of each key as named tuples, keys in the order they first come."""
        row_type: Any = namedtuple("Row", rows.columns, rename=True)  # type: ignore[misc]
        numbered = rows.with_row_index("__row").group_by(self.node.keys, maintain_order=True).agg("__row")
        bounds = [0, *numbered["__row"].list.len().cum_sum()]
        sorted_rows = list(map(row_type._make, rows[numbered["__row"].explode()].rows()))
        return [sorted_rows[begin:end] for begin, end in pairwise(bounds)]

    def _timers_of(self, batch: StateBatch) -> list[set[int]]:
        """Return the timers of each key; which are due is told by their times."""
        timers: list[set[int]] = [set() for _ in range(batch.states.height)]
        if batch.timers is not None and batch.timers.height:
            numbered = batch.states.select(self.node.keys).with_row_index("__key")
            placed = batch.timers.join(numbered, on=self.node.keys, how="inner", nulls_equal=True)
            for k, at_us in placed.select("__key", AT).rows():
                timers[k].add(at_us)
        return timers


class _Calls:
    """The calls of one batch, and what they leave: lists that become columns at the end; keys go by their numbers."""

    def __init__(self, of: PerKey, batch: StateBatch) -> None:
        self._function = of.function
        self._node = of.node
        self._batch = batch
        self.keys = batch.states.select(self._node.keys).rows()
        self._row_of: list[int] = []
        self._rows: list[Row] = []
        self._state_of: list[int] = []
        self._states: list[Row] = []
        self._timer_of: list[int] = []
        self._timers: list[Row] = []

    def call(self, k: int, rows: list[Any], state: KeyState) -> None:
        """Call the function for a key, and note the rows it returns."""
        try:
            result = self._function(self.keys[k], rows, state)
            # A generator runs here, so that its errors are told with the key.
            returned = [] if result is None else [result] if isinstance(result, tuple) else list(result)
        except Exception as cause:
            msg = f"map_state({self._node.label}) failed at {self._where(k)}, with {len(rows)} rows: {type(cause).__name__}: {cause}"
            raise DataError(msg) from cause
        for row in returned:
            if not isinstance(row, tuple) or len(row) != len(self._node.output):
                msg = (
                    f"map_state({self._node.label}) returned {row!r} for {self._where(k)}; a row is a tuple with the columns "
                    f"{dict(self._node.output)} (the key stands before them by itself); return one, or a list of them, or None"
                )
                raise PlanError(msg)
        self._row_of += [k] * len(returned)
        self._rows += returned

    def keep(self, k: int, state: KeyState) -> None:
        """Note what a key's state is after its calls."""
        if state.changed:
            self._state_of.append(k)
            self._states.append((*state.values, *map(state.expires.get, self._node.ttl_us)))
        if timers := state.list_timers():
            self._timer_of += [k] * len(timers)
            self._timers += [(at_us,) for at_us in timers]

    def _where(self, k: int) -> str:
        return f"key {self.keys[k]} in batch {self._batch.batch_id}"

    def change(self) -> StateChange:
        """Return everything as frames."""
        node = self._node
        stored = {**node.state, **{f"{EXPIRES}{v}": pl.Int64() for v in node.ttl_us}}
        return StateChange(
            rows=self._frame(self._row_of, self._rows, node.output),
            states=self._frame(self._state_of, self._states, stored),
            timers=None if self._batch.timers is None else self._frame(self._timer_of, self._timers, {AT: pl.Int64()}),
        )

    def _frame(self, numbers: list[int], rows: Sequence[Row], columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
        keys = self._batch.states.select(self._node.keys)
        of_key = keys[numbers] if numbers else keys.clear()
        values = zip(*rows, strict=True) if rows else [()] * len(columns)
        made = [self._column(numbers, pl.Field(n, d), v) for (n, d), v in zip(columns.items(), values, strict=True)]
        return of_key.hstack(made)

    def _column(self, numbers: Sequence[int], field: pl.Field, values: Sequence[Any]) -> pl.Series:
        """Return the values as a column of exactly this type; PlanError, naming value and key, for one that is not."""
        made = _strict(field, values)
        if made is not None:
            return made
        wrong = ((k, v) for k, v in zip(numbers, values, strict=True) if _strict(field, [v]) is None)
        k, value = next(wrong, (numbers[0], values[0]))
        unknown = _unknown_field(field.dtype, value)
        msg = (
            f"map_state({self._node.label}) gave {field.name!r} = {value!r} ({type(value).__name__}) for {self._where(k)}, "
            f"declared is {field.dtype}{'' if unknown is None else f', which has no field {unknown!r}'}"
        )
        raise PlanError(msg)


def _strict(field: pl.Field, values: Sequence[Any]) -> pl.Series | None:
    """Return the values as a series, None if one is of another type: nothing is cast on the way."""
    try:
        made = pl.Series(field.name, values, dtype=field.dtype, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return None
    # Polars leaves out fields of a struct it does not know.
    if made.dtype != field.dtype or (field.dtype.is_nested() and any(_unknown_field(field.dtype, v) is not None for v in values)):
        return None
    return made


def _unknown_field(dtype: object, value: Any) -> str | None:
    """Return a field within a value, at any depth, that the structs of its type do not have; None if there is none."""
    inside: Iterable[tuple[object, Any]] = ()
    match dtype:
        case pl.Struct() if isinstance(value, Mapping):
            fields = dict(dtype)
            if unknown := [name for name in value if name not in fields]:
                return str(unknown[0])
            inside = [(fields[name], v) for name, v in value.items()]
        case pl.List() | pl.Array() if isinstance(value, (list, tuple)):
            inside = [(dtype.inner, v) for v in value]
        case pl.Map() if isinstance(value, Mapping):
            inside = [(dtype.value, v) for v in value.values()]
        case _:
            pass
    return next((found for within, v in inside if (found := _unknown_field(within, v)) is not None), None)
