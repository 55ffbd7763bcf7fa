"""Calls the function of a ``MapState`` and holds what it returns to its word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from microbatch.errors import DataError, MicrobatchError, PlanError
from microbatch.plan.keyed_state import AT, EXPIRES, StateBatch, StateChange, without_state
from microbatch.plan.nodes import MapState


def run_once(node: MapState, now_us: int, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of bounded input: one call with all rows and no state; timers that are set do not fire."""
    if rows.is_empty():
        return pl.DataFrame(schema={**{k: rows.schema[k] for k in node.keys}, **node.output})
    batch = without_state(rows, node.keys, node.state, has_timers=node.time is not None, now_us=now_us)
    return call(node, batch).rows.select(*node.keys, *node.output)


def call(node: MapState, batch: StateBatch) -> StateChange:
    """Return what the function makes of a batch.

    Raises
    ------
    DataError
        The function raised; the cause is chained.
    PlanError
        It returned another type, other columns, a key that is not in the batch, or a key twice.
    """
    try:
        change = node.function(batch)
    except MicrobatchError:
        raise
    except Exception as cause:
        msg = f"map_state({node.label}) failed in batch {batch.batch_id} with {batch.rows.height} rows: {type(cause).__name__}: {cause}"
        raise DataError(msg) from cause
    if not isinstance(change, StateChange):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"map_state({node.label}) must return a mb.StateChange, it returned a {type(change).__name__}"  # type: ignore[unreachable]
        raise PlanError(msg)
    keys = {k: batch.states.schema[k] for k in node.keys}
    _check_columns(node, "rows", change.rows, {**keys, **node.output})
    _check_states(node, change.states, keys)
    if change.removed is not None:
        _check_columns(node, "removed", change.removed, keys)
    if change.timers is not None:
        change = replace(change, timers=_checked_timers(node, change.timers, keys))
    for what, frame in (("rows", change.rows), ("states", change.states), ("removed", change.removed), ("timers", change.timers)):
        if frame is not None and frame.height:
            _check_keys(node, what, frame, batch.states)
    return change


def _check_columns(node: MapState, what: str, frame: pl.DataFrame, wanted: Mapping[str, pl.DataType]) -> None:
    if dict(frame.schema) != dict(wanted):
        msg = f"map_state({node.label}) returned {what} with columns {dict(frame.schema)}, declared are {dict(wanted)}"
        raise PlanError(msg)


def _check_states(node: MapState, states: pl.DataFrame | None, keys: Mapping[str, pl.DataType]) -> None:
    if states is None:
        return
    variables = {v: d for v, d in node.state.items() if v in states.columns}
    expiries = {f"{EXPIRES}{v}": pl.Int64() for v in variables if v in node.ttl_us and f"{EXPIRES}{v}" in states.columns}
    if dict(states.schema) != {**keys, **variables, **expiries}:
        msg = (
            f"map_state({node.label}) returned states with columns {dict(states.schema)}; "
            f"declared are the keys {dict(keys)} and, all or some of, {dict(node.state)}"
        )
        raise PlanError(msg)


def _checked_timers(node: MapState, timers: pl.DataFrame, keys: Mapping[str, pl.DataType]) -> pl.DataFrame:
    if node.time is None:
        msg = f"map_state({node.label}) returned timers; say by which time they fire: timeout= or timers="
        raise PlanError(msg)
    # A literal is of the smallest type that holds it.
    whole = timers.cast({AT: pl.Int64}) if timers.schema.get(AT, pl.Null()).is_integer() else timers
    _check_columns(node, "timers", whole, {**keys, AT: pl.Int64()})
    return whole


def _check_keys(node: MapState, what: str, frame: pl.DataFrame, states: pl.DataFrame) -> None:
    """Compare two pieces of one batch: this is no join against the state."""
    keys = list(node.keys)
    others = frame.select(keys).join(states.select(keys), on=keys, how="anti", nulls_equal=True)
    if others.height:
        msg = f"map_state({node.label}) returned {what} for the key {others.row(0)}, which is not in the batch: neither rows nor a timer"
        raise PlanError(msg)
    many = what == "rows" or (what == "timers" and node.timeout is None)
    twice = frame.clear() if many else frame.select(keys).filter(frame.select(keys).is_duplicated())
    if twice.height:
        msg = f"map_state({node.label}) returned {what} with the key {twice.row(0)} {twice.height} times; a key has one row there"
        raise PlanError(msg)
