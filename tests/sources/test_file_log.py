"""The lines of the source's log, byte for byte as Spark writes them."""

from __future__ import annotations

import random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from microbatch.errors import CheckpointCorruptError
from microbatch.sources.file_log import LOGGED, from_lines, to_lines


def files(*paths: str) -> pl.DataFrame:
    return pl.DataFrame({"path": paths, "mtime_us": [1_700_000_000_123_000] * len(paths)}, schema={"path": pl.String, "mtime_us": pl.Int64})


def test_a_line_is_spark_s() -> None:
    line = '{"path":"file:///landing/a.csv","timestamp":1700000000123,"batchId":7}'
    assert to_lines(files("/landing/a.csv"), 7) == [line]
    assert from_lines([line], "log").rows() == [("/landing/a.csv", 1_700_000_000_123_000, 7)]


def test_paths_are_quoted_as_in_java_uris() -> None:
    quoted = [line.split('"')[3] for line in to_lines(files("/a b/100%.csv", "/é/[1]?#.csv", "/x:y@z&w=1,2;3+4.csv", 's3://b/k "q"'), 0)]
    assert quoted == ["file:///a%20b/100%25.csv", "file:///é/%5B1%5D%3F%23.csv", "file:///x:y@z&w=1,2;3+4.csv", "s3://b/k%20%22q%22"]


def test_a_path_of_hadoop_with_one_slash_is_read() -> None:
    assert from_lines(['{"path":"file:/landing/a%20b.csv","timestamp":1,"batchId":0}'], "log")["path"].to_list() == ["/landing/a b.csv"]


def test_no_files_make_no_lines() -> None:
    assert to_lines(files(), 0) == []
    assert_frame_equal(from_lines([], "log"), LOGGED.to_frame())


@pytest.mark.parametrize("seed", range(20))
def test_any_path_survives(seed: int) -> None:
    rng = random.Random(seed)
    letters = [chr(c) for c in range(1, 128) if c != ord("/")] + list("äßñ漢🙂")
    paths = ["/" + "".join(rng.choices(letters, k=12)) for _ in range(20)]
    assert from_lines(to_lines(files(*paths), 3), "log")["path"].to_list() == paths, f"seed {seed}"


@pytest.mark.parametrize(
    "line", ["x", "{}", '{"path":"file:///a","timestamp":1}', '{"path":"file:///a","timestamp":"x","batchId":0}', "[]"]
)
def test_a_damaged_line_is_an_error_that_names_the_log(line: str) -> None:
    with pytest.raises(CheckpointCorruptError, match=r"sources/0/3 holds a line .* restore the folder from a copy"):
        from_lines(['{"path":"file:///a","timestamp":1,"batchId":0}', line], "sources/0/3")
