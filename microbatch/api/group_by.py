"""group_by on a stream: keys and windows become columns, aggregates stay ordinary Polars expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import polars as pl

from microbatch.api.map_state import StateOptions, map_state_node
from microbatch.durations import Duration
from microbatch.errors import PlanError
from microbatch.plan.batch_time import asks_time
from microbatch.plan.nodes import Aggregate, AssignSession, AssignWindow, Node, RowWise
from microbatch.plan.rowwise import check_row_wise
from microbatch.plan.schema import event_times, schema_of
from microbatch.plan.session import SessionWindow
from microbatch.plan.ttl import TimeToLive, time_to_live
from microbatch.plan.window import END, START, Window

if TYPE_CHECKING:
    from microbatch.api.stream_frame import StreamFrame


class StreamGroupBy:
    """Groups of a stream; ``agg`` makes rows of them."""

    def __init__(self, node: Node, keys: Sequence[str | pl.Expr | Window | SessionWindow], named_keys: Mapping[str, pl.Expr]) -> None:
        flat = flatten(keys)
        self._input = node
        self._renamed: dict[str, str] = {}
        self._session = (START, END) if any(isinstance(key, SessionWindow) for key in flat) else None
        names = [name for key in flat for name in self._add_key(key)]
        names += [name for alias, key in named_keys.items() for name in self._add_key(key.alias(alias))]
        if len(set(names)) < len(names):
            msg = f"group_by names a key twice: {names}"
            raise PlanError(msg)
        if self._session is not None and len(names) == 2:
            msg = (
                "group_by needs a key beside session_window: sessions are those of a user, a device ...; for the sessions of all rows "
                "together group by a constant too: pl.lit(0).alias('all')"
            )
            raise PlanError(msg)
        self._keys = tuple(names)

    def _add_key(self, key: str | pl.Expr | Window | SessionWindow) -> list[str]:
        """Make the key a column of the input and return its name."""
        if isinstance(key, Window):
            self._input = AssignWindow(input=self._input, window=key, names=(START, END))
            return [START, END]
        if isinstance(key, SessionWindow):
            self._input = AssignSession(input=self._input, session=key, names=(START, END))
            return [START, END]
        expression = pl.col(key) if isinstance(key, str) else key
        check_row_wise([expression], verb="group_by")
        names = _output_names(expression, self._input)
        if expression.meta.is_column_selection():
            return names
        return [self._add_expression(expression, names[0])]

    def _add_expression(self, expression: pl.Expr, name: str) -> str:
        # Under another name if a column of that name stands there, for the aggregates mean that column.
        inner = f"__key_{name}" if name in schema_of(self._input) else name
        if inner != name:
            self._renamed[inner] = name
        self._input = RowWise(input=self._input, verb="with_columns", args=(expression.alias(inner),))
        return inner

    def agg(
        self,
        *aggs: pl.Expr | Iterable[pl.Expr],
        name: str | None = None,
        ttl: Duration | None = None,
        ttl_time: str | None = None,
        on_expiry: str = "forget",
        **named_aggs: pl.Expr,
    ) -> StreamFrame:
        """Return one row per group: its keys, then the aggregates; without aggregates, the distinct keys.

        Integer sums are Int64, and past 64 bits an error. Exact quantiles, medians, ``n_unique`` and ``implode`` keep every (distinct)
        value of a group in the state. ``name`` identifies the state in the checkpoint.

        Parameters
        ----------
        ttl
            Forget a group that got no row for so long, in update and complete mode, where the keys hold no event time: the next row of the
            group begins it anew. ``as_batch`` forgets nothing.
        ttl_time
            What ``ttl`` is counted by. ``"event"`` (the default if the rows have a watermark): from the largest event time of the group to
            the watermark; a row that far behind the watermark by itself is late, a group without any time is kept. ``"processing"``: from
            the time of the last batch with a row of the group to that of the present batch.
        on_expiry
            ``"forget"``, or ``"emit"``: a forgotten group is put out once more, as it was; a Boolean column ``expired`` tells such rows.

        Raises
        ------
        PlanError
            An expression that cannot be kept up to date batch by batch; the message names it and what to write instead; ``mb.batch_time()``
            is one. A ``ttl`` of groups that the watermark closes, or of the one group without keys.
        """
        from microbatch.api.stream_frame import StreamFrame

        exprs: tuple[pl.Expr, ...] = (*flatten(aggs), *(expr.alias(alias) for alias, expr in named_aggs.items()))
        _check_timeless(exprs)
        kept = self._time_to_live(ttl, ttl_time, on_expiry)
        node: Node = Aggregate(input=self._input, keys=self._keys, aggs=exprs, name=name, session=self._session, ttl=kept)
        if kept is not None and (not self._keys or event_times(node)):
            whole = f"the keys {list(event_times(node))} are closed by the watermark" if self._keys else "without keys there is one group"
            msg = f"agg(ttl={ttl!r}): {whole}, so nothing is left to forget; leave ttl out"
            raise PlanError(msg)
        if self._renamed:
            schema_of(node)
            node = RowWise(input=node, verb="rename", args=(dict(self._renamed),))
        return StreamFrame(node)

    def _time_to_live(self, ttl: Duration | None, clock: str | None, on_expiry: str) -> TimeToLive | None:
        if on_expiry not in ("forget", "emit"):
            msg = f'agg: on_expiry={on_expiry!r} must be "forget" or "emit"'
            raise PlanError(msg)
        has_event_time = bool(event_times(self._input))
        return time_to_live(ttl, clock, verb="agg", has_event_time=has_event_time, emits=on_expiry == "emit")

    def len(self, name: str = "len") -> StreamFrame:
        """Return the number of rows of each group, UInt32, in a column of that name."""
        return self.agg(pl.len().alias(name))

    def map_state(self, function: Callable[..., Any], **options: Unpack[StateOptions]) -> StreamFrame:
        """Return the rows ``function`` makes of each key's rows and of what it keeps for the key: the keys, then ``output_schema``.

        (Spark: transformWithState, flatMapGroupsWithState.) ``function(key, rows, state)`` is called once for each key of a batch with a
        tuple, a list of named tuples with all columns, and a ``mb.KeyState``; then once for each timer of a key that is due, without rows.
        It returns a tuple with the columns of ``output_schema``, a list of them, or None. With ``vectorised=True`` ``function(batch)`` is
        called once a batch with a ``mb.StateBatch`` and returns a ``mb.StateChange``: frames of all keys at once, much faster for many.

        It must give the same result when a batch runs again with the same rows and state: no clock, no random numbers, nothing kept
        elsewhere; ``state.batch_time_us`` is the time. If it raises, the query stops, and nothing it changed in that batch counts.
        ``as_batch()`` calls it once per key with all rows and no state; timers that are set do not fire there.

        Options are those of ``StateOptions``; PlanError for what does not fit. In a batch DataError if the function raises, PlanError if
        its result is not as declared; both name key and batch.

        Examples
        --------
        >>> import microbatch as mb, polars as pl
        >>> def visits(key, rows, state):
        ...     count = state["count"].get(0) + len(rows)
        ...     state["count"].update(count)
        ...     return (count, rows[-1].page)
        >>> clicks, out = mb.MemoryStream({"user": pl.String, "page": pl.String}), mb.MemorySink()
        >>> counted = clicks.frame().group_by("user").map_state(
        ...     visits, state_schema={"count": pl.Int64}, output_schema={"visits": pl.Int64, "last": pl.String}
        ... )
        >>> handle = counted.sink_memory(out, mode="update").start()
        >>> for pages in (["/a", "/b"], ["/c"]):
        ...     _ = clicks.add({"user": ["ann"] * len(pages), "page": pages})
        ...     handle.process_all_available()
        >>> handle.stop()
        >>> out.rows().rows()
        [('ann', 2, '/b'), ('ann', 3, '/c')]
        """
        from microbatch.api.stream_frame import StreamFrame

        if self._session is not None:
            msg = "map_state: a session is no key to keep state by, it grows while rows come; set a timeout to the gap instead"
            raise PlanError(msg)
        if self._renamed:
            key = next(iter(self._renamed.values()))
            msg = f"map_state: the key {key!r} is computed, and called like another column; give it another name"
            raise PlanError(msg)
        return StreamFrame(map_state_node(self._input, self._keys, function, options))


def _check_timeless(exprs: Sequence[pl.Expr]) -> None:
    if asks_time(exprs):
        msg = (
            "agg: mb.batch_time() differs by batch, and a group is put together from several; "
            "write .with_columns(now=mb.batch_time()) before group_by"
        )
        raise PlanError(msg)


def flatten(items: Iterable[Any]) -> list[Any]:
    """Return the items, those of lists and tuples one by one: verbs take ``f(a, b)`` and ``f([a, b])`` alike."""
    return [one for item in items for one in (item if isinstance(item, (list, tuple)) else [item])]


def _output_names(expression: pl.Expr, node: Node) -> list[str]:
    try:
        return pl.LazyFrame(schema=schema_of(node)).select(expression).collect_schema().names()
    except pl.exceptions.PolarsError as cause:
        msg = f"group_by: {str(cause).splitlines()[0]}; the stream has {dict(schema_of(node))}"
        raise PlanError(msg) from cause
