"""Operators of the other form as verbs of the engine.

An explicit watermark is emulated: the event time gets a delay longer than any case lasts, and a *filler* row, marked as such, stands
that delay ahead of the watermark asked for. Rows of the case never move the watermark then, whatever their time. The mark is a key of
every stateful operator, so fillers form groups of their own, which are filtered out in the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.plan.window import END, START
from tests.conformance import engine
from tests.conformance.others import joins
from tests.conformance.relation import Relation, Switch
from tests.conformance.report import NotSupportedError

Op = dict[str, Any]

FILLER = "filler"
"""The column that marks the rows which are there only to move the watermark."""

AHEAD_MS = 300 * 366 * 86_400_000
"""How far a filler stands ahead of the watermark: more than from 1970 to any time of a case."""

# Not per_partition: each partition is a stream with a watermark of its own then, and the union waits for the slowest.
_UNKNOWN_WATERMARKS = ("idle_timeout_ms", "align_group", "max_drift_ms", "max_ahead_of_clock_ms")
_UNKNOWN_WINDOW_FIELDS = ("early", "emit_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A frame under construction, the columns that identify a row of the result, and the sink's options."""

    frame: Any
    keys: tuple[str, ...] = ()
    filled: bool = False


def explicit_inputs(pipeline: list[Op]) -> dict[str, str]:
    """Return the inputs whose watermark is told, with their event time column."""
    return {op["input"]: op["column"] for op in pipeline if op["op"] == "watermark" and op.get("explicit")}


def partitions_watched(body: dict[str, Any]) -> dict[str, int]:
    """Return how many partitions of each input have a watermark of their own; an input is one partition unless it asks for more."""
    watched = {op["input"] for op in body["pipeline"] if op["op"] == "watermark" and op.get("per_partition")}
    return {name: spec.get("partitions", 1) if name in watched else 1 for name, spec in body["inputs"].items()}


def port_name(name: str, partition: int | None) -> str:
    """Return the name of a partition's stream, None being the whole input."""
    return name if partition is None else f"{name}/{partition}"


def output_mode(pipeline: list[Op], declared: str) -> str:
    """Return the engine's mode for a pipeline: update if its stateful operator says so."""
    emits = [op["emit"] for op in pipeline if "emit" in op]
    if emits:
        return "update" if emits[-1] == "update" else "append"
    return {"append": "append", "update": "update"}.get(declared, "append")


def build(pipeline: list[Op], output: list[str], frames: Mapping[str, Any]) -> Relation:
    """Return the relation of a pipeline, with the case's output names in order."""
    streams = {name: Stream(frame=frame, filled=bool(explicit_inputs(pipeline))) for name, frame in frames.items()}
    rest = list(pipeline)
    while rest and rest[0]["op"] == "watermark":
        op = rest.pop(0)
        parts = [name for name in streams if name.partition("/")[0] == op["input"]]
        streams[op["input"]] = _union([_watermark(streams.pop(p), op, pipeline) for p in parts])
    stream = _joined_inputs(streams, rest)
    for op in rest:
        if op["op"] not in _OPERATORS:
            msg = f"operator {op['op']}"
            raise NotSupportedError(msg)
        stream = _OPERATORS[op["op"]](stream, op)
    if stream.filled:
        stream = replace(stream, frame=stream.frame.filter(~pl.col(FILLER)))
    return _finished(stream, output)


def _joined_inputs(streams: dict[str, Stream], rest: list[Op]) -> Stream:
    """Return the one stream the operators work on; several inputs need an operator that joins them."""
    first = rest[0]["op"] if rest else "nothing"
    if first == "interval_join":
        return _interval_join(streams, rest.pop(0))
    if len(streams) == 1:
        return next(iter(streams.values()))
    if first != "union":
        msg = f"operator {first}"
        raise NotSupportedError(msg)
    op = rest.pop(0)
    return _union([streams[name] for name in op.get("inputs", list(streams))])


def _union(streams: list[Stream]) -> Stream:
    first, *others = streams
    return replace(first, frame=first.frame.union(*(s.frame for s in others))) if others else first


def _interval_join(streams: dict[str, Stream], op: Op) -> Stream:
    left, right = streams[op["left"]], streams[op["right"]]
    times = _time_column(left), _time_column(right)
    if not isinstance(times[0], str) or not isinstance(times[1], str):
        msg = "interval_join of windows"
        raise NotSupportedError(msg)
    return replace(left, frame=joins.interval_join(left.frame, right.frame, op, (times[0], times[1]), _mark(left)))


