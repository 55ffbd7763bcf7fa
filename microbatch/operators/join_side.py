"""One side of a join of two streams: its arrivals, the rows it keeps, and which of them met none.

Rows are kept in buckets of the time they are dead at, and found there by a hash of their keys. A bucket goes when all in it are dead, so
the exact time is a column, which decides whether a row is seen. Rows that must come out when they met none wait besides in a log by that
time; a row that meets one only later is noted in a table, so that no row is ever rewritten (Spark: SymmetricHashJoinStateManager).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from microbatch.operators.base import Batch
from microbatch.operators.late import LateFilter
from microbatch.plan.join_bounds import JoinBounds, time_of
from microbatch.plan.join_columns import ONE_SIDED, PRESERVED, JoinSide
from microbatch.plan.nodes import JoinStreams, Node
from microbatch.plan.schema import bounds_of_join, columns_of_join, event_times, schema_of, watermark_delay_us
from microbatch.plan.window import to_micros
from microbatch.protocols import StateTable, TableSpec

NEVER_US = 2**63 - 1
_BUCKETS = 2  # of the span of times a row can meet: a look-up visits all that its row can meet; rows outstay their time by up to a half
_WIDEST_US = 60_000_000
_ROWS_OF_A_BATCH = 1 << 32
_MET, _ASKED = "__met", "__asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """When rows of a side are dead, and which buckets hold the rows that a row of the other side can meet.

    ``dead`` is the time, microseconds, by an expression over the placed row; a row is dead once the watermark has reached it.
    """

    dead: pl.Expr
    by_key: bool
    offset_us: int | None
    other_offset_us: int | None
    width_us: int
    other_time: pl.Expr | None

    def bucket(self, dead: str) -> pl.Expr:
        """Return the bucket of rows dead at a time: itself if it is a key, else rounded up, for a bucket goes when all in it are dead."""
        if self.by_key:
            return pl.col(dead)
        return pl.when(pl.col(dead) < NEVER_US).then(-(-pl.col(dead) // self.width_us) * self.width_us).otherwise(NEVER_US)

    def buckets_met(self, asking: pl.DataFrame, there: list[int]) -> pl.DataFrame:
        """Return for rows of the other side (numbered ``__asked``) the buckets they must look into, of those that are there."""
        live = pl.DataFrame({"bucket": there}, schema={"bucket": pl.Int64})
        if self.offset_us is None or self.other_time is None:
            return asking.join(live, how="cross")
        # own time > other time + offset, so own rows it meets are dead at or after its time.
        first = -(-self.other_time // self.width_us)
        if self.other_offset_us is None:
            return asking.with_columns(first=first * self.width_us).join(live, how="cross").filter(pl.col("bucket") >= pl.col("first"))
        last = -(-(self.other_time - self.offset_us - self.other_offset_us) // self.width_us)
        ranges = asking.with_columns(bucket=pl.int_ranges(first, last + 1)).explode("bucket").with_columns(pl.col("bucket") * self.width_us)
        return ranges.join(live, on="bucket", how="semi", maintain_order="left")


def lifetimes(node: JoinStreams) -> dict[str, Lifetime]:
    """Return when the rows of either side are dead."""
    bounds, columns = bounds_of_join(node), columns_of_join(node)
    times = {side: _event_micros(below, columns.sides[side]) for side, below in (("left", node.left), ("right", node.right))}
    found: dict[str, Lifetime] = {}
    for side, other in (("left", "right"), ("right", "left")):
        found[side] = _lifetime(columns.sides[side], bounds, times[side], times[other], watermark_delay_us(node))
    return found


def _lifetime(side: JoinSide, bounds: JoinBounds, own: pl.Expr | None, other: pl.Expr | None, delay_us: int) -> Lifetime:
    offsets = [bounds.left_us, bounds.right_us] if side.side == "left" else [bounds.right_us, bounds.left_us]
    if bounds.key is not None:
        dead = _micros(pl.col(side.keys[bounds.key]), side.key_types[bounds.key]).fill_null(NEVER_US)
    elif own is not None and offsets[0] is not None:
        dead = (own - offsets[0]).fill_null(NEVER_US)
    else:
        dead = pl.lit(NEVER_US, pl.Int64)
    span_us = delay_us + sum(abs(offset) for offset in offsets if offset is not None)
    narrowest = 1 if None not in offsets else _WIDEST_US
    return Lifetime(
        dead=dead,
        by_key=bounds.key is not None,
        offset_us=offsets[0],
        other_offset_us=offsets[1],
        width_us=max(span_us // _BUCKETS, narrowest),
        other_time=other,
    )


def _event_micros(node: Node, side: JoinSide) -> pl.Expr | None:
    column = time_of(event_times(node))
    return None if column is None else _micros(pl.col(side.names[column]), schema_of(node)[column])


def _micros(time: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    assert isinstance(dtype, pl.Datetime)
    return to_micros(time, dtype)


class SideState:
    """The rows a side keeps, in tables ``<name>/<side>``, ``.waiting`` and ``.met`` (see ``side_tables``)."""

    def __init__(self, node: JoinStreams, side: str, open_table: Callable[[str, TableSpec], StateTable]) -> None:
        columns = columns_of_join(node)
        self.side = columns.sides[side]
        self.lifetime = lifetimes(node)[side]
        self.dead, self.bucket, self.row = _private(side)
        self._other = columns.sides["right" if side == "left" else "left"]
        self._nulls_equal = node.nulls_equal
        below = node.left if side == "left" else node.right
        self.late = LateFilter(time_of(event_times(below)), schema_of(below))
        self.preserved = side in PRESERVED[node.how]
        self._leaves_when_met = side == "left" and node.how in ONE_SIDED
        tables = {name: open_table(name, spec) for name, spec in side_tables(node, side).items()}
        self._rows = tables[f"{side}"]
        self._waiting = tables.get(f"{side}.waiting")
        self._met = tables.get(f"{side}.met")
        self.updated = self.removed = 0

    def arriving(self, rows: pl.LazyFrame, batch: Batch) -> pl.LazyFrame:
        """Return the rows that are not late, placed, with the time they are dead at; those that can meet none only of a preserved side."""
        placed = self.side.placed(self.late.on_time(rows, batch))
        if not self.preserved:
            placed = placed.filter(*self.side.conditions, *self._keys_there())
        return placed.with_columns(self.lifetime.dead.alias(self.dead))

    def _keys_there(self) -> list[pl.Expr]:
        return [] if self._nulls_equal else [pl.col(k).is_not_null() for k in self.side.keys]

    def numbered(self, rows: pl.DataFrame, batch_id: int) -> pl.DataFrame:
        """Return collected rows with a number that no other row of the side has, the same in each run of the batch."""
        first = batch_id * _ROWS_OF_A_BATCH
        return rows.with_columns(pl.int_range(first, first + rows.height, dtype=pl.Int64, eager=True).alias(self.row))

    def meet(self, others: pl.DataFrame) -> pl.DataFrame:
        """Return the rows kept from batches before that have the keys of the other side's rows, side by side with these."""
        asking = others.with_row_index(_ASKED)
        if not self._nulls_equal:
            asking = asking.filter(pl.col(k).is_not_null() for k in self._other.keys)
        asked = self._asked(asking)
        at, rows = self._rows.matches(asked.select(self._rows_keys()))
        return others[asked[_ASKED].gather(at)].hstack(rows.drop(self.bucket))

    def _rows_keys(self) -> list[str]:
        return [*self.side.keys, self.bucket]

    def _asked(self, asking: pl.DataFrame) -> pl.DataFrame:
        """Return the keys that are asked for, in each bucket they are asked for in."""
        keys = [pl.col(theirs).alias(ours) for theirs, ours in zip(self._other.keys, self.side.keys, strict=True)]
        if self.lifetime.by_key:
            return asking.select(_ASKED, *keys).with_columns(self.lifetime.dead.alias(self.bucket))
        met = self.lifetime.buckets_met(asking, self._rows.times() if self._rows.rows else [])
        return met.select(_ASKED, *keys, pl.col("bucket").alias(self.bucket))

    def note_met(self, pairs: pl.DataFrame, arrived: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return which of the arrived rows met one, and which rows of batches before did for the first time; each by number."""
        if self._met is None:
            return pairs.select(self.row).clear(), pairs.select(self.row).clear()
        met = pairs.select(self.dead, self.row).unique(self.row)
        is_new = pl.col(self.row) >= (arrived[self.row].min() if arrived.height else NEVER_US)
        older = self._met.prepare(met.filter(~is_new).with_columns(pl.lit(1, pl.Int8).alias(_MET)))
        first = older.filter(self._met.lookup(older)[_MET].is_null())
        self._met.upsert(first, known=0)
        return met.filter(is_new).select(self.row), first.select(self.row)

    def keep(self, arrived: pl.DataFrame, met: pl.DataFrame, eviction_us: int | None) -> None:
        """Keep the arrived rows that may meet more; those that met none wait, if that must be told."""
        alone = arrived.join(met, on=self.row, how="anti") if self.preserved or self._leaves_when_met else arrived
        if self._waiting is not None:
            self._waiting.append(alone.select(self._waiting_columns()))
        stays = alone if self._leaves_when_met else arrived
        if eviction_us is not None:
            stays = stays.filter(pl.col(self.dead) > eviction_us)
        kept = stays.with_columns(self.lifetime.bucket(self.dead).alias(self.bucket))
        self._rows.append(kept)
        self.updated = kept.height

    def _waiting_columns(self) -> list[str]:
        return [*self.side.columns, self.dead, self.row]

    def evict(self, eviction_us: int | None) -> pl.DataFrame:
        """Forget dead rows; return those that met none, if that must be told."""
        self.removed = 0
        if eviction_us is None:
            return pl.DataFrame(schema=self.side.columns)
        before = self._rows.rows
        self._rows.evict_count(eviction_us)
        self.removed = before - self._rows.rows
        met = None if self._met is None else self._met.evict(eviction_us)
        if self._waiting is None or met is None:
            return pl.DataFrame(schema=self.side.columns)
        return self._waiting.evict(eviction_us).join(met, on=self.row, how="anti").select(list(self.side.columns))

    @property
    def rows(self) -> int:
        """Rows kept."""
        return self._rows.rows

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return sum(table.bytes for table in (self._rows, self._waiting, self._met) if table is not None)


def _private(side: str) -> tuple[str, str, str]:
    return f"__{side}_dead", f"__{side}_bucket", f"__{side}_row"


def side_tables(node: JoinStreams, side: str) -> dict[str, TableSpec]:
    """Return the tables of a side by what their names end in.

    The rows; for rows whose first match must be known which of them met one in a later batch than their own; for rows that must come out
    if they met none a log of those that had met none in their own batch.
    """
    columns = columns_of_join(node).sides[side]
    dead, bucket, row = _private(side)
    numbered = pl.Schema({**columns.columns, dead: pl.Int64(), row: pl.Int64()})
    computed = {k: dtype for k, dtype in zip(columns.keys, columns.key_types, strict=True) if k not in columns.columns}
    schema = pl.Schema({**numbered, **computed, bucket: pl.Int64()})
    tables = {f"{side}": TableSpec(keys=(*columns.keys, bucket), time_key=bucket, schema=schema, expiry=dead)}
    preserved = side in PRESERVED[node.how]
    if preserved:
        tables[f"{side}.waiting"] = TableSpec(keys=(row, dead), time_key=dead, schema=numbered, reduce=_unchanged)
    if preserved or (side == "left" and node.how in ONE_SIDED):
        met = pl.Schema({dead: pl.Int64(), row: pl.Int64(), _MET: pl.Int8()})
        tables[f"{side}.met"] = TableSpec(keys=(dead, row), time_key=dead, schema=met)
    return tables


def _unchanged(rows: pl.DataFrame) -> pl.DataFrame:
    return rows
