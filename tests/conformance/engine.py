"""The engine as the runner sees it: what is missing turns into "not supported" here, and nowhere else."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

import microbatch as mb
from microbatch.durations import duration_us
from microbatch.errors import MicrobatchError, PlanError
from tests.conformance.report import NotSupportedError

UTC_TIME = pl.Datetime("us")

DTYPES: dict[str, pl.DataType] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "str": pl.String(),
    "bool": pl.Boolean(),
    "ts": UTC_TIME,
    "timestamp": UTC_TIME,
    "bytes": pl.Binary(),
    "list<int>": pl.List(pl.Int64()),
}


def feature(owner: Any, *names: str) -> Any:
    """Return the first attribute that ``owner`` has of ``names``; NotSupportedError, naming it, if it has none.

    A verb the engine refuses on purpose counts as missing; the refusal is the error's cause.
    """
    refusal: Exception | None = None
    for name in names:
        try:
            return getattr(owner, name)
        except PlanError as refused:
            refusal = refusal or refused
        except (AttributeError, ImportError):
            continue
    where = "microbatch" if owner is mb else type(owner).__name__
    msg = f"{where}.{names[0]}"
    raise NotSupportedError(msg) from refusal


def parameter(function: Callable[..., Any], *names: str) -> str | None:
    """Return the first of ``names`` that is a parameter of ``function``, None if none is."""
    known = inspect.signature(function).parameters
    return next((name for name in names if name in known), None)


def streams(frame: Any) -> bool:
    """Return True if the rows of a frame keep arriving."""
    return bool(frame.is_streaming)


def schema(columns: Mapping[str, str]) -> dict[str, pl.DataType]:
    """Return the dtypes of a case's columns."""
    unknown = sorted(set(columns.values()) - set(DTYPES))
    if unknown:
        msg = f"column type {unknown[0]}"
        raise NotSupportedError(msg)
    return {name: DTYPES[kind] for name, kind in columns.items()}


def frame(rows: Sequence[Sequence[Any]], columns: Mapping[str, str], *, per_second: int = 1) -> pl.DataFrame:
    """Return a case's rows as a frame; times are in units of 1/``per_second`` s since 1970, UTC."""
    dtypes = schema(columns)
    raw = {
        name: pl.Float64() if kind == "float" else pl.Int64() if kind in ("ts", "timestamp") else dtypes[name]
        for name, kind in columns.items()
    }
    times = [pl.col(n) * (1_000_000 // per_second) for n, kind in columns.items() if kind in ("ts", "timestamp")]
    return pl.DataFrame([list(r) for r in rows], schema=raw, orient="row").with_columns(times).cast(pl.Schema(dtypes))


def duration(text: str) -> pl.Expr:
    """Return a fixed length of time as an expression."""
    return pl.duration(microseconds=duration_us(text.replace("interval ", "")))


def duration_of(text: pl.Expr) -> pl.Expr:
    """Return lengths of time from texts of a number and a unit, such as "10 seconds"; null where a text is none."""
    parts = text.str.extract_groups(r"^\s*(-?\d+)\s*([a-z]+?)s?\s*$")
    units = {"millisecond": 1_000, "second": 1_000_000, "minute": 60_000_000, "hour": 3_600_000_000, "day": 86_400_000_000}
    factor = parts.struct.field("2").replace_strict(units, default=None, return_dtype=pl.Int64)
    return pl.duration(microseconds=parts.struct.field("1").cast(pl.Int64) * factor)


def newest_entry(checkpoint: Path, log: str) -> dict[str, Any] | None:
    """Return the JSON object in the newest entry of ``offsets`` or ``commits``, None if there is none."""
    ids = log_ids(checkpoint, log)
    if not ids:
        return None
    found: dict[str, Any] = json.loads((checkpoint / log / str(ids[-1])).read_text().splitlines()[1])
    return found


def log_ids(checkpoint: Path, log: str) -> list[int]:
    """Return the batch ids present in ``offsets`` or ``commits``."""
    folder = checkpoint / log
    return sorted(int(f.name) for f in folder.iterdir() if f.is_file() and f.name.isdigit()) if folder.is_dir() else []


def next_watermark_ms(checkpoint: Path) -> int | None:
    """Return the watermark the next batch would use, milliseconds; None if no event time was seen."""
    commit, offsets = newest_entry(checkpoint, "commits"), newest_entry(checkpoint, "offsets")
    known = [
        us // 1_000
        for entry, field in ((commit, "nextWatermarkUs"), (offsets, "evictionUs"))
        if entry and (us := entry.get("microbatch", {}).get(field)) is not None
    ]
    return max(known, default=None)


_LACKING = re.compile(r"not (yet )?(supported|implemented|built|installed)")


def is_lacking(error: BaseException) -> bool:
    """Return True if a refusal says that the engine cannot do this (yet), not that it must not be done."""
    return _LACKING.search(str(error)) is not None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, outermost first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def told_on_purpose(error: BaseException) -> bool:
    """Return True if the innermost cause is one of the engine's own errors: it failed because it decided to."""
    return isinstance(list(causes(error))[-1], MicrobatchError)
