"""State per key, against a model that keeps a dictionary and looks at one row at a time; the query is restarted on its way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb
from microbatch.clock import ManualClock

SECOND = 1_000_000
DELAY_S = 5
SCHEMA: dict[str, Any] = {"t": pl.Datetime("us"), "k": pl.String, "do": pl.String, "v": pl.Int64}
OUTPUT: dict[str, Any] = {"what": pl.String, "n": pl.Int64, "at": pl.Int64}
Row = tuple[Any, ...]


def at(seconds: int) -> datetime:
    return datetime(1970, 1, 1) + timedelta(seconds=seconds)


# -- the functions under test and what they mean, written twice ---------------------------------------------------------------


def with_timeout(by_event: bool) -> Any:
    """add: count up by v; later: time out v seconds after the batch, or after the row; remove: clear; look: nothing."""

    def function(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        if state.timed_out:
            n = state["n"].get(0)
            if n % 2:
                state.remove()
            return ("timeout", n, state.timer_us)
        for row in rows:
            if row.do == "add":
                state["n"].update(state["n"].get(0) + row.v)
            elif row.do == "later" and by_event:
                state.set_timeout_at(max(row.t, at((state.watermark_us or 0) // SECOND)) + timedelta(seconds=row.v))
            elif row.do == "later":
                state.set_timeout(f"{row.v}s")
            elif row.do == "remove":
                state.remove()
        return [("data", state["n"].get(-1), len(rows))]

    return function


def with_timers(by_event: bool) -> Any:
    """add: count up; later: one more timer; remove: delete the earliest timer and clear. Some timers set the next one."""

    def function(key: Any, rows: list[Any], state: mb.KeyState) -> Any:
        if state.timer_us is not None:
            if state["n"].get(0) % 3 == 0 and state.timer_us % (2 * SECOND):
                state.register_timer(state.timer_us + 7 * SECOND)
            return ("timer", state["n"].get(-1), state.timer_us)
        for row in rows:
            if row.do == "add":
                state["n"].update(state["n"].get(0) + row.v)
            elif row.do == "later":
                base_us = (row.t - at(0)) // timedelta(microseconds=1) if by_event else state.batch_time_us
                state.register_timer(base_us + row.v * SECOND)
            elif row.do == "remove":
                state["n"].clear()
                for first in state.list_timers()[:1]:
                    state.delete_timer(first)
        return [("data", state["n"].get(-1), len(rows))]

    return function


@dataclass
class Model:
    """Runs the same jobs with a dictionary."""

    kind: str  # timeout or timers
    by_event: bool
    n: dict[Any, int] = field(default_factory=dict)
    due: dict[Any, set[int]] = field(default_factory=dict)
    watermark: int | None = None  # of the next batch
    last_mark: int | None = None

    def run(self, rows: list[Row], now: int) -> list[Row]:
        """Return what a run puts out: a batch with the rows, then batches without while there is something to do."""
        out = self.batch(rows, now) if rows else []
        while self.watermark_moved if self.by_event else any(d < now for times in self.due.values() for d in times):
            out += self.batch([], now)
        return out

    @property
    def watermark_moved(self) -> bool:
        return self.watermark is not None and (self.last_mark is None or self.watermark > self.last_mark)

    def batch(self, rows: list[Row], now: int) -> list[Row]:
        late, mark = self.last_mark, self.watermark
        before = mark if self.by_event else now
        if self.by_event and late is not None:
            rows = [r for r in rows if r[0] > late]
        out = []
        for key in dict.fromkeys(r[1] for r in rows):
            if self.kind == "timeout":
                self.due.pop(key, None)
            mine = [r for r in rows if r[1] == key]
            for row in mine:
                self.act(key, row, now, mark)
            out.append((key, "data", self.n.get(key, -1), len(mine)))
        for key in [*self.due]:
            while before is not None and (passed := [d for d in self.due.get(key, ()) if d < before]):
                out.append(self.fire(key, min(passed)))
        if rows:
            times = [r[0] for r in rows]
            self.watermark = max([max(times) - DELAY_S * SECOND, *([mark] if mark is not None else [])])
        self.last_mark = mark
        self.due = {k: d for k, d in self.due.items() if d}
        return out

    def act(self, key: Any, row: Row, now: int, mark: int | None) -> None:
        t, _, do, v = row
        if do == "add":
            self.n[key] = self.n.get(key, 0) + v
        elif do == "remove":
            self.n.pop(key, None)
            if self.kind == "timers" and self.due.get(key):
                self.due[key].remove(min(self.due[key]))
        elif do == "later" and self.kind == "timers":
            self.due.setdefault(key, set()).add((t if self.by_event else now) + v * SECOND)
        elif do == "later":
            self.due[key] = {(max(t, mark or 0) if self.by_event else now) + v * SECOND}

    def fire(self, key: Any, when: int) -> Row:
        self.due[key].remove(when)
        n = self.n.get(key)
        if self.kind == "timeout":
            if (n or 0) % 2:
                del self.n[key]
            return (key, "timeout", n or 0, when)
        if (n or 0) % 3 == 0 and when % (2 * SECOND):
            self.due[key].add(when + 7 * SECOND)
        return (key, "timer", -1 if n is None else n, when)

    @property
    def keys(self) -> int:
        return len({*self.n, *(k for k, d in self.due.items() if d)})


# -- the comparison -----------------------------------------------------------------------------------------------------------


def as_frame(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame([(at(0) + timedelta(microseconds=t), *rest) for t, *rest in rows], schema=SCHEMA, orient="row")


def random_batch(rng: random.Random, begin: int) -> list[Row]:
    """Return rows around a time in whole seconds, some of them late, for a few keys of which one is null."""
    return [
        (
            (begin + rng.randint(-8, 4)) * SECOND,
            rng.choice(["a", "b", "c", "d", None]),
            rng.choice(["add", "add", "later", "later", "remove", "look"]),
            rng.randint(1, 12),
        )
        for _ in range(rng.randint(0, 9))
    ]


@contextmanager
def running(work: mb.Query, *, restarts: bool) -> Iterator[Any]:
    """Yield what processes all there is: a run of its own each time, or one query that stays."""
    if restarts:
        yield work.run
        return
    handle = work.start(every=None)
    yield handle.process_all_available
    handle.stop()


@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))])
@pytest.mark.parametrize("by_event", [True, False])
@pytest.mark.parametrize("kind", ["timeout", "timers"])
def test_every_call_is_the_one_the_model_makes(tmp_path: Path, kind: str, by_event: bool, seed: int, restarts: bool) -> None:
    rng = random.Random(seed)
    clock, stream, out = ManualClock(100 * SECOND), mb.MemoryStream(SCHEMA), mb.MemorySink()
    frame = stream.frame().with_watermark("t", f"{DELAY_S}s") if by_event else stream.frame()
    time = {kind: "event_time" if by_event else "processing_time"}
    function = (with_timeout if kind == "timeout" else with_timers)(by_event)
    machine = frame.group_by("k").map_state(function, state_schema={"n": pl.Int64}, output_schema=OUTPUT, **time)  # type: ignore[arg-type]
    work = machine.sink_memory(out, checkpoint=tmp_path / "c", mode="update", clock=clock)
    model, seen = Model(kind, by_event), 0
    with running(work, restarts=restarts) as process:
        for step in range(9):
            rows = random_batch(rng, 100 + 9 * step)
            # A query that stays sees the clock move before it sees the rows.
            for arriving in [rows] if restarts else [[], rows]:
                if arriving:
                    stream.add(as_frame(arriving))
                expected = model.run(arriving, clock.now_us())
                result = process()
                got = out.rows().rows()[seen:]
                assert sorted(got, key=repr) == sorted(expected, key=repr), f"step {step}, seed {seed}"
                seen += len(got)
                if restarts and result.last_progress is not None:
                    assert result.last_progress["stateOperators"][0]["numRowsTotal"] == model.keys
            clock.advance_us(rng.randint(1, 9) * SECOND)


def test_the_model_has_fired_both_kinds_in_these_runs() -> None:
    """The comparison means something only if timers fire, survive and are deleted in it."""
    fired = 0
    for kind in ("timeout", "timers"):
        rng, model = random.Random(0), Model(kind, by_event=True)
        for step in range(9):
            rows = random_batch(rng, 100 + 9 * step)
            fired += sum(r[1] != "data" for r in model.run(rows, 0))
    assert fired > 10
