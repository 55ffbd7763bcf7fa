"""From the options of ``map_state`` to its node: everything that does not fit is refused here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Required, TypedDict

import polars as pl

from microbatch.api.options import did_you_mean, unknown_option
from microbatch.durations import Duration, positive_us
from microbatch.errors import PlanError
from microbatch.model import OutputMode
from microbatch.operators.per_key import PerKey
from microbatch.plan.keyed_state import TIMED_OUT, TimeMode, check_storable
from microbatch.plan.nodes import MapState, Node
from microbatch.plan.schema import event_times, schema_of


class StateOptions(TypedDict, total=False):
    """Options of ``map_state``.

    state_schema
        The variables kept for each key, Polars dtypes: a ``pl.List`` is a list, a ``pl.Map`` a map, others are single values.
    output_schema
        The columns of the rows the function returns, behind the keys.
    timeout
        The older kind of timer: one a key, ``"processing_time"`` or ``"event_time"``. Each call with rows clears it first, so a key
        with rows in a batch does not time out in it.
    timers
        The newer kind: any number of timers a key, ``"processing_time"`` or ``"event_time"``; they stay until they fire or are deleted.
        By either kind a timer fires in the batch whose time, or watermark, is later than the timer's; one by event time needs a
        watermark, and late rows are dropped then. By processing time a batch is made when a timer is due.
    ttl
        How long a variable lives after it was last written, by batch times: for all, or for those named. It is not seen any more
        from that moment on, and leaves the state in the next batch. (Flink: OnCreateAndWrite, NeverReturnExpired; to have a read
        prolong it too, write the value back.)
    event_time
        The column of ``output_schema``, a Datetime, that has the event time of the function's rows: the watermark of its input goes on to
        verbs behind it. Late rows are dropped before the function then, and a row it returns must not be late itself: its time is after
        the watermark of the batch before, as that of the batch's rows is; that of a timer may be this very watermark, so give its row a
        microsecond more. Not with timers by processing time, nor with ``timeout=``. None: its rows have no event time.
    initial_state
        The keys and variables to begin with, used in the first batch of a checkpoint.
    output_mode
        ``"append"``: its rows are final; ``"update"``: a later row of a key replaces the earlier ones; None: as the query has it.
    vectorised
        False: the function takes a key at a time; True: a batch.
    name
        Identifies the state in the checkpoint.
    """

    state_schema: Required[Mapping[str, Any]]
    output_schema: Required[Mapping[str, Any]]
    timeout: str | None
    timers: str | None
    ttl: Duration | Mapping[str, Duration] | None
    event_time: str | None
    initial_state: pl.DataFrame | None
    output_mode: str | None
    vectorised: bool
    name: str | None


def map_state_node(node: Node, keys: tuple[str, ...], function: Callable[..., Any], options: StateOptions) -> MapState:
    """Return the node; PlanError for options that do not fit each other or the rows."""
    _check_options(options)
    inside = {k: schema_of(node)[k] for k in keys}
    state, output = pl.Schema(options["state_schema"]), pl.Schema(options["output_schema"])
    _check_names(keys, state, output)
    check_storable("key", inside)
    check_storable("state variable", state)
    timeout, timers = _time_modes(options, watermarked=bool(event_times(node)))
    made = MapState(
        input=node,
        keys=keys,
        function=function,
        label=str(getattr(function, "__qualname__", type(function).__qualname__)),
        state=state,
        output=output,
        ttl_us=_ttl_us(options.get("ttl"), state),
        timeout=timeout,
        timers=timers,
        output_mode=_output_mode(options.get("output_mode")),
        initial=_initial(options.get("initial_state"), inside, state),
        watermarked=bool(event_times(node)),
        name=options.get("name"),
        event_time=options.get("event_time"),
    )
    if made.event_time is not None:
        _check_event_time(made, made.event_time)
    return made if options.get("vectorised") else replace(made, function=PerKey(function=function, node=made))


def _check_event_time(node: MapState, column: str) -> None:
    if node.timeout is not None or node.timers is TimeMode.PROCESSING:
        given = f'timeout="{node.timeout}"' if node.timeout else f'timers="{node.timers}"'
        msg = f'map_state(event_time={column!r}) with {given}: their rows would be late; use timers="event_time" or none'
        raise PlanError(msg)
    if not node.watermarked:
        msg = f"map_state(event_time={column!r}): the rows have no watermark to go on; write .with_watermark(column, delay) before group_by"
        raise PlanError(msg)
    if column not in node.output:
        msg = f"map_state(event_time={column!r}){did_you_mean(column, node.output)}; output_schema has {list(node.output)}"
        raise PlanError(msg)
    if not isinstance(node.output[column], pl.Datetime):
        msg = f"map_state(event_time={column!r}): event time must be a Datetime, output_schema has {node.output[column]}"
        raise PlanError(msg)


def _check_options(options: StateOptions) -> None:
    given: Mapping[str, Any] = options
    for option in given:
        if option not in StateOptions.__annotations__:
            raise unknown_option(option, StateOptions.__annotations__)
    if missing := [o for o in ("state_schema", "output_schema") if o not in given]:
        msg = f"map_state needs {' and '.join(missing)}: a mapping of names to Polars dtypes"
        raise PlanError(msg)


def _time_modes(options: StateOptions, *, watermarked: bool) -> tuple[TimeMode | None, TimeMode | None]:
    timeout, timers = _time_mode("timeout", options.get("timeout")), _time_mode("timers", options.get("timers"))
    if timeout and timers:
        msg = "map_state has both timeout= (one a key, cleared by data) and timers= (any number); give one of them"
        raise PlanError(msg)
    if TimeMode.EVENT in (timeout, timers) and not watermarked:
        option = "timeout" if timeout else "timers"
        msg = f'map_state({option}="event_time") needs event time: write .with_watermark(column, delay) before group_by'
        raise PlanError(msg)
    return timeout, timers


def _check_names(keys: tuple[str, ...], state: pl.Schema, output: pl.Schema) -> None:
    if not keys:
        msg = 'map_state needs a key to keep state for: group_by(column); for one state over all rows, group_by(pl.lit(0).alias("all"))'
        raise PlanError(msg)
    if not state:
        msg = "map_state(state_schema={}) keeps nothing; without state use map_batches(function, row_wise=True)"
        raise PlanError(msg)
    if taken := [n for n in output if n in keys]:
        msg = (
            f"map_state: output_schema names {taken}, which are keys {list(keys)}: these stand before the function's columns by themselves"
        )
        raise PlanError(msg)
    if taken := [n for n in state if n in keys or n == TIMED_OUT or n.startswith("__")]:
        msg = f"map_state: state variables cannot be called {taken}: a key {list(keys)}, {TIMED_OUT!r} or a name that begins with __"
        raise PlanError(msg)


def _time_mode(option: str, value: str | None) -> TimeMode | None:
    if value is None:
        return None
    if value not in list(TimeMode):
        known = [m.value for m in TimeMode]
        msg = (
            f"map_state({option}={value!r}) is not known{did_you_mean(str(value), known)}; it can be {', '.join(map(repr, known))} or None"
        )
        raise PlanError(msg)
    return TimeMode(value)


def _output_mode(value: str | None) -> OutputMode | None:
    if value not in (None, "append", "update"):
        allowed = '"append" (its rows are final), "update" (a later row of a key replaces the earlier) or None'
        msg = f"map_state(output_mode={value!r}) is not known; it can be {allowed}"
        raise PlanError(msg)
    return None if value is None else OutputMode(value)


def _ttl_us(ttl: Duration | Mapping[str, Duration] | None, state: pl.Schema) -> dict[str, int]:
    if ttl is None:
        return {}
    given = ttl if isinstance(ttl, Mapping) else dict.fromkeys(state, ttl)
    if unknown := [v for v in given if v not in state]:
        msg = f"map_state(ttl=...) names {unknown}{did_you_mean(unknown[0], state)}; state_schema has {list(state)}"
        raise PlanError(msg)
    return {v: positive_us(given[v], what=f"ttl of {v}") for v in state if v in given}


def _initial(frame: pl.DataFrame | None, keys: Mapping[str, pl.DataType], state: pl.Schema) -> pl.DataFrame | None:
    """Return the initial state with all columns in order, variables that it lacks being null."""
    if frame is None:
        return None
    wanted = {**keys, **state}
    if set(frame.columns) - set(wanted) or set(keys) - set(frame.columns) or any(frame.schema[c] != wanted[c] for c in frame.columns):
        msg = f"map_state: initial_state has columns {dict(frame.schema)}; it needs the keys {dict(keys)} and may have {dict(state)}"
        raise PlanError(msg)
    if (twice := frame.filter(frame.select(*keys).is_duplicated())).height:
        msg = f"map_state: initial_state has the key {twice.select(*keys).row(0)} {twice.height} times; a key has one state"
        raise PlanError(msg)
    missing = [pl.lit(None, dtype).alias(v) for v, dtype in state.items() if v not in frame.columns]
    return frame.with_columns(*missing).select(*wanted)
