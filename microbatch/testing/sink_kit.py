"""The contract of ``protocols.Sink`` and ``SinkWriter`` as checks that run against any sink.

Give ``check_sink`` a function that makes a fresh *place* (an empty folder, table, topic), or run ``SINK_CHECKS`` one by one, each on a
place of its own. A check raises AssertionError with what was promised and what was seen, or ``NotOwedError`` if the sink does not
promise it.
With pytest::

    @pytest.mark.parametrize("check", SINK_CHECKS, ids=lambda check: check.__name__)
    def test_sink(check, tmp_path):
        try:
            check(make_place(tmp_path))
        except NotOwedError as reason:
            pytest.skip(str(reason))
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.entry_log import CompactibleLog
from microbatch.clock import ManualClock
from microbatch.errors import MicrobatchError, PlanError, SinkError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import EntryLog, Sink, SinkBatch, SinkContext, SinkWriter
from microbatch.testing.assertions import (
    NotOwedError,
    ensure,
    ensure_figures,
    ensure_line,
    ensure_same_rows,
    ensure_type,
    fail,
    owed,
    run_checks,
)
from microbatch.testing.generate import random_rows

DEFAULT_SCHEMA = pl.Schema({"key": pl.Int64(), "name": pl.String(), "amount": pl.Float64(), "at": pl.Datetime("us")})


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkPlace:
    """An empty place for rows, the sink that fills it, and how a reader sees it.

    Parameters
    ----------
    make
        Returns the sink, described anew as after a restart of the process; for a sink that lives in memory the same object each time.
    read
        Returns all rows a reader sees now, in any order, with the columns of ``schema``; no rows if there is nothing yet.
    modes
        The output modes the kit writes in.
    refused
        The output modes the sink must refuse; None: all others.
    upserts
        True if in update mode a row replaces the one with its key; False if it is added.
    schema
        Columns the sink can hold; values are drawn at random.
    keys
        Columns by which a row is replaced, for sinks that upsert.
    folder
        A folder that holds all the sink makes, if there is one: the kit looks whether describing the sink left it alone.
    breaking
        Returns a context in which the outside refuses writes; None if that cannot be arranged.
    extremes
        Share of extreme values, 0 to 1; 0 for sinks that cannot hold NaN or the years 1 and 9999.
    """

    make: Callable[[], Sink]
    read: Callable[[], pl.DataFrame]
    modes: frozenset[OutputMode] = frozenset({OutputMode.APPEND})
    refused: frozenset[OutputMode] | None = None
    upserts: bool = False
    schema: pl.Schema = field(default_factory=lambda: DEFAULT_SCHEMA)
    keys: tuple[str, ...] = ("key",)
    folder: Path | None = None
    breaking: Callable[[], AbstractContextManager[object]] | None = None
    extremes: float = 0.1

    def rows(self, seed: int, n_rows: int = 7, *, keys: pl.DataFrame | None = None) -> pl.DataFrame:
        """Return random rows: with these keys, else with distinct keys that are not null, so there may be fewer than ``n_rows``."""
        drawn = random_rows(_seeded(seed), self.schema, n_rows=n_rows, extreme_share=self.extremes)
        key_types = {key: self.schema[key] for key in self._keys()}
        if not key_types:
            return drawn
        if keys is not None:
            return drawn.with_columns(keys)
        ordinary = random_rows(_seeded(seed), key_types, n_rows=n_rows, null_share=0, extreme_share=0)
        return drawn.with_columns(ordinary).unique(self._keys(), keep="first", maintain_order=True)

    def open(self, mode: OutputMode, query_id: str = "11111111-0000-4000-8000-000000000000") -> SinkWriter:
        """Return a writer of a new run, as the engine opens it."""
        keys = self._keys() if mode is OutputMode.UPDATE else ()
        sink = self.make()
        sink.check(mode, self.schema, keys)
        return sink.open(
            SinkContext(
                query_id=query_id, query_name="kit", mode=mode, schema=self.schema, keys=keys, clock=ManualClock(0), open_log=_open_log
            )
        )

    def adding_mode(self) -> OutputMode:
        """Return a mode in which each batch adds its rows, or NotOwedError."""
        if OutputMode.APPEND in self.modes:
            return OutputMode.APPEND
        if OutputMode.UPDATE in self.modes and not self.upserts:
            return OutputMode.UPDATE
        msg = "the sink takes no mode in which rows are added"
        raise NotOwedError(msg)

    def _keys(self) -> tuple[str, ...]:
        return tuple(key for key in self.keys if key in self.schema)


def check_description_is_one_line(place: SinkPlace) -> None:
    """The description is one line of text and the same each time."""
    ensure_line(place.make().description, place.make().description)


def check_promises_are_stated(place: SinkPlace) -> None:
    """Delivery is a Delivery and durable a bool, the same each time."""
    sink, again = place.make(), place.make()
    ensure_type(sink.delivery, Delivery, "delivery")
    ensure_type(sink.durable, bool, "durable")
    ensure((sink.delivery, sink.durable) == (again.delivery, again.durable), "delivery or durable changed between two descriptions")


def check_describing_touches_nothing(place: SinkPlace) -> None:
    """Making and checking a sink leaves the outside as it was."""
    before = _content(place)
    sink = place.make()
    for mode in sorted(place.modes):
        sink.check(mode, place.schema, place.keys if mode is OutputMode.UPDATE else ())
    ensure(_content(place) == before, "describing or checking the sink changed something outside; only open and write may")
    ensure(place.read().is_empty(), "rows are visible though nothing was written")


def check_other_modes_are_refused(place: SinkPlace) -> None:
    """A mode the sink does not take raises PlanError that names the mode."""
    for mode in sorted(set(OutputMode) - place.modes if place.refused is None else place.refused):
        try:
            place.make().check(mode, place.schema, ())
        except PlanError as refusal:
            ensure(mode.value in str(refusal), f"the refusal of {mode.value} mode must name it: {refusal}")
        else:
            fail(f"check must raise PlanError for {mode.value} mode, which the sink does not take")


def check_opening_shows_no_rows(place: SinkPlace) -> None:
    """Opening, and closing without a batch, shows nothing."""
    writer = place.open(_any_mode(place))
    ensure(place.read().is_empty(), "rows are visible after open, before any batch")
    writer.close()
    ensure(place.read().is_empty(), "rows are visible after close, without any batch")


def check_batch_is_visible_when_write_returns(place: SinkPlace) -> None:
    """When write returns a reader sees all rows of the batch, with their values."""
    rows = place.rows(1)
    place.open(_any_mode(place)).write(_batch(0, rows))
    ensure_same_rows(place.read(), rows, "after the first batch")


def check_batches_add_up(place: SinkPlace) -> None:
    """Batches come one after another, with and without rows, as one chunk or several."""
    writer = place.open(place.adding_mode())
    one, two, three = place.rows(1), place.rows(2), place.rows(3, n_rows=200)
    batches = [one, one.clear(), pl.concat([two, three], rechunk=False), one.clear()]
    for batch_id, rows in enumerate(batches):
        writer.write(_batch(batch_id, rows))
        ensure_same_rows(place.read(), pl.concat(batches[: batch_id + 1]), f"after batch {batch_id}")


def check_first_batch_may_be_empty(place: SinkPlace) -> None:
    """A first batch without rows is taken, and those after it too."""
    writer = place.open(_any_mode(place))
    rows = place.rows(1)
    writer.write(_batch(0, rows.clear()))
    ensure(place.read().is_empty(), "rows are visible after a batch without rows")
    writer.write(_batch(1, rows))
    ensure_same_rows(place.read(), rows, "after a batch without rows and one with rows")


def check_first_batch_may_have_any_id(place: SinkPlace) -> None:
    """A query that had another sink before begins with a later batch."""
    rows = place.rows(1)
    place.open(_any_mode(place)).write(_batch(7, rows))
    ensure_same_rows(place.read(), rows, "after a first batch with id 7")


def check_many_batches_and_restarts(place: SinkPlace) -> None:
    """Twenty-five batches with a restart, without close, after every fourth."""
    mode = place.adding_mode()
    writer, written = place.open(mode), []
    for batch_id in range(25):
        written.append(place.rows(batch_id, n_rows=3))
        writer.write(_batch(batch_id, written[-1]))
        if batch_id % 4 == 3:
            writer = place.open(mode)
            if place.make().delivery is Delivery.EXACTLY_ONCE:
                writer.write(_batch(batch_id, written[-1]))
    ensure_same_rows(place.read(), pl.concat(written), "after 25 batches and 6 restarts")


def check_repeated_batch_changes_nothing(place: SinkPlace) -> None:
    """An exactly-once sink that has the batch ignores it, in the same run and after a crash, whatever its last float bits."""
    mode = _exactly_once(place)
    rows = place.rows(1)
    writer = place.open(mode)
    writer.write(_batch(0, rows))
    writer.write(_batch(0, rows))
    ensure_same_rows(place.read(), rows, "after the same batch came twice in one run")
    restarted = place.open(mode)
    restarted.write(_batch(0, _with_other_float_bits(rows)))
    ensure_same_rows(place.read(), rows, "after the batch came again in a new run, with float sums that differ in their last bits")
    more = place.rows(2)
    restarted.write(_batch(1, more))
    if mode is OutputMode.APPEND:
        ensure_same_rows(place.read(), pl.concat([rows, more]), "after the batch that follows a repeated one")


def check_older_batch_changes_nothing(place: SinkPlace) -> None:
    """An exactly-once sink ignores ids below the last one."""
    mode = _exactly_once(place)
    batches = [place.rows(seed) for seed in range(3)]
    writer = place.open(mode)
    for batch_id, rows in enumerate(batches):
        writer.write(_batch(batch_id, rows))
    before = place.read()
    place.open(mode).write(_batch(1, place.rows(9)))
    ensure_same_rows(place.read(), before, "after batch 1 came again behind batch 2")


def check_other_query_is_not_taken_for_this_one(place: SinkPlace) -> None:
    """Batch 0 of another query is written, or refused with an error; it is never taken for this query's batch 0 and dropped."""
    mode = place.adding_mode()
    first, second = place.rows(1), place.rows(2)
    place.open(mode).write(_batch(0, first))
    try:
        place.open(mode, query_id="22222222-0000-4000-8000-000000000000").write(_batch(0, second))
    except (SinkError, PlanError):
        ensure_same_rows(place.read(), first, "after another query was refused")
        return
    seen = place.read()
    expected = second if seen.height == second.height else pl.concat([first, second])
    ensure_same_rows(seen, expected, "after batch 0 of another query, whose rows must be there, alone or with the first query's")


