"""Per-key machines of the cases, as functions of the engine's per-key state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from tests.conformance import engine
from tests.conformance.expressions import physical
from tests.conformance.relation import Relation
from tests.conformance.report import NotSupportedError

Machine = dict[str, Any]
Function = Callable[[Any, list[Any], Any], Any]
_TIMES = {"processing": "processing_time", "event": "event_time"}
_KEY, _VALUE = "key", "value"


def stateful(relation: Relation, op: dict[str, Any]) -> Relation:
    """Return the relation after ``op``: one row (key, value) for each call of its machine that emits."""
    machine = op["machine"]
    rule = machine["rule"]
    if rule not in _RULES:
        msg = f"per-key machine {rule}"
        raise NotSupportedError(msg)
    (key,) = physical(relation.scope[op["key"]])
    renamed = relation.replaced(engine.feature(relation.frame, "rename")({key: _KEY} if key != _KEY else {}))
    grouped = engine.feature(renamed.frame, "group_by")(_KEY)
    make, state, newer = _RULES[rule]
    timing = _TIMES.get(op.get("timeout", "none"))
    value = op.get("value")
    column = None if value is None else _KEY if physical(relation.scope[value])[0] == key else physical(relation.scope[value])[0]
    frame = engine.feature(grouped, "map_state")(
        make({**machine, "timeout": op.get("timeout", "none"), "column": column}),
        state_schema=state,
        output_schema={_VALUE: pl.Int64},
        output_mode=op.get("func_mode"),
        ttl=f"{machine['ttl_s']}s" if "ttl_s" in machine else None,
        **{"timers" if newer else "timeout": timing},
    )
    return relation.replaced(frame, {_KEY: _KEY, _VALUE: _VALUE})


def _running_count(machine: Machine) -> Function:
    """The count of the key's rows; at exactly ``remove_at`` the state goes; a timeout ``timeout_after`` seconds after each call."""

    def count(key: Any, rows: list[Any], state: Any) -> Any:
        if state.timed_out:
            state.remove()
            return _emit(machine.get("on_timeout"))
        n = state["n"].get(0) + len(rows)
        if n == machine.get("remove_at"):
            state.remove()
            return _emit(machine.get("on_remove"))
        state["n"].update(n)
        if "timeout_after" in machine:
            state.set_timeout(f"{machine['timeout_after']}s")
        return (n,)

    return count


def _extreme(best: Callable[..., int]) -> Callable[[Machine], Function]:
    """The largest or smallest value so far; it times out ``timeout_after`` seconds after that moment."""

    def make(machine: Machine) -> Function:
        def extreme(key: Any, rows: list[Any], state: Any) -> Any:
            if state.timed_out:
                state.remove()
                return _emit(machine.get("on_timeout"))
            known = [state["n"].get()] if state.exists else []
            n = best([*known, *(_seconds(getattr(row, machine["column"])) for row in rows)])
            state["n"].update(n)
            if "timeout_after" in machine:
                state.set_timeout_at((n + machine["timeout_after"]) * 1_000_000)
            return (n,)

        return extreme

    return make


def _set_once(machine: Machine) -> Function:
    """Only the first call sets state and a timeout."""

    def once(key: Any, rows: list[Any], state: Any) -> Any:
        if state.timed_out:
            state.remove()
            return _emit(machine.get("on_timeout"))
        if not state.exists:
            n = max(_seconds(getattr(row, machine["column"])) for row in rows) if machine["column"] else len(rows)
            state["n"].update(n)
            if "timeout_after" in machine and machine["timeout"] == "event":
                state.set_timeout_at((n + machine["timeout_after"]) * 1_000_000)
            elif "timeout_after" in machine:
                state.set_timeout(f"{machine['timeout_after']}s")
        return _emit(machine["emit"]) if "emit" in machine else (state["n"].get(),)

    return once


def _timer_count(machine: Machine) -> Function:
    """A count, by row or by call; timers set when the count was so much, for some keys; what a timer does is told by ``on_timer``."""
    on_timer = machine.get("on_timer") or {}

    def count(key: Any, rows: list[Any], state: Any) -> Any:
        if state.timer_us is not None:
            if on_timer.get("clear_state"):
                state.remove()
            return _emit(on_timer.get("emit"))
        before = state["n"].get(0)
        after = before + (len(rows) if machine.get("count_by") == "row" else 1)
        for timer in machine.get("timers", ()):
            if timer.get("when_count_was", before) == before and key[0] in timer.get("keys", key):
                _set_timer(state, timer)
        state["n"].update(after)
        return _emit(after if machine.get("emit", "count") == "count" else machine["emit"])

    return count


def _set_timer(state: Any, timer: dict[str, Any]) -> None:
    if timer.get("deletes_previous") or timer.get("deletes"):
        for at_us in state.list_timers():
            state.delete_timer(at_us)
    if "at_ms" in timer:
        state.register_timer(timer["at_ms"] * 1_000)
    elif "after_ms" in timer:
        state.register_timer(state.batch_time_us + timer["after_ms"] * 1_000)


def _kv_with_ttl(machine: Machine) -> Function:
    """``put`` keeps a value for a while, ``get`` emits it while it is there."""

    def act(key: Any, rows: list[Any], state: Any) -> Any:
        emitted = []
        for row in rows:
            if row.action == "put":
                state["n"].update(row.v)
            elif row.action == "get" and state["n"].exists:
                emitted.append((state["n"].get(),))
            elif row.action == "clear":
                state["n"].clear()
        return emitted

    return act


def _seconds(value: Any) -> int:
    """Return a moment or a whole number of seconds as seconds."""
    return (
        (value.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
        if isinstance(value, datetime)
        else int(value)
    )


def _emit(value: Any) -> Any:
    return None if value is None else (value,)


_N = {"n": pl.Int64}
# For each rule: the function, its state, and whether it uses the newer kind of timers.
_RULES: dict[str, tuple[Callable[[Machine], Function], dict[str, Any], bool]] = {
    "running_count": (_running_count, _N, False),
    "max_event_time": (_extreme(max), _N, False),
    "min_event_time": (_extreme(min), _N, False),
    "set_once": (_set_once, _N, False),
    "timer_count": (_timer_count, _N, True),
    "kv_with_ttl": (_kv_with_ttl, _N, True),
}
