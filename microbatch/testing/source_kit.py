"""The contract of ``protocols.Source`` and ``SourceReader`` as checks that run against any source.

Give ``check_source`` a function that makes a fresh *place* (an empty folder, table, topic) whose rows the kit lets arrive, or run
``SOURCE_CHECKS`` one by one, each on a place of its own. A check raises AssertionError with what was promised and what was seen, or
``NotOwedError`` if the source does not promise it. ``sink_kit`` shows how to run them with pytest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import polars as pl

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.entry_log import CompactibleLog
from microbatch.clock import ManualClock
from microbatch.model import Offset
from microbatch.protocols import Clock, EntryLog, Folder, Source, SourceContext, SourceReader
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

_MOST_BATCHES = 1_000
_PARTS: Mapping[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    "the last column": lambda frame: frame.select(pl.nth(-1)),
    "the first two rows": lambda frame: frame.head(2),
    "the second row": lambda frame: frame.slice(1, 1),
    "the rows that pass a filter": lambda frame: frame.filter(pl.nth(-1).is_not_null()).select(pl.first()),
    "the number of rows": lambda frame: frame.select(pl.len()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlace:
    """A place where rows arrive when the kit says so, and the source that reads them.

    Parameters
    ----------
    make
        Returns the source without read limits, described anew as after a restart of the process; for a source that lives in memory the same
        object each time.
    arrive
        Lets the k-th arrival happen, k = 0, 1, ..., and returns its rows, at least one; None if only the source knows them (a clock that
        moves on). Whatever it takes to be seen by the next ``latest_offset`` is done when it returns.
    checkpoint
        An empty folder for what readers keep.
    limited
        Returns the source with a read limit that three arrivals go beyond; None if it has no limits.
    clock
        The clock of ``SourceContext``.
    begins_empty
        True if there is nothing before the first arrival.
    reads_all
        False if ``read_all`` cannot be compared with what arrived.
    """

    make: Callable[[], Source]
    arrive: Callable[[int], pl.DataFrame | None]
    checkpoint: Path
    limited: Callable[[], Source] | None = None
    clock: Clock = field(default_factory=ManualClock)
    begins_empty: bool = True
    reads_all: bool = True

    def open(self, query: str = "a", *, source: Source | None = None) -> SourceReader:
        """Return a reader of a new run; readers of one ``query`` share what they keep."""
        folder = LocalFolder(self.checkpoint / query / "sources" / "0")
        return (source or self.make()).open(SourceContext(folder=folder, clock=self.clock, open_log=_open_log))

    def open_limited(self, query: str = "a") -> SourceReader:
        """Return a reader of a new run that obeys a read limit, or NotOwedError."""
        if self.limited is None:
            msg = "the source has no read limit"
            raise NotOwedError(msg)
        return self.open(query, source=self.limited())


def check_description_is_one_line(place: SourcePlace) -> None:
    """The description is one line of text and the same each time."""
    ensure_line(place.make().description, place.make().description)


def check_schema_stays(place: SourcePlace) -> None:
    """The schema is the same each time it is asked, also after more rows arrived, and that of the rows."""
    place.arrive(0)
    source = place.make()
    schema = source.schema()
    ensure_type(schema, pl.Schema, "schema()")
    place.arrive(1)
    ensure(source.schema() == schema, "schema() answers differently the second time")
    reader = place.open(source=source)
    rows = reader.read(None, _newest(reader, None))
    ensure(rows.collect_schema() == schema, f"read() has the columns {rows.collect_schema()}, schema() says {schema}")
    ensure(rows.collect().schema == schema, f"the rows have the columns {rows.collect().schema}, schema() says {schema}")


def check_nothing_there_means_no_progress(place: SourcePlace) -> None:
    """Before the first arrival the end is the start, None."""
    owed(place.begins_empty, "the source does not begin empty")
    reader = place.open()
    for limited in (True, False):
        end = reader.latest_offset(None, limited=limited)
        ensure(end is None, f"latest_offset must answer with its start, None, when nothing is there, not {end!r}")


def check_arrival_moves_the_end(place: SourcePlace) -> None:
    """After an arrival the end differs from the start, and the range holds the rows."""
    reader, arrived = place.open(), place.arrive(0)
    end = _newest(reader, None)
    rows = _rows(reader, None, end)
    ensure(rows.height > 0, f"the range up to {end!r} has no rows after an arrival")
    _ensure_arrived(rows, [arrived], "after the first arrival")


def check_end_stays_without_arrivals(place: SourcePlace) -> None:
    """Asked again from the end, the source answers with the same end."""
    place.arrive(0)
    reader = place.open()
    end = _newest(reader, None)
    for limited in (True, False):
        again = reader.latest_offset(end, limited=limited)
        ensure(again == end, f"nothing arrived, yet the end moved from {end!r} to {again!r}")


def check_offsets_are_json(place: SourcePlace) -> None:
    """An offset survives JSON, and reads the same after it."""
    place.arrive(0)
    reader = place.open()
    end = _newest(reader, None)
    logged: Offset = json.loads(json.dumps(end))
    ensure(logged == end, f"the offset {end!r} is {logged!r} after JSON")
    ensure_same_rows(_rows(reader, None, logged), _rows(reader, None, end), "read with an offset that went through JSON", in_order=True)
    ensure(reader.latest_offset(logged, limited=True) == end, "an end that went through JSON is no longer taken for the end")


def check_same_range_gives_same_rows(place: SourcePlace) -> None:
    """A range gives the same rows in the same order each time, also when more rows have arrived."""
    place.arrive(0)
    place.arrive(1)
    reader = place.open()
    end = _newest(reader, None)
    before = _rows(reader, None, end)
    ensure_same_rows(_rows(reader, None, end), before, "the same range read twice", in_order=True)
    place.arrive(2)
    _newest(reader, end)
    ensure_same_rows(_rows(reader, None, end), before, "the same range read after another arrival", in_order=True)


def check_restart_reads_the_logged_range(place: SourcePlace) -> None:
    """After a crash behind latest_offset, a new reader reads the logged range at once, and the same rows."""
    arrived = [place.arrive(0)]
    dead = place.open()
    middle = _newest(dead, None)
    arrived.append(place.arrive(1))
    end = _newest(dead, middle)
    before = _rows(dead, middle, end)
    never_read = place.open()
    ensure_same_rows(_rows(never_read, middle, end), before, "the logged range read by a new reader first of all", in_order=True)
    _ensure_arrived(_rows(place.open(), None, end), arrived, "the whole range read by a new reader")


def check_range_nobody_read_can_be_read_later(place: SourcePlace) -> None:
    """A range that was only decided, and not read before the crash, holds its rows and no later ones."""
    arrived = place.arrive(0)
    end = _newest(place.open(), None)
    place.arrive(1)
    rows = _rows(place.open(), None, end)
    ensure(rows.height > 0, "the range decided before the crash has no rows after it")
    _ensure_arrived(rows, [arrived], "the range decided before the crash, read after it")


def check_ranges_join_without_gap_or_overlap(place: SourcePlace) -> None:
    """Ranges side by side hold together what the range over both holds."""
    reader = place.open()
    ends: list[Offset] = [None]
    arrived: list[pl.DataFrame | None] = []
    for k in range(4):
        arrived.append(place.arrive(k))
        ends.append(_newest(reader, ends[-1]))
    parts = [_rows(reader, start, end) for start, end in pairwise(ends)]
    for k, rows in enumerate(parts):
        _ensure_arrived(rows, [arrived[k]], f"the range of arrival {k}")
    ensure_same_rows(_rows(reader, None, ends[-1]), pl.concat(parts), "four ranges against the range over all")


def check_empty_range_has_no_rows(place: SourcePlace) -> None:
    """A range from an offset to itself has the columns and no rows."""
    place.arrive(0)
    reader = place.open()
    end = _newest(reader, None)
    rows = _rows(reader, end, end)
    ensure(rows.is_empty(), f"the range from {end!r} to itself has {rows.height} rows")
    ensure(rows.schema == place.make().schema(), "a range without rows has other columns than schema()")


def check_row_count_is_right_or_unknown(place: SourcePlace) -> None:
    """row_count is the number of rows, or None."""
    reader = place.open()
    place.arrive(0)
    middle = _newest(reader, None)
    place.arrive(1)
    end = _newest(reader, middle)
    for start, stop in ((None, middle), (middle, end), (None, end), (end, end)):
        count, height = reader.row_count(start, stop), _rows(reader, start, stop).height
        ensure(count is None or count == height, f"row_count says {count}, the range has {height} rows")


def check_part_of_a_range_is_part_of_its_rows(place: SourcePlace) -> None:
    """Columns, rows and filters chosen before collecting give what they give after it."""
    place.arrive(0)
    place.arrive(1)
    reader = place.open()
    end = _newest(reader, None)
    rows = _rows(reader, None, end)
    for what, part_of in _PARTS.items():
        ensure_same_rows(part_of(reader.read(None, end)).collect(), part_of(rows.lazy()).collect(), f"{what} of read()", in_order=True)


def check_limit_cuts_the_backlog(place: SourcePlace) -> None:
    """With a read limit a backlog takes several batches, which together hold every row once; without limit it takes one."""
    arrived = [place.arrive(k) for k in range(3)]
    reader = place.open_limited()
    ranges = list(_walk(reader, None))
    ensure(len(ranges) > 1, "a backlog of three arrivals beyond the read limit came as one batch")
    rows = pl.concat([_rows(reader, start, end) for start, end in ranges])
    _ensure_arrived(rows, arrived, "the batches of a limited backlog")
    # Another query: this one has decided its ranges.
    other = place.open_limited("b")
    whole = _rows(other, None, other.latest_offset(None, limited=False))
    ensure_same_rows(whole, rows, "a backlog read with limited=False")


def check_limited_batches_are_the_same_after_a_restart(place: SourcePlace) -> None:
    """Ranges decided under a limit read the same rows by a new reader, and the new reader goes on behind them."""
    for k in range(3):
        place.arrive(k)
    reader = place.open_limited()
    first = _newest(reader, None)
    second = _newest(reader, first)
    before = _rows(reader, first, second)
    again = place.open_limited()
    ensure_same_rows(_rows(again, first, second), before, "the second of several limited batches, after a restart", in_order=True)
    rest = [_rows(again, start, end) for start, end in _walk(again, second)]
    whole = _rows(again, None, _end_of(again, second))
    ensure_same_rows(pl.concat([_rows(again, None, second), *rest]), whole, "limited batches before and after a restart")


def check_freeze_fixes_the_end(place: SourcePlace) -> None:
    """After freeze the end stays, with and without limit, whatever arrives; a new run sees what arrived."""
    place.arrive(0)
    reader = place.open()
    end = _newest(reader, None)
    reader.freeze()
    place.arrive(1)
    for limited in (True, False):
        for start in (None, end):
            frozen = reader.latest_offset(start, limited=limited)
            ensure(frozen == end, f"after freeze the end must stay {end!r}, not {frozen!r} (from {start!r})")
    _newest(place.open(), end)


def check_freeze_before_the_first_look(place: SourcePlace) -> None:
    """Freeze may be the first call: the end is what was there then."""
    arrived = place.arrive(0)
    reader = place.open()
    reader.freeze()
    place.arrive(1)
    end = _newest(reader, None)
    rows = _rows(reader, None, end)
    ensure(rows.height > 0, "nothing could be read after freeze, though rows had arrived before it")
    _ensure_arrived(rows, [arrived], "what was there at freeze")


def check_commit_keeps_later_rows(place: SourcePlace) -> None:
    """After commit the rows behind the committed offset are all there, in this run and the next; committing twice does no harm."""
    arrived = [place.arrive(0)]
    reader = place.open()
    first = _newest(reader, None)
    _rows(reader, None, first)
    arrived.append(place.arrive(1))
    second = _newest(reader, first)
    reader.commit(first)
    reader.commit(first)
    before = _rows(reader, first, second)
    _ensure_arrived(before, arrived[1:], "behind a committed offset")
    arrived.append(place.arrive(2))
    restarted = place.open()
    ensure_same_rows(_rows(restarted, first, second), before, "behind a committed offset, after a restart", in_order=True)
    third = _newest(restarted, second)
    _ensure_arrived(_rows(restarted, second, third), arrived[2:], "what arrived after a commit and a restart")


def check_queries_do_not_disturb_each_other(place: SourcePlace) -> None:
    """Two queries read the same source object, each with its own position."""
    source = place.make()
    arrived = [place.arrive(0)]
    one, other = place.open("a", source=source), place.open("b", source=source)
    middle = _newest(one, None)
    arrived.append(place.arrive(1))
    _ensure_arrived(_rows(other, None, _newest(other, None)), arrived, "a second query that starts later")
    _ensure_arrived(_rows(one, middle, _newest(one, middle)), arrived[1:], "the first query behind its position")


def check_read_all_gives_everything(place: SourcePlace) -> None:
    """read_all holds what a stream would have read, with the source's columns."""
    owed(place.reads_all, "read_all cannot be compared")
    arrived = [place.arrive(0), place.arrive(1)]
    source = place.make()
    rows = source.read_all().collect()
    ensure(rows.schema == source.schema(), f"read_all() has the columns {rows.schema}, schema() says {source.schema()}")
    _ensure_arrived(rows, arrived, "read_all()")
    reader = place.open(source=source)
    ensure_same_rows(rows, _rows(reader, None, _newest(reader, None)), "read_all() against the stream")


