"""Files that land in folders, each read once, in the order in which they came."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import polars as pl
import pyarrow as pa

from microbatch.durations import Duration
from microbatch.errors import CheckpointCorruptError, CheckpointMismatchError
from microbatch.protocols import Folder, SourceContext
from microbatch.sources.file_formats import show, unknown_name
from microbatch.sources.file_options import check_file_options, infer_file_schema
from microbatch.sources.file_reader import FileReader
from microbatch.sources.file_rows import Malformed, read_files
from microbatch.sources.seen_files import SeenFiles

__all__ = ["FileReader", "FileSource", "SeenFiles"]

_PIN = "schema.json"
_OPTIONS = (
    "schema", "format", "max_files_per_trigger", "max_bytes_per_trigger", "latest_first", "max_file_age", "clean_source", "archive_dir",
    "recursive", "hive_partitioning", "malformed", "storage_options", "include_file_path", "format_options", "log_compact_interval",
)  # fmt: skip


class FileSource:
    """The rows of files that land somewhere: new files by the time of their last change, then by path, each once.

    A file must be whole when it gets its name: write it under a name that begins with ``.`` or ``_`` (these are never read) and rename it.
    A file that changes after it was listed is not read again.

    Parameters
    ----------
    path
        Folder (the files directly in it), file, glob, fsspec URL, or a list of them. A glob means the files at its depth and those
        directly in folders at its depth; ``**`` is any depth.
    schema
        Columns and dtypes. None: inferred once from the oldest file and pinned in the checkpoint.
    format
        ``csv``, ``ndjson`` (``json``), ``parquet``, ``ipc`` (``arrow``, ``feather``) or ``text`` (one column ``value``, a row a line);
        None: by the extension, also before ``.gz`` and ``.zst`` for text formats.
    max_files_per_trigger, max_bytes_per_trigger
        Most files, or bytes of files (at least one file), a batch takes; one of the two, None: no limit.
    latest_first
        Take the newest files first. With a limit ``max_file_age`` is then ignored.
    max_file_age
        A file this much older than the newest one read is not new any more: it is counted and left. An age, not a time of day.
    clean_source, archive_dir
        What becomes of files whose batch is over: ``"off"`` (stay), ``"delete"``, or ``"archive"``: moved into ``archive_dir`` under their
        path below the source's folder. Never fails the query.
    recursive
        Also files in folders below, at any depth.
    hive_partitioning
        Take columns of the schema from ``key=value`` folders; None: for paths without a glob.
    malformed
        ``"fail"``: the query stops at a malformed row (see ``rescue.judge``) and names it. ``"drop"``: such rows are counted in
        the progress as ``malformedRows``, unreadable files as ``malformedFiles``. ``"rescue"``: the schema has a last column ``_rescued``,
        Struct{file, reason, raw}, null for good rows; a malformed row is null but for it, an unreadable file is one such row without raw.
    storage_options
        Options of the fsspec file system of a URL.
    include_file_path
        Name of a column for the path of each row's file.
    format_options
        For CSV ``has_header``, ``separator``, ``quote_char``, ``null_values``, ``empty_string_is_null``, ``encoding``, ``decimal_comma``,
        and for inference ``try_parse_dates``, ``infer_schema_length`` (also NDJSON), as Polars' ``scan_csv`` takes them.
    log_compact_interval
        Distance of merged entries in the source's log; kept as it was at the first start.

    Raises
    ------
    PlanError
        An option or value cannot be. Nothing is looked at outside before ``schema``, ``open`` or ``read_all``.
    """

    def __init__(
        self,
        path: str | PathLike[str] | Sequence[str | PathLike[str]],
        *,
        schema: Mapping[str, Any] | pl.Schema | None = None,
        format: str | None = None,  # noqa: A002 - the word every reader of files uses
        max_files_per_trigger: int | None = None,
        max_bytes_per_trigger: int | None = None,
        latest_first: bool = False,
        max_file_age: Duration = "7d",
        clean_source: str = "off",
        archive_dir: str | None = None,
        recursive: bool = False,
        hive_partitioning: bool | None = None,
        malformed: str = "fail",
        storage_options: Mapping[str, object] | None = None,
        include_file_path: str | None = None,
        format_options: Mapping[str, Any] | None = None,
        log_compact_interval: int = 10,
        **unknown: object,
    ) -> None:
        for name in unknown:
            raise unknown_name(name, _OPTIONS, what="option of a file source")
        self._options = check_file_options(
            path,
            schema=schema,
            file_format=format,
            max_files=max_files_per_trigger,
            max_bytes=max_bytes_per_trigger,
            latest_first=latest_first,
            max_file_age=max_file_age,
            clean_source=clean_source,
            archive_dir=archive_dir,
            recursive=recursive,
            hive_partitioning=hive_partitioning,
            malformed=malformed,
            storage_options=storage_options,
            include_file_path=include_file_path,
            format_options=format_options,
            log_compact_interval=log_compact_interval,
        )
        self._answer = self._options.schema
        self._answering = threading.Lock()

    @property
    def description(self) -> str:
        """One line for progress and ``explain``."""
        paths = ["/".join([pattern.base, *pattern.parts]) for pattern in self._options.patterns]
        return f"FileSource[{', '.join(paths)}]"

    def schema(self) -> pl.Schema:
        """Return the columns; without a declared schema the first call looks at the oldest file.

        Raises
        ------
        PlanError
            There is no file to infer from yet, or the extensions do not tell the format.
        SourceError
            The folder or the file cannot be read.
        """
        return self._options.reading(self._file_schema()).output_schema

    def open(self, context: SourceContext) -> FileReader:
        """Return a reader; raises CheckpointMismatchError if the checkpoint was begun with other inferred columns."""
        self._agree_with(context.folder)
        return FileReader(self._options, self._options.reading(self._file_schema()), context)

    def read_all(self) -> pl.LazyFrame:
        """Return the rows of all files there are now, oldest first."""
        files = self._options.listing().all()
        return read_files(files["path"].to_list(), self._options.reading(self._file_schema()), Malformed())

    def _file_schema(self) -> pl.Schema:
        with self._answering:
            if self._answer is None:
                self._answer = infer_file_schema(self._options)
            return self._answer

    def _agree_with(self, folder: Folder) -> None:
        """Pin inferred columns at the first start; later take the pinned ones, unless others were given or answered already."""
        pinned = _read_pin(folder)
        if pinned is None:
            if self._options.schema is None:
                folder.add(_PIN, _pin(self._file_schema()))
            return
        with self._answering:
            self._answer = self._answer or pinned
        if self._answer != pinned:
            now = "given" if self._options.schema is not None else "inferred"
            msg = (
                f"{self.description}: the checkpoint {folder.path} was begun with the columns {show(pinned)}, {now} now are "
                f"{show(self._answer)}; pass schema= with the first, or take a new checkpoint"
            )
            raise CheckpointMismatchError(msg)


def _pin(schema: pl.Schema) -> bytes:
    # The dtypes as text are for people; only Arrow's own bytes can be read back without loss.
    arrow = schema.to_frame().to_arrow().schema.serialize().to_pybytes()
    content = {"columns": {name: str(dtype) for name, dtype in schema.items()}, "arrow": base64.b64encode(arrow).decode()}
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def _read_pin(folder: Folder) -> pl.Schema | None:
    data = folder.read(_PIN)
    if data is None:
        return None
    try:
        arrow = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(json.loads(data)["arrow"])))
    except (ValueError, KeyError, TypeError, OSError) as error:
        msg = f"{folder.path}/{_PIN} is damaged ({error}); restore it from a copy"
        raise CheckpointCorruptError(msg) from error
    return pl.Schema(pl.DataFrame(arrow.empty_table()).schema)
