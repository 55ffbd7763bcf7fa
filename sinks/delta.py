"""The Delta sink: each batch is one commit that carries (query id, batch id), so that no batch counts twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath

import polars as pl

from microbatch.durations import Duration, positive_us
from microbatch.errors import PlanError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import SinkContext
from microbatch.sinks.delta_table import RETENTION, TargetTable, absolute
from microbatch.sinks.delta_types import NESTED, check_unmapped, delta_schema
from microbatch.sinks.delta_upsert import check_keys
from microbatch.sinks.delta_writer import DeltaWriter


@dataclass(frozen=True, slots=True)
class DeltaSink:
    """Rows go to a Delta table, exactly once; the first batch creates it.

    ``append`` adds the rows; ``update`` replaces rows by key (the last row of a key in a batch wins, null and NaN are keys like any
    other); ``complete`` replaces the whole table. A batch without rows is committed too, for its id.
    An upsert prunes by keys that are integers, strings, dates, times or booleans and not null in the batch; other keys read all files.

    Parameters
    ----------
    table
        Folder or URI. Relative folders are resolved when the query opens the sink.
    partition_by
        Columns the table is partitioned by when it is created; an existing table must have the same. Empty: as the table is.
        Delta readers other than deltalake take an empty string in such a column for null.
    merge_schema
        Add columns the table lacks, and leave null those the query lacks. Types never change, and columns are never dropped.
    storage_options
        Credentials and options of the object store, in deltalake's spelling.
    table_properties
        Delta table properties such as ``delta.appendOnly``, set at creation; an existing table must have the same.
    checkpoint_every
        Table versions between two Delta checkpoints, made in the background.
    log_retention
        How long the table's old log entries are kept, as ``"1 day"``; None: as the table says (Delta: 30 days). Shorten it for queries
        that commit every few seconds: commits slow down by 2 to 3 ms for each thousand entries.
    on
        Key columns of update mode, instead of the query's grouping keys.
    map_types
        Store types Delta lacks as the next one that holds their values (see ``delta_schema``); False refuses them.

    Raises
    ------
    PlanError
        An option is wrong.
    """

    table: str | PathLike[str]
    partition_by: str | Sequence[str] = field(default=(), kw_only=True)
    merge_schema: bool = field(default=False, kw_only=True)
    storage_options: Mapping[str, str] | None = field(default=None, kw_only=True, repr=False)
    table_properties: Mapping[str, str] | None = field(default=None, kw_only=True)
    checkpoint_every: int = field(default=50, kw_only=True)
    log_retention: Duration | None = field(default=None, kw_only=True)
    on: str | Sequence[str] | None = field(default=None, kw_only=True)
    map_types: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if not fspath(self.table):
            msg = "DeltaSink needs the table's folder or URI; it is empty"
            raise PlanError(msg)
        if self.checkpoint_every < 1:
            msg = f"checkpoint_every={self.checkpoint_every} must be 1 or more table versions"
            raise PlanError(msg)
        for option, names in (("partition_by", self._partitions()), ("on", self._on())):
            if len(set(names)) < len(names):
                msg = f"{option}={list(names)} names a column twice"
                raise PlanError(msg)
        self._properties()

    @property
    def description(self) -> str:
        """``DeltaSink[<table>]``."""
        return f"DeltaSink[{fspath(self.table)}]"

    @property
    def delivery(self) -> Delivery:
        """Exactly once, by the transaction id in the table's log."""
        return Delivery.EXACTLY_ONCE

    @property
    def durable(self) -> bool:
        """True."""
        return True

    def check(self, mode: OutputMode, schema: pl.Schema, keys: tuple[str, ...]) -> None:
        """Raise PlanError unless a Delta table can hold such rows and, in update mode, they have keys."""
        held = delta_schema(schema)
        if not self.map_types:
            check_unmapped(schema)
        _check_partitions(self._partitions(), held)
        if mode is OutputMode.UPDATE:
            check_keys(self._on() or keys, held)
        elif self._on():
            msg = f"on={list(self._on())} are the keys of update mode; this query runs in {mode} mode: leave it out, or use update mode"
            raise PlanError(msg)

    def open(self, context: SinkContext) -> DeltaWriter:
        """Return a writer; an existing table is compared with the query, a missing one is left to the first batch.

        Raises
        ------
        PlanError
            The table has other columns, types, partition columns or properties, or allows appends only.
        SinkError
            The folder holds other files, the log is damaged, or the table cannot be reached.
        """
        self.check(context.mode, context.schema, context.keys)
        target = TargetTable(
            uri=absolute(fspath(self.table)),
            options=dict(self.storage_options or {}),
            schema=delta_schema(context.schema),
            partition_by=self._partitions(),
            properties=self._properties(),
            merge_schema=self.merge_schema,
            mode=context.mode,
            keys=self._on() or context.keys,
        )
        return DeltaWriter(target, context, checkpoint_every=self.checkpoint_every)

    def _partitions(self) -> tuple[str, ...]:
        return (self.partition_by,) if isinstance(self.partition_by, str) else tuple(self.partition_by)

    def _on(self) -> tuple[str, ...]:
        return (self.on,) if isinstance(self.on, str) else tuple(self.on or ())

    def _properties(self) -> dict[str, str]:
        properties = dict(self.table_properties or {})
        if RETENTION in properties:
            positive_us(properties[RETENTION].lower(), what=RETENTION)  # deltalake takes any text, and then keeps 30 days
        if self.log_retention is None:
            return properties
        if RETENTION in properties:
            msg = f"log_retention={self.log_retention!r} and table_properties[{RETENTION!r}] say the same thing; give one of them"
            raise PlanError(msg)
        seconds = -(-positive_us(self.log_retention, what="log_retention") // 1_000_000)
        return {**properties, RETENTION: f"interval {seconds} seconds"}


def _check_partitions(names: Sequence[str], held: pl.Schema) -> None:
    missing = [name for name in names if name not in held]
    if missing:
        msg = f"partition_by: no column {missing}; the query has {list(held)}"
        raise PlanError(msg)
    unfit = [name for name in names if isinstance(held[name], (*NESTED, pl.Binary))]
    if unfit:
        msg = f"partition_by: columns {unfit} hold lists, structs, maps or bytes, which cannot name a folder; take other columns"
        raise PlanError(msg)
    if names and len(names) == len(held):
        msg = f"partition_by={list(names)} are all the columns; a Delta table needs one that is not in the folder's name"
        raise PlanError(msg)
