"""Settings every query has, whatever its sink."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypedDict, TypeVar

from microbatch.clock import SystemClock
from microbatch.errors import PlanError
from microbatch.model import OutputMode
from microbatch.protocols import Clock, Sink

T = TypeVar("T")


class QueryOptions(TypedDict, total=False):
    """Options of every ``sink_*``.

    mode
        ``"append"`` (default): a row once, when it is final. ``"update"``: the rows that changed in a batch. ``"complete"``: the
        whole result.
    checkpoint
        Folder of the query's logs and state; compulsory for sinks whose rows outlive the process. One query a folder. A local path, or
        ``s3://bucket/path``, ``gs://`` or ``abfs://`` with credentials from the environment; there no lock refuses a second run, but
        of two one is stopped at the first batch that both log.
    name
        For progress, logs and messages.
    watermark_policy
        With several watermarks: ``"min"`` (default) waits for the slowest, ``"max"`` follows the fastest. Fixed at the first batch.
    no_data_batches
        True (default): when the watermark moved, a batch without data closes what it passed; False: that waits for the next data.
    retain_batches
        How many batches of logs and state are kept, 1 or more; 100 by default.
    evolve
        True lets this run begin with operators or aggregates the state in the checkpoint does not have (they begin empty: an aggregate
        of an old group counts from now on), and forget operators the query no longer has; False (default) refuses both.
    late_rows
        Where rows that an operator refuses as late are kept, exactly once: the folder of a Delta table, or a sink such as
        ``mb.MemorySink()``, which must be exactly-once and take append mode. Columns: operator (its name in the checkpoint), batch_id,
        reason, event_time (of a window its end) and mark (the watermark that refused the row), both UTC, and row, a struct of the columns
        the operator was given. None (default): they are counted only.
    clock
        Where time comes from; for tests.
    """

    mode: str
    checkpoint: str | PathLike[str] | None
    name: str | None
    watermark_policy: str
    no_data_batches: bool
    retain_batches: int
    evolve: bool
    late_rows: str | PathLike[str] | Sink | None
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``QueryOptions``, checked and completed."""

    mode: OutputMode
    checkpoint: str | None
    name: str | None
    watermark_policy: str
    no_data_batches: bool
    retain_batches: int
    evolve: bool
    late_rows: str | Sink | None
    clock: Clock


def settings_of(options: QueryOptions) -> Settings:
    """Return the settings of a query; PlanError for an unknown option or value, naming what is allowed."""
    given: Mapping[str, Any] = options
    for option in given:
        if option not in QueryOptions.__annotations__:
            raise unknown_option(option, QueryOptions.__annotations__)
    retain = given.get("retain_batches", 100)
    if type(retain) is not int or retain < 1:
        msg = f"retain_batches={retain!r} must be a whole number, 1 or more: recovery needs the last batch"
        raise PlanError(msg)
    checkpoint = _typed(given, "checkpoint", (str, os.PathLike), "a folder's path", default=None)
    late_rows = _typed(
        given, "late_rows", (str, PathLike, Sink), "the folder of a Delta table, or a sink such as mb.MemorySink()", default=None
    )
    return Settings(
        mode=OutputMode(_one_of("mode", given.get("mode", "append"), [m.value for m in OutputMode])),
        checkpoint=None if checkpoint is None else os.fspath(checkpoint),
        name=_typed(given, "name", str, "a text", default=None),
        watermark_policy=_one_of("watermark_policy", given.get("watermark_policy", "min"), ["min", "max"]),
        no_data_batches=_typed(given, "no_data_batches", bool, "True or False", default=True),
        retain_batches=retain,
        evolve=_typed(given, "evolve", bool, "True or False", default=False),
        late_rows=os.fspath(late_rows) if isinstance(late_rows, PathLike) else late_rows,
        clock=_typed(given, "clock", Clock, "a Clock", default=None) or SystemClock(),
    )


def make(kind: Callable[..., T], args: Sequence[object], options: Mapping[str, object], *, also: Iterable[str] = ()) -> T:
    """Return the connector ``kind(*args, **options)``; PlanError for an option it does not have, ``also`` being known elsewhere."""
    parameters = list(inspect.signature(kind).parameters.values())
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD][len(args) :]
    if len(known) == len(parameters) - len(args):  # else it takes any name, to refuse it in its own words
        for option in options:
            if option not in known:
                raise unknown_option(option, [*also, *known])
    return kind(*args, **options)


def _typed(given: Mapping[str, Any], option: str, kind: type | tuple[type, ...], wanted: str, *, default: Any) -> Any:
    value = given.get(option, default)
    if value is not default and not isinstance(value, kind):
        msg = f"{option}={value!r} must be {wanted}"
        raise PlanError(msg)
    return value


def _one_of(option: str, value: Any, allowed: list[str]) -> str:
    if value not in allowed:
        msg = f"{option}={value!r} is not known{did_you_mean(str(value), allowed)}; it can be {', '.join(map(repr, allowed))}"
        raise PlanError(msg)
    return str(value)


def unknown_option(name: str, known: Iterable[str]) -> PlanError:
    """Return the error for an option that is not known, with the one that was probably meant."""
    return PlanError(f"unknown option {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name closest to ``name``, empty if none is close."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
