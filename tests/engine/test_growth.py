"""State that can only grow is spoken of in the log, with the operator, the reason and the way out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb

SCHEMA: dict[str, Any] = {"t": pl.Datetime("us"), "k": pl.Int64}
Verb = Callable[[mb.StreamFrame], mb.StreamFrame]


def watermarked(frame: mb.StreamFrame) -> mb.StreamFrame:
    return frame.with_watermark("t", "1m")


def run(verb: Verb, folder: Path, mode: str, batches: int = 1, rows: int = 1, **options: Any) -> mb.Query:
    """Run batches of new keys one by one."""
    stream = mb.MemoryStream(SCHEMA)
    query = verb(stream.frame()).sink_memory(mb.MemorySink(), mode=mode, checkpoint=folder / "c", **options)
    handle = query.start()
    for batch in range(batches):
        stream.add({"t": [None] * rows, "k": range(batch * rows, (batch + 1) * rows)})
        handle.process_all_available()
    handle.stop()
    return query


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "microbatch.engine" and r.levelno == logging.WARNING]


def views() -> mb.StreamFrame:
    return watermarked(mb.MemoryStream(SCHEMA).frame())


GROWING: list[tuple[Verb, str, str, str]] = [
    (lambda f: f.group_by("k").agg(pl.len()), "update", "aggregate-k", "no event time is among its keys ['k'], so no group is ever over"),
    (lambda f: f.group_by("k").agg(pl.len()), "complete", "aggregate-k", "mode=\"complete\" keeps every group of ['k'] for ever"),
    (
        lambda f: watermarked(f).group_by(mb.window("t", "1m")).agg(pl.len(), name="minutes"),
        "complete",
        "minutes",
        'use mode="update" with event time among the keys, or ttl=',
    ),
    (lambda f: f.unique("k"), "append", "unique-k", "write unique(within_watermark=True) or unique(ttl=...)"),
    (lambda f: watermarked(f).unique("k"), "append", "unique-k", "so every value is remembered"),
    (
        lambda f: watermarked(f).join(views(), on="k"),
        "append",
        "join",
        "no condition says when rows of the left and the right side can meet no more; give both sides a watermark",
    ),
]


@pytest.mark.parametrize(("verb", "mode", "operator", "reason"), GROWING)
def test_growing_state_is_spoken_of_once_a_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, verb: Verb, mode: str, operator: str, reason: str
) -> None:
    query = run(verb, tmp_path, mode, batches=2, name="orders")
    (message,) = told(caplog)
    assert message.startswith(f"query orders: the state of {operator}")
    assert reason in message
    query.run()
    assert told(caplog) == [message, message]


BOUNDED: list[tuple[Verb, str]] = [
    (lambda f: watermarked(f).group_by(mb.window("t", "1m"), "k").agg(pl.len()), "append"),
    (lambda f: watermarked(f).group_by(mb.window("t", "1m"), "k").agg(pl.len()), "update"),
    (lambda f: f.group_by("k").agg(pl.len(), ttl="1h"), "update"),
    (lambda f: f.group_by().agg(pl.len()), "complete"),
    (lambda f: watermarked(f).unique("k", within_watermark=True), "append"),
    (lambda f: watermarked(f).unique(["k", "t"]), "append"),
    (lambda f: f.unique("k", ttl="1h"), "append"),
    (lambda f: f.limit(3), "append"),
    (lambda f: watermarked(f).join(views(), on="k", within="1h"), "append"),
    (lambda f: watermarked(f).join(views(), on=["k", "t"]), "append"),
]


@pytest.mark.parametrize(("verb", "mode"), BOUNDED)
def test_bounded_state_is_not_spoken_of(tmp_path: Path, caplog: pytest.LogCaptureFixture, verb: Verb, mode: str) -> None:
    run(verb, tmp_path, mode)
    assert told(caplog) == []


def test_state_is_spoken_of_again_when_it_has_doubled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microbatch.engine.growth.WORTH_A_WORD_ROWS", 30)
    # 10, 20, 30 (told), 40, 50, 60 (told: doubled), 70, ...
    run(lambda f: f.unique("k"), tmp_path, "append", batches=8, rows=10, name="orders")
    assert told(caplog)[1:] == [
        "query orders: the state of unique-k has grown to 30 rows, by 10 a batch lately",
        "query orders: the state of unique-k has grown to 60 rows, by 10 a batch lately",
    ]
