"""Hands each batch, with what is kept for its keys, to a user's function, and keeps what it returns (Spark: TransformWithStateExec).

One row of ``table`` per key: its variables, for those with a time to live when they expire, and its timers, ascending. A key whose
variables are all null and that has no timer is not there. Which keys are due is found in a log of reminders (``operators.timers``), never
by a scan of the state: one log for timers, one for what expires. A reminder may be stale; the key's row decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import polars as pl

from microbatch.clock import stopwatch_us
from microbatch.errors import DataError
from microbatch.model import Json, Marks
from microbatch.operators.base import Batch, OperatorProgress
from microbatch.operators.late import LateFilter, late
from microbatch.operators.timers import Timers, timers_table
from microbatch.plan.keyed_state import AT, EXPIRES, FIRED, TIMED_OUT, StateBatch, StateChange, TimeMode
from microbatch.plan.nodes import MapState
from microbatch.plan.schema import event_time, schema_of, stored_type
from microbatch.plan.state_call import call
from microbatch.protocols import StateTable, TableSpec

_TIMERS, _NEW_TIMERS, _FIRED = "__timers", "__new_timers", "__fired"
_HAS_ROWS, _KNOWN, _CHANGED, _REMOVED = "__has_rows", "__known", "__changed", "__removed"
_NEW = "__new"


def state_tables(node: MapState) -> dict[str, TableSpec]:
    """Return the tables by what they hold: the state, the reminders of timers, the reminders of what expires."""
    keys = stored_keys(node)
    expiries = {f"{EXPIRES}{v}": pl.Int64() for v in node.ttl_us}
    timers = {_TIMERS: pl.List(pl.Int64)} if node.time else {}
    tables = {
        "state": TableSpec(keys=node.keys, time_key=None, schema=pl.Schema({**keys, **node.state, **expiries, **timers}), removable=True)
    }
    if node.time is not None:
        tables["timers"] = timers_table(keys)
    if node.ttl_us:
        tables["expiries"] = timers_table(keys)
    return tables


def stored_keys(node: MapState) -> dict[str, pl.DataType]:
    """Return the keys as the state keeps them."""
    schema = schema_of(node.input)
    return {k: stored_type(schema[k]) for k in node.keys}


def map_state_fingerprint(node: MapState) -> dict[str, Json]:
    """Return what must stay for the state to keep its meaning; the function, its output and times to live may change."""
    schema = schema_of(node.input)
    return {
        "kind": "map_state",
        "keys": [[k, str(schema[k])] for k in node.keys],
        "state": [[name, str(dtype)] for name, dtype in node.state.items()],
        "expires": [*sorted(node.ttl_us)],
        "timeout": node.timeout,
        "timers": node.timers,
        "initial_state": _digest(node.initial),
    }


def _digest(frame: pl.DataFrame | None) -> str | None:
    """Return what tells the values of a frame from others, whatever release of Polars holds them; once a start."""
    if frame is None:
        return None
    return hashlib.sha256(repr([frame[column].to_list() for column in frame.columns]).encode()).hexdigest()


class MapStateOperator:
    """Calls the function of ``node`` once a batch."""

    def __init__(self, operator_id: str, node: MapState, tables: Mapping[str, StateTable]) -> None:
        self.operator_id = operator_id
        self._node = node
        self._table = tables["state"]
        self._timers = Timers(tables["timers"]) if "timers" in tables else None
        self._expiries = Timers(tables["expiries"]) if "expiries" in tables else None
        schema = schema_of(node.input)
        self._keys = list(node.keys)
        self._stored = [pl.col(k).cast(dtype) for k, dtype in stored_keys(node).items()]
        self._declared = [pl.col(k).cast(schema[k]) for k in node.keys]
        self._late = LateFilter(event_time(node.input) if node.judges_time else None, schema)
        self._removed = 0
        self._updated = 0
        self._progress = OperatorProgress(name=f"map_state {operator_id}")

    def run(self, inputs: Sequence[pl.LazyFrame], batch: Batch) -> pl.LazyFrame:
        """Return the rows the function makes of the batch's rows and of the keys whose timers are due."""
        rows = batch.collect(self._late.on_time(inputs[0], batch))
        started = stopwatch_us()
        self._updated = self._removed = 0
        if batch.batch_id == 0 and self._node.initial is not None:
            self._begin(self._node.initial, batch)
        touched = self._touched(rows, batch)
        out = pl.DataFrame(schema=schema_of(self._node))
        if touched.height:
            change = call(self._node, self._asked(rows, touched, batch))
            self._check_times(change, batch)
            self._check_event_time(change.rows, batch)
            self._keep(self._changed(touched, change, batch))
            out = change.rows.select(list(out.schema))
        updated = stopwatch_us()
        self._forget_expired(batch)
        self._note(updated - started, stopwatch_us() - updated)
        return out.lazy()

    # -- what the batch touches -------------------------------------------------------------------------------------------

    def _touched(self, rows: pl.DataFrame, batch: Batch) -> pl.DataFrame:
        """Return one row per key with data or a timer that is due: keys, state, and which of its timers fire."""
        keys = rows.select(self._stored).unique(maintain_order=True).with_columns(pl.lit(value=True).alias(_HAS_ROWS))
        before = self._due_before(batch)
        if self._timers is not None and before is not None:
            # In the table's own order, so that a batch that runs again gives its rows in the same order.
            due = self._table.prepare(self._timers.due(before - 1)).select(self._keys)
            both = pl.concat([keys, due.with_columns(pl.lit(value=False).alias(_HAS_ROWS))])
            keys = both.unique(self._keys, keep="first", maintain_order=True)
        touched = self._alive(self._with_state(keys), batch.time_us)
        if self._timers is None:
            return touched
        at = pl.element()
        stays, fires = (at >= before, at < before) if before is not None else (pl.lit(value=True), pl.lit(value=False))
        timers = pl.col(_TIMERS).fill_null([])
        if self._node.timeout is not None:  # data clears it
            timers = pl.when(_HAS_ROWS).then(pl.lit([], pl.List(pl.Int64))).otherwise(timers)
        touched = touched.with_columns(timers.list.filter(stays).alias(_NEW_TIMERS), timers.list.filter(fires).alias(_FIRED))
        return touched.filter(pl.col(_HAS_ROWS) | (pl.col(_FIRED).list.len() > 0))

    def _with_state(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Return the keys, in their order, with what is kept for them, and whether there is something."""
        prepared = self._table.prepare(keys)
        values = self._table.lookup(prepared)
        known = pl.any_horizontal(pl.col(c).is_not_null() for c in values.columns).alias(_KNOWN)
        found = prepared.select(self._keys).hstack(values.with_columns(known))
        return keys.join(found, on=self._keys, how="left", nulls_equal=True, maintain_order="left")

    def _alive(self, rows: pl.DataFrame, time_us: int) -> pl.DataFrame:
        """Return the rows with variables that have expired cleared."""
        names = [(v, f"{EXPIRES}{v}") for v in self._node.ttl_us]
        return rows.with_columns(pl.when(pl.col(e) > time_us).then(pl.col(c)).alias(c) for v, e in names for c in (v, e))

    def _due_before(self, batch: Batch) -> int | None:
        """Return the time before which timers are due (exclusive), None if there is none yet."""
        return batch.time_us if self._node.time is TimeMode.PROCESSING else batch.marks.eviction_us

    def _asked(self, rows: pl.DataFrame, touched: pl.DataFrame, batch: Batch) -> StateBatch:
        expiries = [f"{EXPIRES}{v}" for v in self._node.ttl_us]
        states = touched.select(*self._declared, *self._node.state, (~pl.col(_HAS_ROWS)).alias(TIMED_OUT), *expiries)
        timers = None
        if self._timers is not None:
            both = [
                touched.select(*self._declared, pl.col(name).alias(AT), pl.lit(fired).alias(FIRED)).explode(AT).drop_nulls(AT)
                for name, fired in ((_FIRED, True), (_NEW_TIMERS, False))
            ]
            timers = pl.concat(both)
        return StateBatch(
            rows=rows,
            states=states,
            timers=timers,
            watermark_us=batch.marks.eviction_us,
            batch_time_us=batch.time_us,
            batch_id=batch.batch_id,
        )

    # -- what it leaves ---------------------------------------------------------------------------------------------------

    def _check_times(self, change: StateChange, batch: Batch) -> None:
        before = self._due_before(batch)
        if change.timers is None or before is None:
            return
        past = change.timers.filter(pl.col(AT) < before)
        if past.height:
            key, at_us = past.select(self._keys).row(0), past[AT][0]
            what = "the watermark" if self._node.time is TimeMode.EVENT else "the batch's time"
            msg = (
                f"map_state({self._node.label}) in batch {batch.batch_id} set a timer of {key} at {at_us} us, before {what}, {before} us: "
                f"it would never fire; set it later, or do now what it was to do"
            )
            raise DataError(msg)

    def _check_event_time(self, rows: pl.DataFrame, batch: Batch) -> None:
        """Raise DataError for a row that verbs behind this one would drop as late (Spark: UpdateEventTimeColumnExec)."""
        column, mark_us = self._node.event_time, batch.marks.late_us
        if column is None or mark_us is None:
            return
        too_late = rows.filter(late(column, rows.schema, mark_us))
        if too_late.height:
            mark = pl.Series([mark_us]).cast(pl.Datetime("us"))[0]
            msg = (
                f"map_state({self._node.label}) in batch {batch.batch_id} returned a row of {too_late.select(self._keys).row(0)} with "
                f"{column!r} = {too_late[column][0]}, but the watermark had come to {mark}: verbs behind it would drop the row as late; "
                f"give it a later time, or leave event_time= out"
            )
            raise DataError(msg)

    def _changed(self, touched: pl.DataFrame, change: StateChange, batch: Batch) -> pl.DataFrame:
        """Return the touched rows as they shall be kept; ``_CHANGED`` says which differ."""
        marks: list[pl.Expr] = []
        if change.states is not None:
            new = change.states.select(*self._stored, pl.exclude(self._keys).name.suffix(_NEW), pl.lit(value=True).alias(_CHANGED))
            touched = self._matched(touched, new)
            touched = touched.with_columns(self._written(change.states.columns, batch.time_us))
            marks.append(pl.col(_CHANGED))
        if change.removed is not None:
            touched = self._matched(touched, change.removed.select(self._stored).with_columns(pl.lit(value=True).alias(_REMOVED)))
            variables = [*self._node.state, *(f"{EXPIRES}{v}" for v in self._node.ttl_us)]
            touched = touched.with_columns(pl.when(pl.col(_REMOVED).is_null()).then(pl.col(v)).alias(v) for v in variables)
            marks.append(pl.col(_REMOVED))
        if self._timers is not None:
            touched = self._with_new_timers(touched, change.timers)
            marks.append(pl.col(_NEW_TIMERS).ne_missing(pl.col(_TIMERS)))
        changed = pl.any_horizontal(m.fill_null(value=False) for m in marks) if marks else pl.lit(value=False)
        return touched.with_columns(changed.alias(_CHANGED))

    def _matched(self, touched: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
        """Bring two pieces of one batch together by key."""
        return touched.join(found, on=self._keys, how="left", nulls_equal=True, maintain_order="left")

    def _written(self, columns: Sequence[str], time_us: int) -> list[pl.Expr]:
        """Return the variables, those of changed rows replaced; a write begins a variable's time to live anew."""
        exprs: list[pl.Expr] = []
        for variable in (v for v in self._node.state if v in columns):
            new, expires = pl.col(f"{variable}{_NEW}"), f"{EXPIRES}{variable}"
            exprs.append(pl.when(_CHANGED).then(new).otherwise(variable).alias(variable))
            if variable in self._node.ttl_us:
                at = pl.when(new.is_not_null()).then(time_us + self._node.ttl_us[variable])
                given = pl.col(f"{expires}{_NEW}") if expires in columns else at
                exprs.append(pl.when(_CHANGED).then(given).otherwise(expires).alias(expires))
        return exprs

    def _with_new_timers(self, touched: pl.DataFrame, timers: pl.DataFrame | None) -> pl.DataFrame:
        if timers is not None:
            lists = timers.group_by(self._keys).agg(pl.col(AT).unique().sort()).select(*self._stored, AT)
            touched = self._matched(touched, lists).with_columns(pl.col(AT).alias(_NEW_TIMERS)).drop(AT)
        return touched.with_columns(pl.when(pl.col(_NEW_TIMERS).list.len() > 0).then(_NEW_TIMERS).alias(_NEW_TIMERS))

    def _keep(self, touched: pl.DataFrame) -> None:
        """Write the changed rows; those that are left without state and timers are removed."""
        changed = touched.filter(_CHANGED)
        if self._timers is not None:
            self._remind(changed)
            changed = changed.with_columns(pl.col(_NEW_TIMERS).alias(_TIMERS))
        self._write(changed)

    def _remind(self, changed: pl.DataFrame) -> None:
        """Set reminders for timers that were not there before."""
        assert self._timers is not None
        fresh = pl.col(_NEW_TIMERS).list.set_difference(pl.col(_TIMERS).fill_null([])).alias(AT)
        new = changed.select(*self._keys, fresh).explode(AT).drop_nulls(AT)
        self._timers.set(new.select(self._keys), new[AT])

    def _write(self, rows: pl.DataFrame) -> None:
        values = [*self._node.state, *([_TIMERS] if self._timers is not None else [])]
        there = pl.any_horizontal(pl.col(c).is_not_null() for c in values)
        put, gone = rows.filter(there), rows.filter(~there & pl.col(_KNOWN))
        self._table.upsert(self._table.prepare(put), known=int(put[_KNOWN].sum()))
        self._table.remove(self._table.prepare(gone), known=gone.height)
        if self._expiries is not None and put.height:
            first = put.select(pl.min_horizontal(f"{EXPIRES}{v}" for v in self._node.ttl_us)).to_series()
            self._expiries.set(put.select(self._keys), first)
        self._updated += put.height
        self._removed += gone.height

    def _begin(self, initial: pl.DataFrame, batch: Batch) -> None:
        """Put the initial state into the empty table."""
        expiries = [
            pl.when(pl.col(v).is_not_null()).then(batch.time_us + ttl).cast(pl.Int64).alias(f"{EXPIRES}{v}")
            for v, ttl in self._node.ttl_us.items()
        ]
        timers = [pl.lit(None, pl.List(pl.Int64)).alias(_TIMERS)] if self._timers is not None else []
        self._write(initial.select(*self._stored, *self._node.state).with_columns(*expiries, *timers, pl.lit(value=False).alias(_KNOWN)))

    def _forget_expired(self, batch: Batch) -> None:
        """Clear what has expired without having been asked for: O(what is due)."""
        if self._expiries is None:
            return
        due = self._expiries.due(batch.time_us)
        if due.height:
            has_expired = pl.any_horizontal(pl.col(f"{EXPIRES}{v}") <= batch.time_us for v in self._node.ttl_us)
            self._write(self._alive(self._with_state(due).filter(has_expired), batch.time_us))

    # -- for the engine ---------------------------------------------------------------------------------------------------

    def _note(self, update_us: int, removal_us: int) -> None:
        tables = [t for t in (self._table, self._timers, self._expiries) if t is not None]
        self._progress = OperatorProgress(
            name=f"map_state {self.operator_id}",
            rows_total=self._table.rows,
            rows_updated=self._updated,
            rows_removed=self._removed,
            rows_late=self._late.rows,
            memory_bytes=sum(t.bytes for t in tables),
            update_ms=update_us // 1_000,
            removal_ms=removal_us // 1_000,
        )

    def wants_batch(self, marks: Marks, time_us: int) -> bool:
        """Return True if the watermark moved (Spark), or a processing-time timer is due; Spark makes a batch at every trigger then."""
        match self._node.time:
            case TimeMode.EVENT:
                return marks.moved
            case TimeMode.PROCESSING:
                assert self._timers is not None
                first = self._timers.next_us()
                return first is not None and first < time_us
            case None:
                return False

    def progress(self) -> OperatorProgress:
        """Return what the last batch did."""
        return self._progress
