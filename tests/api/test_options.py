"""What a query is told must be known and fit; each refusal names the option, the value and the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import microbatch as mb

STREAM = mb.MemoryStream({"v": pl.Int64})
FRAME = STREAM.frame()

MISSPELT: dict[str, tuple[Callable[..., object], str, str]] = {
    "scan_rate": (mb.scan_rate, "advance_per_batch", "advance_ms_per_batch"),
    "scan_files": (lambda **o: mb.scan_files("landing/*.csv", **o), "max_file_per_trigger", "max_files_per_trigger"),
    "MemoryStream": (lambda **o: mb.MemoryStream({"v": pl.Int64}, **o), "max_rows_per_triger", "max_rows_per_trigger"),
    "sink_memory": (lambda **o: FRAME.sink_memory(mb.MemorySink(), **o), "chekpoint", "checkpoint"),
    "sink_delta": (lambda **o: FRAME.sink_delta("lake/t", **o), "patition_by", "partition_by"),
    "sink_files": (lambda **o: FRAME.sink_files("out", **o), "fromat", "format"),
    "sink_console": (FRAME.sink_console, "rws", "rows"),
    "sink_foreach_batch": (lambda **o: FRAME.sink_foreach_batch(lambda rows, batch_id: None, **o), "retain_batch", "retain_batches"),
    "sink_to": (lambda **o: FRAME.sink_to(mb.MemorySink(), **o), "watermark_polcy", "watermark_policy"),
}


@pytest.mark.parametrize("verb", MISSPELT)
def test_a_misspelt_option_is_refused_with_the_one_that_was_meant(verb: str) -> None:
    call, misspelt, meant = MISSPELT[verb]
    with pytest.raises(mb.PlanError, match=rf"unknown option.* '{misspelt}' \(did you mean '{meant}'\?\); known are .*{meant}"):
        call(**{misspelt: 1})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("mode", "apend", r"mode='apend' is not known \(did you mean 'append'\?\); it can be 'append', 'update', 'complete'"),
        ("watermark_policy", "mean", r"watermark_policy='mean' is not known.*'min', 'max'"),
        ("retain_batches", 0, r"retain_batches=0 must be a whole number, 1 or more"),
        ("retain_batches", True, r"retain_batches=True must be a whole number"),
        ("no_data_batches", "no", r"no_data_batches='no' must be True or False"),
        ("evolve", 1, r"evolve=1 must be True or False"),
        ("name", 3, r"name=3 must be a text"),
        ("checkpoint", 3, r"checkpoint=3 must be a folder's path"),
        ("clock", 3, r"clock=3 must be a Clock"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_starts(option: str, value: Any, message: str) -> None:
    with pytest.raises(mb.PlanError, match=message):
        FRAME.sink_memory(mb.MemorySink(), **{option: value})


def test_what_is_no_sink_is_refused() -> None:
    with pytest.raises(mb.PlanError, match=r"'out' is no sink: give mb.MemorySink\(\), or an object with the methods of .*Sink"):
        FRAME.sink_memory("out")


MODES: dict[str, tuple[Callable[[], object], str]] = {
    "append without event time": (
        lambda: FRAME.group_by("v").len().sink_memory(mb.MemorySink()),
        r'mode="append" needs event time with a watermark among its keys.*with_watermark.*mode="update" or "complete"',
    ),
    "files take no complete": (
        lambda: FRAME.group_by("v").len().sink_files("out", mode="complete", checkpoint="c"),
        r'cannot be replaced.*refuses mode="complete"; write to Delta',
    ),
    "files take update as a changelog only": (
        lambda: FRAME.group_by("v").len().sink_files("out", mode="update", checkpoint="c"),
        r"changelog",
    ),
    "an upsert needs keys": (
        lambda: FRAME.sink_delta("lake/t", mode="update", checkpoint="c"),
        r"update mode replaces rows by key, and this query has no grouping keys; give the sink on=",
    ),
    "complete needs an aggregation": (lambda: FRAME.sink_memory(mb.MemorySink(), mode="complete"), r'mode="complete"'),
    "durable needs a checkpoint": (lambda: FRAME.sink_files("out"), r"needs checkpoint=<folder> \(one a query\)"),
}


@pytest.mark.parametrize("shape", MODES)
def test_a_mode_that_does_not_fit_says_what_to_write_instead(shape: str) -> None:
    define, message = MODES[shape]
    with pytest.raises(mb.PlanError, match=message):
        define()


def test_defining_a_query_leaves_the_disk_alone(tmp_path: Path) -> None:
    FRAME.sink_delta(tmp_path / "t", checkpoint=tmp_path / "c")
    FRAME.sink_files(tmp_path / "f", checkpoint=tmp_path / "d")
    assert not list(tmp_path.iterdir())