def check_complete_mode_replaces_the_result(place: SinkPlace) -> None:
    """In complete mode a reader sees the newest batch alone, also if it has no rows."""
    owed(OutputMode.COMPLETE in place.modes, "the sink does not take complete mode")
    writer = place.open(OutputMode.COMPLETE)
    for batch_id, rows in enumerate([place.rows(1), place.rows(2, n_rows=3), place.rows(3).clear(), place.rows(4)]):
        writer.write(_batch(batch_id, rows))
        ensure_same_rows(place.read(), rows, f"after batch {batch_id} in complete mode")


def check_update_mode_replaces_by_key(place: SinkPlace) -> None:
    """In update mode of a sink that upserts, a row replaces the one with its key, and others stay."""
    owed(OutputMode.UPDATE in place.modes and place.upserts, "the sink does not upsert")
    keys = list(place.keys)
    old = place.rows(1, n_rows=9)
    fresh = place.rows(2, n_rows=9).join(old, on=keys, how="anti")
    again = place.rows(3, n_rows=4, keys=old.head(4).select(keys))
    writer = place.open(OutputMode.UPDATE)
    writer.write(_batch(0, old))
    writer.write(_batch(1, pl.concat([again, fresh])))
    ensure_same_rows(place.read(), pl.concat([again, old.slice(4), fresh]), "after an update of four of nine keys and some new ones")
    place.open(OutputMode.UPDATE).write(_batch(1, old))
    ensure_same_rows(place.read(), pl.concat([again, old.slice(4), fresh]), "after a batch that was seen came with older rows")


