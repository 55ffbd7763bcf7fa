"""StreamFrame: a LazyFrame whose rows keep arriving. Verbs build plan nodes; nothing runs until a sink's query does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

import polars as pl

from microbatch.api.group_by import StreamGroupBy, flatten
from microbatch.api.joining import Joined
from microbatch.api.options import QueryOptions, did_you_mean
from microbatch.api.query import Query
from microbatch.api.refused import refused_verb
from microbatch.api.writing import to_sink
from microbatch.clock import SystemClock
from microbatch.durations import Duration, duration_us
from microbatch.errors import PlanError
from microbatch.plan.checks import check_union
from microbatch.plan.explain import explain
from microbatch.plan.names import named
from microbatch.plan.nodes import (
    AssignWindow,
    Deduplicate,
    Limit,
    MapBatches,
    Node,
    RowWise,
    Static,
    Union,
    WithWatermark,
    is_streaming,
)
from microbatch.plan.rowwise import check_row_wise
from microbatch.plan.run import run_bounded
from microbatch.plan.schema import event_times, schema_of
from microbatch.plan.session import SessionWindow
from microbatch.plan.ttl import time_to_live
from microbatch.plan.window import END, START, Window
from microbatch.protocols import Sink

P = ParamSpec("P")
R = TypeVar("R")
IntoExpr = Any  # what Polars takes: an expression, a column name, a literal


class StreamFrame:
    """Rows that keep arriving, with the verbs of ``pl.LazyFrame`` that mean the same on every cut of the rows into batches.

    Expressions are plain ``pl.Expr`` and must be row-wise; whatever looks at other rows (``sum``, ``shift``, ``over``, ``sort`` ...) is
    refused when it is written, with what to write instead. Frames are immutable: a verb returns a new one.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        schema_of(node)  # a verb that does not fit is refused where it is written

    # -- rows and columns -------------------------------------------------------------------------------------------------

    def select(self, *exprs: IntoExpr | Iterable[IntoExpr] | Window, **named_exprs: IntoExpr) -> StreamFrame:
        """Return only these columns; a window stands for the columns ``window_start`` and ``window_end``."""
        return self._project("select", exprs, named_exprs)

    def with_columns(self, *exprs: IntoExpr | Iterable[IntoExpr] | Window, **named_exprs: IntoExpr) -> StreamFrame:
        """Return all columns and these; a window adds ``window_start`` and ``window_end``, each row once per window it is in."""
        return self._project("with_columns", exprs, named_exprs)

    def filter(self, *predicates: IntoExpr | Iterable[IntoExpr], **constraints: Any) -> StreamFrame:
        """Return the rows for which all predicates are true. A filter above a watermark does not hide rows from it."""
        equals = [pl.col(name) == value for name, value in constraints.items()]
        return self._row_wise("filter", *_expressions("filter", [*predicates, *equals]))

    def drop(self, *columns: str | Iterable[str], strict: bool = True) -> StreamFrame:
        """Return all columns but these."""
        return self._row_wise("drop", *columns, strict=strict)

    def rename(self, mapping: Mapping[str, str], *, strict: bool = True) -> StreamFrame:
        """Return the columns under new names, old name to new; event time keeps its watermark."""
        return self._row_wise("rename", dict(mapping), strict=strict)

    def cast(self, dtypes: Mapping[str, Any] | Any, *, strict: bool = True) -> StreamFrame:
        """Return columns cast to other dtypes; with ``strict`` a value that does not fit stops the query, else it becomes null."""
        return self._row_wise("cast", dtypes, strict=strict)

    def explode(self, *columns: str | Sequence[str]) -> StreamFrame:
        """Return one row per element of the list columns; an empty list gives one row with null."""
        return self._row_wise("explode", *columns)

    def unnest(self, *columns: str | Sequence[str]) -> StreamFrame:
        """Return the fields of struct columns as columns."""
        return self._row_wise("unnest", *columns)

    def drop_nulls(self, subset: str | Sequence[str] | None = None) -> StreamFrame:
        """Return the rows without null in these columns (None: in any)."""
        return self._row_wise("drop_nulls", subset)

    def fill_null(self, value: Any) -> StreamFrame:
        """Return nulls replaced by a value or a row-wise expression; filling from other rows (``strategy=``) has no meaning in a batch."""
        if isinstance(value, pl.Expr):
            check_row_wise([value], verb="fill_null")
        return self._row_wise("fill_null", value)

    def map_batches(
        self,
        function: Callable[[pl.DataFrame], pl.DataFrame],
        *,
        row_wise: bool,
        schema: Mapping[str, Any] | None = None,
        keeps: Sequence[str] = (),
        name: str | None = None,
    ) -> StreamFrame:
        """Return the rows ``function`` makes of each piece of the stream.

        Parameters
        ----------
        function
            Takes a frame with this frame's columns, returns one with ``schema``. It sees whatever piece a batch is cut into, may run
            again after a crash, and must give the same rows for the same rows.
        row_wise
            Must be True: your word that each row it returns depends on one row of the input only.
        schema
            The columns it returns; None: the same as it takes.
        keeps
            Columns it passes on untouched, for each row it returns: these stay event time and grouping keys, others do not.
        name
            Identifies the function in ``explain``; default: its own name.
        """
        if row_wise is not True:
            msg = (
                "map_batches(row_wise=False): a function that looks at several rows would give another answer for each cut into batches; "
                "make it row-wise and say so with row_wise=True, or use group_by(...).agg(...) or sink_foreach_batch(function)"
            )
            raise PlanError(msg)
        columns = schema_of(self._node) if schema is None else pl.Schema(schema)
        label = name or str(getattr(function, "__qualname__", type(function).__qualname__))
        if changed := [c for c in keeps if columns.get(c) != schema_of(self._node).get(c)]:
            msg = f"map_batches(keeps={list(keeps)}): {changed} are not the same columns before and behind the function"
            raise PlanError(msg)
        return StreamFrame(MapBatches(input=self._node, function=function, schema=columns, name=label, keeps=tuple(keeps)))

    # -- time -------------------------------------------------------------------------------------------------------------

    def with_watermark(self, column: str, delay: Duration) -> StreamFrame:
        """Return the same rows, with ``column`` as their event time, and rows up to ``delay`` behind the latest one still counted.

        The watermark is the largest event time of all batches so far less ``delay``; it is used from the next batch on and never
        moves back (Spark: Dataset.withWatermark).

        Raises
        ------
        PlanError
            No such column; not a Datetime; the delay is negative; the rows have a watermark already.
        """
        schema = schema_of(self._node)
        delay_us = duration_us(delay, what="watermark delay")
        if delay_us < 0:
            msg = f"watermark delay={delay!r} sums up to less than zero; rows cannot be required to come before their time"
            raise PlanError(msg)
        if column not in schema:
            msg = f"with_watermark: no column {column!r}{did_you_mean(column, schema)}; the stream has {dict(schema)}"
            raise PlanError(msg)
        if not isinstance(schema[column], pl.Datetime):
            msg = (
                f"with_watermark: {column!r} is {schema[column]}, event time must be a Datetime; "
                f"cast it: .with_columns(pl.col({column!r}).cast(pl.Datetime('us')))"
            )
            raise PlanError(msg)
        if existing := event_times(self._node):
            msg = f"with_watermark({column!r}): the rows carry a watermark on {list(existing)} already; a stream has one event time"
            raise PlanError(msg)
        return StreamFrame(WithWatermark(input=self._node, column=column, delay_us=delay_us))

    def group_by(self, *keys: str | pl.Expr | Window | SessionWindow, **named_keys: pl.Expr) -> StreamGroupBy:
        """Return groups to aggregate with ``.agg(...)``.

        Keys are columns, row-wise expressions, and at most one ``mb.window(...)`` or ``mb.session_window(...)``.
        """
        return StreamGroupBy(self._node, keys, named_keys)

    # -- several frames ---------------------------------------------------------------------------------------------------

    def union(self, *others: StreamFrame) -> StreamFrame:
        """Return the rows of all frames; they must have the same columns and dtypes. Rows of a batch stand in the order of the frames."""
        inputs = (self._node, *(other._node for other in others))
        check_union(inputs)
        return StreamFrame(Union(inputs=inputs))

    def join(
        self,
        other: StreamFrame | pl.LazyFrame | pl.DataFrame,
        on: str | pl.Expr | Sequence[str | pl.Expr] | None = None,
        how: str = "inner",
        *,
        left_on: str | pl.Expr | Sequence[str | pl.Expr] | None = None,
        right_on: str | pl.Expr | Sequence[str | pl.Expr] | None = None,
        suffix: str = "_right",
        nulls_equal: bool = False,
        coalesce: bool | None = None,
        where: pl.Expr | None = None,
        within: Duration | None = None,
        name: str | None = None,
    ) -> StreamFrame:
        """Return this frame joined with a bounded one or with another stream, as ``pl.LazyFrame.join`` does.

        With a bounded frame ``how`` is inner, left, semi, anti with the stream on the left; inner, right with the stream on the right. That
        side is read anew in each batch; if it changes while the query runs, rows join with what it was in their batch.

        With a stream ``how`` is inner, left, right, full, semi or anti. Both sides keep rows until the watermark says that they can meet no
        more, by event time among the keys or in the condition; without either for ever, which only inner joins may. A row that met none
        comes out when that is certain (Spark: stream-stream join; the anti join is our own). For two streams only:

        ``where`` must hold of a pair besides the keys, over the columns of both sides; right columns of a name that the left has too carry
        the suffix. A range between the event times, such as ``pl.col("click_at").is_between(pl.col("seen_at"), pl.col("seen_at") +
        pl.duration(hours=1))``, bounds the state. ``within``: the event times are at most so far apart, inclusive. ``name`` identifies
        the state in the checkpoint. Raises PlanError, saying what to write, if the sides do not fit or a row might wait for ever.
        """
        right = other._node if isinstance(other, StreamFrame) else Static(frame=other.lazy())
        given = Joined(
            left=self._node, right=right, how=how, on=on, left_on=left_on, right_on=right_on, suffix=suffix, nulls_equal=nulls_equal,
            coalesce=coalesce,
        )  # fmt: skip
        return StreamFrame(given.node(where, within, name))

    # -- rows that depend on rows before ----------------------------------------------------------------------------------

    def unique(
        self,
        subset: str | Sequence[str] | None = None,
        *,
        keep: str = "first",
        within_watermark: bool = False,
        ttl: Duration | None = None,
        ttl_time: str | None = None,
        name: str | None = None,
    ) -> StreamFrame:
        """Return the first row of each distinct value of the columns (None: of all), over the stream's life.

        If the rows have a watermark, late rows are dropped. If event time is among the columns, a value is forgotten when the watermark
        has passed it; else the state grows with the distinct values. With ``within_watermark`` a value is forgotten when the watermark has
        passed the time of its first row by the watermark's delay (Spark: dropDuplicatesWithinWatermark): for repeats that come close to
        each other, in bounded state.

        With ``ttl`` a value is forgotten so long after its first row: by ``ttl_time="event"`` (the default with a watermark) when
        the watermark gets there, by ``"processing"`` with the time of batches. ``name`` identifies the state in the checkpoint.
        """
        if keep not in ("first", "any"):
            msg = f'unique(keep={keep!r}): a stream can only keep the first row of each value, the last is never known; use keep="first"'
            raise PlanError(msg)
        columns = [subset] if isinstance(subset, str) else list(subset) if subset is not None else self.columns
        if missing := [c for c in columns if c not in schema_of(self._node)]:
            msg = f"unique: no columns {missing}{did_you_mean(missing[0], self.columns)}; the stream has {dict(schema_of(self._node))}"
            raise PlanError(msg)
        kept = time_to_live(ttl, ttl_time, verb="unique", has_event_time=bool(event_times(self._node)))
        if kept is not None and within_watermark:
            msg = f"unique(ttl={ttl!r}, within_watermark=True): both say how long a value counts; give one of them"
            raise PlanError(msg)
        return StreamFrame(Deduplicate(input=self._node, keys=tuple(columns), within_watermark=within_watermark, name=name, ttl=kept))

    def limit(self, n: int, *, name: str | None = None) -> StreamFrame:
        """Return the first ``n`` rows of the stream's life; above an aggregation in ``mode="complete"``, of each result."""
        if n < 0:
            msg = f"limit({n}) must be 0 or more"
            raise PlanError(msg)
        return StreamFrame(Limit(input=self._node, n=n, name=name))

    def named(self, name: str) -> StreamFrame:
        """Return the same rows, the stateful verb just written (``agg``, ``unique``, ``limit``, ...) known by ``name`` in the checkpoint.

        The name keeps the state with its operator when others come and go; see also ``mb.read_state``. Raises PlanError if the last verb
        keeps no state, or the name is no word of letters, digits, ``_``, ``-`` and ``.``.
        """
        return StreamFrame(named(self._node, name))

    def sort(self, by: Any, *more_by: Any, descending: bool | Sequence[bool] = False, nulls_last: bool = False) -> StreamFrame:
        """Return the rows in order; only over an aggregation in ``mode="complete"``, where a batch holds the whole result."""
        return StreamFrame(
            RowWise(input=self._node, verb="sort", args=(by, *more_by), options={"descending": descending, "nulls_last": nulls_last})
        )

    # -- where rows go: each returns a Query that describes the work and starts nothing ------------------------------------

    def sink_delta(self, table: str | PathLike[str], **options: Any) -> Query:
        """Return a query into a Delta table, exactly once. In update mode rows replace those with the same grouping keys.

        Options of the sink: ``microbatch.sinks.delta.DeltaSink`` (``partition_by``, ``merge_schema``, ``on``, ...); of the query:
        ``QueryOptions``.
        """
        return to_sink("sink:delta", self._node, (table,), options)

    def sink_files(self, path: str | PathLike[str], **options: Any) -> Query:
        """Return a query into a folder of parquet, csv, ndjson or ipc files, exactly once; append mode, or update as a changelog.

        Options of the sink: ``microbatch.sinks.files.FileSink`` (``format``, ``partition_by``, ``changelog``, ...); of the query:
        ``QueryOptions``.
        """
        return to_sink("sink:files", self._node, (path,), options)

    def sink_memory(self, into: Any, **options: Unpack[QueryOptions]) -> Query:
        """Return a query into ``into``, an ``mb.MemorySink()``."""
        return to_sink(into, self._node, (), dict(options))

    def sink_console(self, **options: Any) -> Query:
        """Return a query that prints each batch. Options of the sink: ``rows``, ``truncate``; of the query: ``QueryOptions``."""
        return to_sink("sink:console", self._node, (), options)

    def sink_foreach_batch(self, function: Callable[[pl.DataFrame, int], object], **options: Unpack[QueryOptions]) -> Query:
        """Return a query that hands each batch to ``function(rows, batch_id)``, at least once.

        After a crash the last batch comes again with the same id and the same rows: use the id to recognise it.
        """
        return to_sink("sink:foreach_batch", self._node, (function,), dict(options))

    def sink_to(self, sink: Sink, **options: Unpack[QueryOptions]) -> Query:
        """Return a query into a sink of your own (``microbatch.protocols.Sink``)."""
        return to_sink(sink, self._node, (), dict(options))

    # -- looking ----------------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> Node:
        """The plan as nodes, for tools that look into it."""
        return self._node

    @property
    def is_streaming(self) -> bool:
        """True if rows keep arriving."""
        return is_streaming(self._node)

    def collect_schema(self) -> pl.Schema:
        """Return the columns and their dtypes."""
        return schema_of(self._node)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return schema_of(self._node).names()

    def explain(self) -> str:
        """Return the plan as text, the last verb on top."""
        return explain(self._node)

    def as_batch(self) -> pl.LazyFrame:
        """Return the same verbs over all input there is now, as one plain Polars query: what the stream will have given in the end."""
        return run_bounded(self._node, schema_of, SystemClock().now_us())

    def pipe(self, function: Callable[Concatenate[StreamFrame, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return ``function(self, ...)``, so that steps read from top to bottom."""
        return function(self, *args, **kwargs)

    def __repr__(self) -> str:
        """Return the plan as text."""
        return f"StreamFrame\n{self.explain()}"

    def __getattr__(self, name: str) -> Any:
        """Raise PlanError for verbs of ``pl.LazyFrame`` that have no meaning on a stream, saying what to write instead."""
        raise refused_verb(name, type(self))

    # -- private ----------------------------------------------------------------------------------------------------------

    def _row_wise(self, verb: str, *args: object, **options: object) -> StreamFrame:
        return StreamFrame(RowWise(input=self._node, verb=verb, args=args, options=options))

    def _project(self, verb: str, exprs: Sequence[Any], named: Mapping[str, Any]) -> StreamFrame:
        if any(isinstance(e, SessionWindow) for e in exprs):
            msg = f"{verb}: a row does not know its session alone: session_window belongs into group_by(...); mb.window(...) may stand here"
            raise PlanError(msg)
        windows = [e for e in exprs if isinstance(e, Window)]
        plain = [e for e in exprs if not isinstance(e, Window)]
        if not windows:
            return self._row_wise(verb, *_expressions(verb, plain, named))
        if len(windows) > 1:
            msg = f"{verb} has {len(windows)} windows; a row gets one pair window_start, window_end: keep one window"
            raise PlanError(msg)
        # Other expressions first: they may read columns that a window's bounds would replace.
        computed = self._row_wise("with_columns", *_expressions(verb, plain, named)) if plain or named else self
        placed = StreamFrame(AssignWindow(input=computed._node, window=windows[0], names=(START, END)))
        if verb == "with_columns":
            return placed
        wanted = [c for e in exprs for c in ([START, END] if isinstance(e, Window) else _names(self, _expressions(verb, [e])))]
        return placed._row_wise("select", *map(pl.col, [*wanted, *named]))


def _names(frame: StreamFrame, exprs: Sequence[pl.Expr]) -> list[str]:
    return pl.LazyFrame(schema=frame.collect_schema()).select(exprs).collect_schema().names()


def _expressions(verb: str, exprs: Iterable[Any], named: Mapping[str, Any] | None = None) -> list[pl.Expr]:
    """Return what the user wrote as expressions, refusing those that look at other rows."""
    parsed = [_expression(e) for e in flatten(exprs)]
    parsed += [_expression(e).alias(name) for name, e in (named or {}).items()]
    check_row_wise(parsed, verb=verb)
    return parsed


def _expression(value: Any) -> pl.Expr:
    if isinstance(value, pl.Expr):
        return value
    return pl.col(value) if isinstance(value, str) else pl.lit(value)