def check_metrics_are_texts(place: SourcePlace) -> None:
    """Metrics is a mapping of texts, before and after a batch."""
    reader = place.open()
    ensure_figures(reader.metrics())
    place.arrive(0)
    _rows(reader, None, _newest(reader, None))
    ensure_figures(reader.metrics())


def check_closed_source_opens_again(place: SourcePlace) -> None:
    """After close a new run goes on behind the last offset."""
    place.arrive(0)
    reader = place.open()
    end = _newest(reader, None)
    _rows(reader, None, end)
    reader.close()
    arrived = place.arrive(1)
    again = place.open()
    _ensure_arrived(_rows(again, end, _newest(again, end)), [arrived], "a run after close")
    again.close()


SOURCE_CHECKS: tuple[Callable[[SourcePlace], None], ...] = (
    check_description_is_one_line,
    check_schema_stays,
    check_nothing_there_means_no_progress,
    check_arrival_moves_the_end,
    check_end_stays_without_arrivals,
    check_offsets_are_json,
    check_same_range_gives_same_rows,
    check_restart_reads_the_logged_range,
    check_range_nobody_read_can_be_read_later,
    check_ranges_join_without_gap_or_overlap,
    check_empty_range_has_no_rows,
    check_row_count_is_right_or_unknown,
    check_part_of_a_range_is_part_of_its_rows,
    check_limit_cuts_the_backlog,
    check_limited_batches_are_the_same_after_a_restart,
    check_freeze_fixes_the_end,
    check_freeze_before_the_first_look,
    check_commit_keeps_later_rows,
    check_queries_do_not_disturb_each_other,
    check_read_all_gives_everything,
    check_metrics_are_texts,
    check_closed_source_opens_again,
)
"""All checks; the names of failing ones say what was promised."""


