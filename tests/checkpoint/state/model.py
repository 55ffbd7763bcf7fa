"""Random histories of a state store beside a dict per version: what every table must hold."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.state.compaction import Thresholds
from microbatch.checkpoint.state.store import StateStore
from microbatch.checkpoint.state.table import Table
from microbatch.protocols import TableSpec

Row = tuple[Any, ...]

EAGER = Thresholds(tier=2, most_runs=4, stall_runs=6, inline_rows=8, flush_bytes=1 << 40, flush_deltas=4, part_rows=16)
"""Merges and flushes after a few small batches."""

_HORIZON_US = 60


def canonical(value: Any) -> Any:
    """Return a value that is equal just when the store takes two for one key: NaN is NaN, -0.0 is 0.0."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value + 0.0
    return value


def rows_of(frame: pl.DataFrame) -> list[Row]:
    """Return the rows of a small frame as tuples that can be compared and hashed."""
    return [tuple(canonical(v) for v in row) for row in frame.iter_rows()]


@dataclass
class Model:
    """The table as a dict of keys, or as a list of rows for a log."""

    spec: TableSpec
    rows: dict[Row, Row] = field(default_factory=dict)
    log: list[Row] = field(default_factory=list)

    def copy(self) -> Model:
        """Return the same, to be kept while this one changes."""
        return Model(self.spec, dict(self.rows), list(self.log))

    @property
    def key_width(self) -> int:
        """Number of key columns, which stand first."""
        return len(self.spec.keys)

    def upsert(self, frame: pl.DataFrame) -> None:
        """Put rows in the place of those with the same keys."""
        self.rows |= {row[: self.key_width]: row for row in rows_of(frame.select(list(self.spec.schema)))}

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows to the log."""
        self.log += rows_of(frame.select(list(self.spec.schema)))

    def evict(self, mark: int) -> list[Row]:
        """Remove and return the rows up to the mark; a row without time stays."""
        assert self.spec.time_key is not None
        at = self.spec.schema.names().index(self.spec.time_key)
        every = [*self.rows.values(), *self.log]
        gone = [row for row in every if row[at] is not None and row[at] <= mark]
        self.rows = {k: row for k, row in self.rows.items() if row not in gone}
        self.log = [row for row in self.log if row not in gone]
        return gone

    def times(self) -> list[int]:
        """Return the distinct times."""
        if self.spec.time_key is None:
            return [0] if self.rows else []
        at = self.spec.schema.names().index(self.spec.time_key)
        return sorted({2**63 - 1 if row[at] is None else row[at] for row in [*self.rows.values(), *self.log]})


def reduced(rows: Iterable[Row]) -> dict[Row, int]:
    """Return the sums of the last column of a log by the columns before it."""
    sums: dict[Row, int] = {}
    for *keys, value in rows:
        sums[tuple(keys)] = sums.get(tuple(keys), 0) + value
    return sums


def add_up(frame: pl.DataFrame) -> pl.DataFrame:
    """Reduce a log: the sum of ``v`` per key."""
    return frame.group_by("t", "k", maintain_order=True).agg(pl.col("v").sum())


KEYED = TableSpec(
    keys=("k", "f"), time_key=None, schema=pl.Schema({"k": pl.String(), "f": pl.Float64(), "v": pl.Int64(), "s": pl.String()})
)
TIMED = TableSpec(
    keys=("t", "k"), time_key="t", schema=pl.Schema({"t": pl.Int64(), "k": pl.Int64(), "v": pl.Int64(), "s": pl.List(pl.Int8())})
)
LOG = TableSpec(keys=("t", "k"), time_key="t", schema=pl.Schema({"t": pl.Int64(), "k": pl.Int64(), "v": pl.Int64()}), reduce=add_up)
SPECS = {"keyed": KEYED, "timed": TIMED, "log": LOG}


class History:
    """A store and its models, taken through random steps; ``committed`` holds each version's delta and models."""

    def __init__(self, root: Path, rng: random.Random, *, retain_versions: int = 1_000, thresholds: Thresholds = EAGER) -> None:
        self._thresholds = thresholds
        self.rng = rng
        self.models = {name: Model(spec) for name, spec in SPECS.items()}
        self.committed: dict[int, tuple[str, dict[str, Model]]] = {}
        self.mark = -1
        self._marks = {0: -1}
        self._folder = LocalFolder(root)
        self._retain = retain_versions
        self.version = 0
        self.open(0)

    def open(self, version: int) -> None:
        """Open the store anew at a version."""
        name, models = self.committed.get(version, (None, {n: Model(s) for n, s in SPECS.items()}))
        self.store = StateStore.open(
            self._folder, version=version, delta_name=name, retain_versions=self._retain, thresholds=self._thresholds
        )
        self.tables: dict[str, Table] = {n: self.store.table(n, spec) for n, spec in SPECS.items()}
        self.models = {n: m.copy() for n, m in models.items()}
        self.version, self.mark = version, self._marks[version]

    def reopen(self, version: int | None = None) -> None:
        """Close and open at a version, the newest by default; versions behind it are forgotten."""
        self.store.close()
        version = self.version if version is None else version
        self.committed = {v: kept for v, kept in self.committed.items() if v <= version}
        self.open(version)

    def batch(self) -> None:
        """Change every table at random, compare, commit, compare."""
        for name in ("keyed", "timed"):
            if self.rng.random() < 0.9:
                self._upsert(name)
        if self.rng.random() < 0.9:
            rows = self._rows("log", self.rng.randrange(12), unique=False)
            self.tables["log"].append(rows)
            self.models["log"].append(rows)
        if self.rng.random() < 0.3:
            self._evict()
        self.commit()
        self.check()

    def commit(self) -> None:
        """Write the next version."""
        self.version += 1
        pending = self.store.commit(self.version, f"{self.rng.randrange(16**8):08x}")
        self.committed[self.version] = pending.result(), {n: m.copy() for n, m in self.models.items()}
        self._marks[self.version] = self.mark

    def _upsert(self, name: str) -> None:
        table, model = self.tables[name], self.models[name]
        rows = table.prepare(self._rows(name, self.rng.randrange(12), unique=True))
        found = table.lookup(rows)
        empty = (None,) * found.width
        expected = [model.rows.get(key, (*key, *empty))[model.key_width :] for key in rows_of(rows.select(model.spec.keys))]
        got = rows_of(found) if found.width else []
        assert got == expected, (name, self.version)
        table.upsert(rows)
        model.upsert(rows)

    def _rows(self, name: str, n: int, *, unique: bool) -> pl.DataFrame:
        rng, spec = self.rng, SPECS[name]
        values: dict[str, Callable[[], Any]] = {
            "k": lambda: rng.choice([None, "", "a", "b", "ab", "x" * 40]) if name == "keyed" else rng.choice([None, *range(20)]),
            "f": lambda: rng.choice([None, 0.0, -0.0, float("nan"), 1.5, -1.5, float("inf")]),
            "t": lambda: rng.choice([None, *range(self.mark + 1, self.mark + _HORIZON_US)]),
            "v": lambda: rng.randrange(-100, 100),
            "s": lambda: rng.choice([None, "", "long " * 5]) if name == "keyed" else rng.choice([None, [], [1, None]]),
        }
        frame = pl.DataFrame([[values[c]() for c in spec.schema] for _ in range(n)], schema=spec.schema, orient="row")
        return frame.unique(subset=spec.keys, keep="any", maintain_order=True) if unique else frame

    def _evict(self) -> None:
        self.mark += self.rng.randrange(_HORIZON_US)
        gone, model_gone = rows_of(self.tables["timed"].evict(self.mark)), self.models["timed"].evict(self.mark)
        assert sorted(map(repr, gone)) == sorted(map(repr, model_gone))
        if self.rng.random() < 0.5:
            assert reduced(rows_of(self.tables["log"].evict(self.mark))) == reduced(self.models["log"].evict(self.mark))

    def check(self) -> None:
        """Compare every table with its model."""
        for name in ("keyed", "timed"):
            table, model = self.tables[name], self.models[name]
            assert sorted(map(repr, rows_of(table.scan()))) == sorted(map(repr, model.rows.values())), (name, self.version)
            assert table.rows == len(model.rows), (name, self.version)
            assert table.times() == model.times(), (name, self.version)
        log = self.tables["log"]
        assert reduced(rows_of(log.scan())) == reduced(self.models["log"].log)
        assert log.times() == self.models["log"].times()
