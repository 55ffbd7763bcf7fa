"""Finding sessions among intervals, against a loop over them."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest

from microbatch.operators import intervals
from microbatch.operators.intervals import find_sessions


def plainly(keys: list[object], bounds: list[tuple[int, int]]) -> set[tuple[str, int, int, tuple[int, ...]]]:
    """Return each session as key, bounds and rows, found by one pass over the intervals in order."""
    found: list[tuple[str, int, int, list[int]]] = []
    for row in sorted(range(len(keys)), key=lambda i: (repr(keys[i]), bounds[i])):
        key, (start, end) = repr(keys[row]), bounds[row]
        if found and found[-1][0] == key and start <= found[-1][2]:
            found[-1] = (key, found[-1][1], max(found[-1][2], end), [*found[-1][3], row])
        else:
            found.append((key, start, end, [row]))
    return {(key, start, end, tuple(sorted(rows))) for key, start, end, rows in found}


def check(keys: list[object], bounds: list[tuple[int, int]], dtype: pl.DataType) -> None:
    start, end = (np.array([b[i] for b in bounds], dtype=np.int64) for i in (0, 1))
    sessions = find_sessions(pl.DataFrame({"k": pl.Series(keys, dtype=dtype)}), start, end)
    of_rows = sessions.of_rows()
    found = {
        (repr(keys[sessions.first_rows[n]]), int(sessions.start[n]), int(sessions.end[n]), tuple(np.flatnonzero(of_rows == n).tolist()))
        for n in range(sessions.count)
    }
    assert found == plainly(keys, bounds)
    of_keys = [repr(keys[row]) for row in sessions.first_rows]
    assert [k for k, new in zip(of_keys, sessions.new_key, strict=True) if new] == list(dict.fromkeys(of_keys))


@pytest.mark.parametrize("collide", [False, True], ids=["hashed", "every-hash-equal"])
@pytest.mark.parametrize("far", [30, 2**61], ids=["near", "times-that-do-not-fit-together"])
def test_sessions_are_those_a_loop_finds(monkeypatch: pytest.MonkeyPatch, collide: bool, far: int) -> None:
    if collide:
        monkeypatch.setattr(intervals, "hashed", lambda keys: pl.repeat(7, keys.height, dtype=pl.UInt64, eager=True))
    rng = random.Random(1)
    for _ in range(150):
        n = rng.randrange(0, 25)
        starts = [rng.choice([-1, 1]) * rng.randrange(30) + (far if rng.random() < 0.3 else 0) for _ in range(n)]
        check([rng.choice(["a", "b", "", None]) for _ in range(n)], [(s, s + rng.randrange(1, 6)) for s in starts], pl.String())


def test_zeros_and_nans_of_either_kind_are_one_key() -> None:
    keys = pl.DataFrame({"k": [0.0, -0.0, float("nan"), -float("nan")]})
    sessions = find_sessions(keys, np.zeros(4, dtype=np.int64), np.ones(4, dtype=np.int64))
    assert sessions.count == 2
