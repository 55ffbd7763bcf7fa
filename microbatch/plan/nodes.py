"""What the user asked, as immutable nodes. They hold expressions, so they compare by identity; compare plans by ``fingerprint``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import polars as pl

from microbatch.model import OutputMode
from microbatch.plan.keyed_state import StateFunction, TimeMode
from microbatch.plan.session import SessionWindow
from microbatch.plan.ttl import TimeToLive
from microbatch.plan.window import Window
from microbatch.protocols import Source


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Scan:
    """Rows that arrive from a source."""

    source: Source


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Static:
    """Rows that are there: a bounded frame."""

    frame: pl.LazyFrame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class RowWise:
    """A verb of ``pl.LazyFrame`` that looks at one row at a time."""

    input: Node
    verb: str
    args: tuple[object, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class MapBatches:
    """A user's function over frames, declared to be row-wise and to pass the columns ``keeps`` on untouched."""

    input: Node
    function: Callable[[pl.DataFrame], pl.DataFrame]
    schema: pl.Schema
    name: str
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class WithWatermark:
    """Declares the event time and how late a row may come and still count."""

    input: Node
    column: str
    delay_us: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class AssignWindow:
    """Each row once per window it is in, with the window's bounds in the two columns of ``names``."""

    input: Node
    window: Window
    names: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class AssignSession:
    """Each row that is in a session, with the bounds of the interval it opens by itself in the two columns of ``names``."""

    input: Node
    session: SessionWindow
    names: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Union:
    """The rows of all inputs, which have the same columns."""

    inputs: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class JoinStatic:
    """A join of which one side is bounded; ``options`` are those of ``pl.LazyFrame.join``."""

    left: Node
    right: Node
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class JoinStreams:
    """A join of two streams by equal keys and ``where``, a condition over the columns of both sides.

    ``keys`` are pairs of expressions, one of each side. Right columns of a name that the left has too carry ``suffix``: in ``where``
    always, in the result as ``pl.LazyFrame.join`` has it. ``name`` is the user's, or None.
    """

    left: Node
    right: Node
    how: str
    keys: tuple[tuple[pl.Expr, pl.Expr], ...]
    where: pl.Expr | None
    suffix: str
    nulls_equal: bool
    coalesce: bool | None
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Aggregate:
    """One row per distinct value of the key columns; ``aggs`` are ordinary Polars aggregations. ``name`` is the user's, or None.

    ``session`` names two of the keys that are the bounds of an interval: those of equal other keys that overlap or touch become one.
    ``ttl`` is counted from the last row of a group.
    """

    input: Node
    keys: tuple[str, ...]
    aggs: tuple[pl.Expr, ...]
    name: str | None
    session: tuple[str, str] | None = None
    ttl: TimeToLive | None = None

    @property
    def plain_keys(self) -> tuple[str, ...]:
        """The keys without the bounds of a session."""
        return tuple(k for k in self.keys if k not in (self.session or ()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Deduplicate:
    """The first row of each distinct value of the key columns, ever or within the watermark's delay. ``name`` is the user's, or None.

    ``ttl`` is counted from the first row of a value.
    """

    input: Node
    keys: tuple[str, ...]
    within_watermark: bool
    name: str | None
    ttl: TimeToLive | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Limit:
    """The first ``n`` rows: of each result above an aggregation in complete mode, else of the stream's life."""

    input: Node
    n: int
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class MapState:
    """Rows a user's function makes of each batch and of what it keeps per key; ``label`` names the function.

    ``state`` are the variables and ``output`` the columns behind the keys; ``ttl_us`` has the variables that expire. ``timeout`` is the
    older kind of timers (one a key, cleared by data), ``timers`` the newer (any number); None: no such timers, and never both.
    ``output_mode`` UPDATE: a later row of a key replaces the earlier; None: as the query has it. ``watermarked``: there is a watermark.
    ``event_time`` is the column of ``output`` that has it, None: no column.
    """

    input: Node
    keys: tuple[str, ...]
    function: StateFunction
    label: str
    state: pl.Schema
    output: pl.Schema
    ttl_us: Mapping[str, int]
    timeout: TimeMode | None
    timers: TimeMode | None
    output_mode: OutputMode | None
    initial: pl.DataFrame | None
    watermarked: bool
    name: str | None
    event_time: str | None = None

    @property
    def judges_time(self) -> bool:
        """True if it drops late rows."""
        return self.time is TimeMode.EVENT or self.event_time is not None

    @property
    def time(self) -> TimeMode | None:
        """By which time its timers fire, None if it has none."""
        return self.timeout or self.timers


StatefulNode: TypeAlias = JoinStreams | Aggregate | Deduplicate | Limit | MapState
Node: TypeAlias = Scan | Static | RowWise | MapBatches | WithWatermark | AssignWindow | AssignSession | Union | JoinStatic | StatefulNode


def inputs_of(node: Node) -> tuple[Node, ...]:
    """Return the nodes a node reads, in order."""
    match node:
        case Scan() | Static():
            return ()
        case Union():
            return node.inputs
        case JoinStatic() | JoinStreams():
            return (node.left, node.right)
        case _:
            return (node.input,)


def walk(node: Node) -> list[Node]:
    """Return all nodes below and including ``node``, inputs first; a node used twice stands in the list twice."""
    return [below for child in inputs_of(node) for below in walk(child)] + [node]


def sources_of(node: Node) -> list[Source]:
    """Return each distinct source once, in plan order: the order of the offset log's lines."""
    return list({id(n.source): n.source for n in walk(node) if isinstance(n, Scan)}.values())


def is_streaming(node: Node) -> bool:
    """Return True if rows keep arriving."""
    return any(isinstance(n, Scan) for n in walk(node))