def _finished(stream: Stream, output: list[str]) -> Relation:
    columns = {"start": START, "end": END}
    have = stream.frame.collect_schema().names()
    scope = {name: name if name in have else columns.get(name, name) for name in output}
    missing = sorted(set(scope.values()) - set(have))
    if missing:
        msg = f"output column {missing[0]}"
        raise NotSupportedError(msg)
    keys = [c for c in stream.keys if c in have and c not in scope.values()]
    kept = [*scope.values(), *(k for k in keys if k != FILLER)]
    return Relation(frame=stream.frame.select(*map(pl.col, kept)), scope=dict(scope), failing=Switch(), fresh=count())


def _judges_instants(pipeline: list[Op]) -> bool:
    return any(op["op"] in ("dedup", "interval_join") for op in pipeline) and not any("window" in op for op in pipeline)


def _watermark(stream: Stream, op: Op, pipeline: list[Op]) -> Stream:
    """Declare the event time.

    A case's watermark is exclusive: a row at it is in time. Ours is inclusive, which is the same for the end of a window; where rows are
    judged by their own time it stands a microsecond back. A join's grace is a watermark that stands so much further back.
    """
    for field in _UNKNOWN_WATERMARKS:
        if op.get(field):
            msg = f"watermark {field}"
            raise NotSupportedError(msg)
    delay_ms = AHEAD_MS if op.get("explicit") else int(op.get("delay_ms", 0))
    delay_ms += sum(int(other.get("grace_ms", 0)) for other in pipeline if other["op"] == "interval_join")
    return replace(
        stream, frame=engine.feature(stream.frame, "with_watermark")(op["column"], f"{delay_ms * 1_000 + _judges_instants(pipeline)}us")
    )


def _window_agg(stream: Stream, op: Op) -> Stream:
    if op.get("allowed_lateness_ms"):
        msg = "allowed lateness"
        raise NotSupportedError(msg)
    for field in _UNKNOWN_WINDOW_FIELDS:
        if op.get(field):
            msg = f"window_agg {field}"
            raise NotSupportedError(msg)
    if op.get("emit") == "update" and op.get("accumulation") == "discarding":
        msg = "discarding accumulation"
        raise NotSupportedError(msg)
    by = tuple({"start": START, "end": END}.get(name, name) for name in op["by"])
    if taken := {START, END} & set(by):
        msg = f"a window by the {taken.pop()} of another one"
        raise NotSupportedError(msg)
    grouped = stream.frame.group_by(_window(op["window"], _time_column(stream)), *by, *_mark(stream))
    return replace(stream, frame=_aggregated(grouped, op["aggs"]), keys=(*by, START, END))


def _window(window: Op, time: str | pl.Expr) -> Any:
    kind = window["kind"]
    if kind in ("tumbling", "hopping"):
        slide = window.get("slide_ms") or window["size_ms"]
        return engine.feature(mb, "window")(time, _ms(window["size_ms"]), _ms(slide), offset=_ms(window.get("offset_ms", 0)))
    if kind == "session":
        if window.get("touching_merges") is False:
            msg = "sessions whose distance equals the gap stay apart"
            raise NotSupportedError(msg)
        return engine.feature(mb, "session_window", "session")(time, _ms(window["gap_ms"]))
    msg = f"window {kind}"
    raise NotSupportedError(msg)


def _time_column(stream: Stream) -> str | pl.Expr:
    """Return the column that has the watermark: the cases call it ``ts``; a window's row has the last moment of the window as its time."""
    schema = stream.frame.collect_schema()
    if END in schema:
        return engine.feature(mb, "window_time")(END)  # type: ignore[no-any-return]
    times = [name for name, dtype in schema.items() if isinstance(dtype, pl.Datetime)]
    return "ts" if "ts" in times else times[0]


def _ms(milliseconds: int) -> str:
    return f"{milliseconds}ms"


def _mark(stream: Stream) -> list[str]:
    return [FILLER] if stream.filled else []


def _agg(stream: Stream, op: Op) -> Stream:
    by = tuple(op["by"])
    grouped = stream.frame.group_by(*by, *_mark(stream))
    return replace(stream, frame=_aggregated(grouped, op["aggs"]), keys=by)


def _aggregated(grouped: Any, aggs: Mapping[str, Op]) -> Any:
    frame = grouped.agg(*(_aggregate(name, call) for name, call in aggs.items()))
    lists = [pl.col(name).list.sort() for name, call in aggs.items() if call["fn"] == "list_sorted"]
    return frame.with_columns(*lists) if lists else frame


def _aggregate(name: str, call: Op) -> pl.Expr:
    function = call["fn"]
    if function == "count":
        return pl.len().alias(name)
    value = pl.sql_expr(call["expr"]) if "expr" in call else pl.col(call["col"])
    if function not in _AGGREGATES:
        msg = f"aggregate {function}"
        raise NotSupportedError(msg)
    return _AGGREGATES[function](value).alias(name)