def check_update_mode_adds_changes(place: SinkPlace) -> None:
    """In update mode of a sink that keeps a changelog, rows with a key it has are added."""
    owed(OutputMode.UPDATE in place.modes and not place.upserts, "the sink does not keep changes")
    rows = place.rows(1)
    writer = place.open(OutputMode.UPDATE)
    writer.write(_batch(0, rows))
    writer.write(_batch(1, rows))
    ensure_same_rows(place.read(), pl.concat([rows, rows]), "after the same changes in two batches")


def check_metrics_are_texts(place: SinkPlace) -> None:
    """Metrics is a mapping of texts, before and after a batch."""
    writer = place.open(_any_mode(place))
    ensure_figures(writer.metrics())
    writer.write(_batch(0, place.rows(1)))
    ensure_figures(writer.metrics())


def check_closed_sink_opens_again(place: SinkPlace) -> None:
    """After close the rows stay and a new run goes on."""
    mode = place.adding_mode()
    first, second = place.rows(1), place.rows(2)
    writer = place.open(mode)
    writer.write(_batch(0, first))
    writer.close()
    ensure_same_rows(place.read(), first, "after close")
    again = place.open(mode)
    again.write(_batch(1, second))
    again.close()
    ensure_same_rows(place.read(), pl.concat([first, second]), "after a second run")


