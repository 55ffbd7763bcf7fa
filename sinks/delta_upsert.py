"""Update mode on a Delta table: rows replace the rows with their keys."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from microbatch.errors import PlanError
from microbatch.sinks.delta_types import NESTED

# Keys that files may be skipped by. Left out: Float, as files' statistics know nothing of NaN; Decimal, as they keep it in a double.
# Either would insert a second row beside the one it should replace (seen with deltalake 1.6.6).
_PRUNABLE = (pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.String, pl.Date, pl.Datetime)


def check_keys(keys: Sequence[str], schema: pl.Schema) -> None:
    """Raise PlanError unless rows of this (Delta) schema can be told apart by these columns."""
    if not keys:
        msg = "update mode replaces rows by key, and this query has no grouping keys; give the sink on=[...], or use another mode"
        raise PlanError(msg)
    missing = [name for name in keys if name not in schema]
    if missing:
        msg = f"no column {missing} to replace rows by; the query has {list(schema)}"
        raise PlanError(msg)
    nested = [name for name in keys if isinstance(schema[name], NESTED)]
    if nested:
        msg = f"columns {nested} are lists, structs or maps, which Delta cannot compare; unnest them, or give other keys with on=[...]"
        raise PlanError(msg)
    ticked = [name for name in schema if "`" in name]
    if ticked:
        msg = f"columns {ticked}: a backtick in a name cannot be written in update mode; .rename them"
        raise PlanError(msg)


def one_row_per_key(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return the last row of each key, in order; null equals null, NaN equals NaN, -0.0 becomes 0.0 in the keys."""
    # Not `+ 0.0`: Polars takes that for nothing to do.
    unsigned_zeros = [
        pl.when(pl.col(name) == 0).then(pl.lit(0.0, rows.schema[name])).otherwise(pl.col(name)).alias(name)
        for name in keys
        if rows.schema[name].is_float()
    ]
    return rows.with_columns(unsigned_zeros).unique(subset=list(keys), keep="last", maintain_order=True)


def same_key(rows: pl.DataFrame, keys: Sequence[str]) -> str:
    """Return the SQL condition under which a row of the table (``t``) has the key of one of ``rows`` (``s``); null matches null.

    ``IS NOT DISTINCT FROM`` would say it shorter, but makes deltalake compare every row with every row; this is all equalities, so it is
    a hash join, and files whose statistics hold none of the keys are left alone.
    """
    return " AND ".join(_same(rows.get_column(name)) for name in keys)


def _same(column: pl.Series) -> str:
    name = column.name.replace('"', '""')
    table, row = f't."{name}"', f's."{name}"'
    if isinstance(column.dtype, _PRUNABLE) and column.null_count() == 0:
        return f"{table} = {row}"
    as_text = "coalesce(encode({0}, 'hex'), '')" if column.dtype == pl.Binary else "coalesce(cast({0} as varchar), '')"
    return f"({table} IS NULL) = ({row} IS NULL) AND {as_text.format(table)} = {as_text.format(row)}"