_AGGREGATES: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "sum": lambda v: v.sum(),
    "mean": lambda v: v.mean(),
    "avg": lambda v: v.mean(),
    "min": lambda v: v.min(),
    "max": lambda v: v.max(),
    "first": lambda v: v.first(),
    "last": lambda v: v.last(),
    "list": lambda v: v.implode(),
    "list_sorted": lambda v: v.implode(),
    "count_distinct": lambda v: v.drop_nulls().n_unique(),
}


def _dedup(stream: Stream, op: Op) -> Stream:
    unique = engine.feature(stream.frame, "unique")
    options: dict[str, Any] = {}
    if op.get("ttl_ms") is not None:
        if engine.parameter(unique, "ttl") is None:
            msg = "dedup with a time to live"
            raise NotSupportedError(msg)
        options = {"ttl": _ms(op["ttl_ms"]), "ttl_time": op.get("ttl_time")}
    return replace(stream, frame=unique([*op["by"], *_mark(stream)], **options))


def _filter(stream: Stream, op: Op) -> Stream:
    condition = pl.sql_expr(op["expr"])
    return replace(stream, frame=stream.frame.filter(condition | pl.col(FILLER) if stream.filled else condition))


_FAILS_WHEN = re.compile(r"(\w+) contains '(.*)'")


def _map_rows(stream: Stream, op: Op) -> Stream:
    """Rows of which some make the user's function raise."""
    match = _FAILS_WHEN.fullmatch(op.get("fails_when", ""))
    if match is None or op.get("on_error", "fail") != "fail":
        msg = f"map_rows on_error {op.get('on_error')}" if match else "map_rows"
        raise NotSupportedError(msg)
    column, text = match[1], match[2]

    def check(rows: pl.DataFrame) -> pl.DataFrame:
        bad = rows.get_column(column).drop_nulls().str.contains(text, literal=True)
        if bad.any():
            msg = f"cannot map the row with {text}"
            raise ValueError(msg)
        return rows

    return replace(stream, frame=stream.frame.map_batches(check, row_wise=True))


def _keyed_timers(stream: Stream, op: Op) -> Stream:
    """A row's ``cmd`` sets a timer of its key at ``at``, or deletes it; a timer emits its time as ``t``, milliseconds."""
    told = " ".join(str(op.get(part, "")) for part in ("on_row", "on_timer"))
    if "emit (k, timer_ts)" not in told:
        msg = f"keyed_timers {told}"
        raise NotSupportedError(msg)

    def act(key: Any, rows: list[Any], state: Any) -> Any:
        if state.timer_us is not None:
            return (state.timer_us // 1_000,)
        for row in rows:
            if row.cmd == "set":
                state.register_timer(row.at * 1_000)
            elif row.cmd == "del":
                state.delete_timer(row.at * 1_000)
        return None

    grouped = engine.feature(stream.frame.group_by(*op["by"], *_mark(stream)), "map_state")
    timers = "processing_time" if "processing" in told else "event_time"
    return replace(stream, frame=grouped(act, state_schema={"none": pl.Int64}, output_schema={"t": pl.Int64}, timers=timers))


def _ttl_cell(stream: Stream, op: Op) -> Stream:
    """A row's ``cmd`` writes ``v`` into its key's cell ("w"), or reads it ("r"); with OnReadAndWrite a read writes the value back."""
    if op["visibility"] != "NeverReturnExpired" or op["clock"] != "processing":
        msg = f"ttl_cell {op['visibility']} by {op['clock']} time"
        raise NotSupportedError(msg)
    reads_refresh = {"OnCreateAndWrite": False, "OnReadAndWrite": True}[op["update"]]

    def act(key: Any, rows: list[Any], state: Any) -> Any:
        cell, read = state["cell"], list[Any]()
        for row in rows:
            if row.cmd == "w":
                cell.update(row.v)
                continue
            read.append((cell.get(),))
            if reads_refresh and cell.exists:
                cell.update(cell.get())
        return read

    grouped = engine.feature(stream.frame.group_by(op["key"], *_mark(stream)), "map_state")
    made = grouped(act, state_schema={"cell": pl.Int64}, output_schema={"v": pl.Int64}, ttl=_ms(op["ttl_ms"]), name=op["uid"])
    return replace(stream, frame=made)


def _sink(stream: Stream, op: Op) -> Stream:
    return replace(stream, keys=tuple(op["key"])) if op.get("key") else stream


def _passthrough(stream: Stream, op: Op) -> Stream:
    return stream


_OPERATORS: dict[str, Callable[[Stream, Op], Stream]] = {
    "window_agg": _window_agg,
    "agg": _agg,
    "dedup": _dedup,
    "filter": _filter,
    "keyed_timers": _keyed_timers,
    "map_rows": _map_rows,
    "ttl_cell": _ttl_cell,
    "sink": _sink,
    "passthrough": _passthrough,
}