def check_source(make_place: Callable[[], SourcePlace]) -> Mapping[str, str]:
    """Run every check on a fresh place and return those not owed, with the reason.

    Raises the first AssertionError, named after its check.
    """
    return run_checks(SOURCE_CHECKS, make_place)


def _newest(reader: SourceReader, start: Offset) -> Offset:
    """Return the end of the next batch, which must be beyond its start."""
    end = reader.latest_offset(start, limited=True)
    if end == start:
        fail(f"rows have arrived, yet latest_offset answers with its start {start!r}")
    return end


def _end_of(reader: SourceReader, start: Offset) -> Offset:
    return reader.latest_offset(start, limited=False)


def _rows(reader: SourceReader, start: Offset, end: Offset) -> pl.DataFrame:
    frame = reader.read(start, end)
    ensure_type(frame, pl.LazyFrame, "what read() returns")
    return frame.collect()


def _walk(reader: SourceReader, start: Offset) -> Iterator[tuple[Offset, Offset]]:
    """Yield the ranges of a backlog, batch by batch."""
    for _ in range(_MOST_BATCHES):
        end = reader.latest_offset(start, limited=True)
        if end == start:
            return
        yield start, end
        start = end
    fail(f"the end of the backlog was not reached in {_MOST_BATCHES} batches; the last offset is {start!r}")


def _ensure_arrived(rows: pl.DataFrame, arrived: list[pl.DataFrame | None], when: str) -> None:
    """Raise unless these are the rows that arrived; nothing is known of arrivals that are None."""
    known = [frame for frame in arrived if frame is not None]
    if len(known) == len(arrived):
        ensure_same_rows(rows, pl.concat(known), when)


def _open_log(folder: Folder, every: int) -> EntryLog:
    return CompactibleLog(folder, every)
