"""Reading a file sink's folder by its log."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from microbatch.errors import SinkError
from microbatch.sinks.file_formats import format_named
from microbatch.sinks.file_log import COMMITTED, committed_files, local_folder, read_owner


def read_file_sink(path: str | os.PathLike[str]) -> pl.LazyFrame:
    """Return the rows a file sink has committed, in the order of the batches, with exactly the columns the query wrote.

    Goes by the folder's log: batches not committed and files that others put there are not seen. A batch committed later is
    not in the frame either, so read anew. Folders written by Spark work for Parquet; their partition columns come last.

    Parameters
    ----------
    path
        The folder given to ``sink_files``.

    Raises
    ------
    SinkError
        No sink has written there, the log is damaged, or files it names are gone.
    """
    folder = local_folder(os.fspath(path))
    owner, files = read_owner(folder), committed_files(folder)
    if owner is None and files is None:
        msg = f"no file sink has written to {folder} yet: it has no {COMMITTED}; run the query, or read the files with pl.scan_parquet(...)"
        raise SinkError(msg)
    files = files or []
    if missing := next((file for file in files if not Path(file).exists()), None):
        msg = (
            f"the log of {folder} names {missing}, which is gone; the log holds full paths, so move a moved folder back, "
            "or read the files by pattern"
        )
        raise SinkError(msg)
    if owner is None:
        return _scan_of_spark(files, folder)
    if not files:
        return pl.LazyFrame(schema=owner.schema)
    scan = format_named(owner.format).scan(files, owner.schema, owner.reading, owner.partition_by)
    return scan.select(owner.schema.names())


def _scan_of_spark(files: list[str], folder: Path) -> pl.LazyFrame:
    if not files or not files[0].endswith(".parquet"):
        msg = f"{folder} was not written by microbatch and holds no parquet files; read it with pl.scan_csv, pl.scan_ndjson or pl.scan_ipc"
        raise SinkError(msg)
    partitioned = any("=" in part for part in Path(files[0]).relative_to(folder).parts[:-1])
    return pl.scan_parquet(files, glob=False, hive_partitioning=partitioned)