def check_failed_write_shows_nothing(place: SinkPlace) -> None:
    """When the outside refuses, write raises SinkError, nothing of the batch is visible, and the next try works."""
    if place.breaking is None:
        msg = "no way to break the outside was given"
        raise NotOwedError(msg)
    mode = place.adding_mode()
    first, second = place.rows(1), place.rows(2)
    writer = place.open(mode)
    writer.write(_batch(0, first))
    try:
        with place.breaking():
            writer.write(_batch(1, second))
    except SinkError:
        pass
    except MicrobatchError as error:
        fail(f"a failed write must raise SinkError, not {type(error).__name__}: {error}")
    else:
        fail("write must raise SinkError when the outside refuses")
    ensure_same_rows(place.read(), first, "after a write that failed")
    place.open(mode).write(_batch(1, second))
    ensure_same_rows(place.read(), pl.concat([first, second]), "after the failed batch was written again")


def _any_mode(place: SinkPlace) -> OutputMode:
    """Return append mode if the sink takes it, else the first it takes."""
    return next(mode for mode in OutputMode if mode in place.modes)


def _exactly_once(place: SinkPlace) -> OutputMode:
    owed(place.make().delivery is Delivery.EXACTLY_ONCE, "the sink promises at-least-once delivery")
    return _any_mode(place)


def _batch(batch_id: int, rows: pl.DataFrame) -> SinkBatch:
    return SinkBatch(batch_id=batch_id, rows=rows, info={"source": f"up to {batch_id}"})


def _seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a seed is the point


def _with_other_float_bits(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col(pl.Float32, pl.Float64) * (1 + 2**-52))


def _content(place: SinkPlace) -> list[Path]:
    return sorted(place.folder.rglob("*")) if place.folder is not None else []


def _open_log(path: str, every: int) -> EntryLog:
    return CompactibleLog(LocalFolder(path), every)


SINK_CHECKS: tuple[Callable[[SinkPlace], None], ...] = (
    check_description_is_one_line,
    check_promises_are_stated,
    check_describing_touches_nothing,
    check_other_modes_are_refused,
    check_opening_shows_no_rows,
    check_batch_is_visible_when_write_returns,
    check_batches_add_up,
    check_first_batch_may_be_empty,
    check_first_batch_may_have_any_id,
    check_repeated_batch_changes_nothing,
    check_older_batch_changes_nothing,
    check_many_batches_and_restarts,
    check_other_query_is_not_taken_for_this_one,
    check_complete_mode_replaces_the_result,
    check_update_mode_replaces_by_key,
    check_update_mode_adds_changes,
    check_metrics_are_texts,
    check_closed_sink_opens_again,
    check_failed_write_shows_nothing,
)
"""All checks; the names of failing ones say what was promised."""


def check_sink(make_place: Callable[[], SinkPlace]) -> Mapping[str, str]:
    """Run every check on a fresh place and return those not owed, with the reason.

    Raises the first AssertionError, named after its check.
    """
    return run_checks(SINK_CHECKS, make_place)
