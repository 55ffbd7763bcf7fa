"""One run of a file source: which files are new, which make the next batch, and where that is written down before it counts."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import polars as pl

from microbatch.errors import CheckpointCorruptError, CheckpointInUseError, CheckpointMismatchError
from microbatch.model import Offset
from microbatch.protocols import SourceContext
from microbatch.sources.file_cleaner import FileCleaner
from microbatch.sources.file_formats import has_footer
from microbatch.sources.file_log import from_lines, to_lines
from microbatch.sources.file_options import FileOptions
from microbatch.sources.file_rows import Malformed, Reading, read_files
from microbatch.sources.seen_files import SeenFiles

_log = logging.getLogger("microbatch.sources")

# Spark: FileStreamSource.DISCARD_UNSEEN_FILES_RATIO, MAX_CACHED_UNSEEN_FILES
_LEAST_UNREAD_SHARE = 0.2
_MOST_UNREAD_FILES = 10_000


class FileReader:
    """Reads the files of a source batch by batch (Spark: FileStreamSource).

    The offset of a batch is the id of the entry that lists its files in the source's log, so an offset and its files never come apart.
    """

    def __init__(self, options: FileOptions, reading: Reading, context: SourceContext) -> None:
        self._options = options
        self._reading = reading
        self._where = context.folder.path
        self._log = context.open_log(context.folder, options.log_compact_interval)
        self._listing = options.listing()
        self._cleaner = FileCleaner(options.archive_dir, options.bases, options.storage_options)
        self._seen = SeenFiles(max_age_us=options.max_age_us)
        self._seen.add_all(from_lines(self._log.all_lines(), self._where))
        self._seen.purge()
        latest = self._log.latest_id()
        self._latest = -1 if latest is None else latest
        self._newest_paths: list[str] | None = None  # those of the log's last entry, if this run wrote it
        self._last_read: tuple[Offset, Offset, pl.LazyFrame] | None = None
        self._unread: pl.DataFrame | None = None  # what the last listing found and no batch took
        self._frozen = False
        self._aged_out = 0
        self._malformed = Malformed()

    def latest_offset(self, start: Offset, *, limited: bool) -> Offset:
        """Return the end of the next batch; its files are in the log, durably, when this returns. Raises SourceError."""
        position = self._position(start)
        if position > self._latest:
            msg = f"{self._where}: offset {position} was planned, but the file log ends at {self._latest}; restore the folder from a copy"
            raise CheckpointCorruptError(msg)
        if position < self._latest and limited:
            # Listed before a crash that came before the offset was logged: the same files make the same batch.
            return {"logOffset": position + 1}
        files = self._next_files(limited=limited)
        if not files.is_empty():
            self._add(files)
        return {"logOffset": self._latest} if position < self._latest else start

    def freeze(self) -> None:
        """Fix the end at the files that are there now."""
        self._unread = self._new_files()
        self._frozen = True

    def read(self, start: Offset, end: Offset) -> pl.LazyFrame:
        """Return the rows of the files after ``start`` up to ``end``, in the order of the log. Raises SourceError."""
        paths = self._paths(self._position(start) + 1, self._position(end))
        self._malformed = Malformed()
        self._last_read = (start, end, read_files(paths, self._reading, self._malformed))
        return self._last_read[2]

    def row_count(self, start: Offset, end: Offset) -> int | None:
        """Return the number of rows if the footers of the files tell it."""
        if not (self._reading.malformed == "fail" and self._reading.file_format and has_footer(self._reading.file_format)):
            return None
        read = self._last_read
        rows = read[2] if read is not None and read[:2] == (start, end) else self.read(start, end)
        return int(rows.select(pl.len()).collect().item())

    def commit(self, end: Offset) -> None:
        """Clean up the files of the batch that ends at ``end``, if asked to."""
        if self._options.clean_source == "off" or end is None:
            return
        # Only this one: earlier ones had their own call, in this run or the one before.
        position = self._position(end)
        self._cleaner.clean(self._paths(position, position))

    def metrics(self) -> Mapping[str, str]:
        """Return how much was malformed in the batch read last, and how many files were too old to be new in the last listing."""
        figures = {"agedOutFiles": str(self._aged_out)} if self._aged_out else {}
        if self._reading.malformed == "fail":
            return figures
        rows, files = sum(self._malformed.rows.values()), len(self._malformed.files)
        return {"malformedRows": str(rows), "malformedFiles": str(files), **figures}

    def close(self) -> None:
        """Nothing is held open."""

    def _add(self, files: pl.DataFrame) -> None:
        """Make files the next entry of the log; then they are met."""
        entry_id = self._latest + 1
        if not self._log.add(entry_id, to_lines(files, entry_id)):
            msg = f"{self._where}: another run has listed files for batch {entry_id} meanwhile; let one query at a time use a checkpoint"
            raise CheckpointInUseError(msg)
        self._latest = entry_id
        self._newest_paths = files["path"].to_list()
        self._seen.add_all(files)
        self._seen.purge()

    def _next_files(self, *, limited: bool) -> pl.DataFrame:
        files = self._unread if self._unread is not None and (limited or self._frozen) else self._new_files()
        n_files = self._within_limit(files) if limited else files.height
        self._unread = self._kept_for_later(files.slice(n_files))
        return files.head(n_files)

    def _within_limit(self, files: pl.DataFrame) -> int:
        """Return how many of the first files one batch may take: at least one, if there is one."""
        if self._options.max_files is not None:
            return min(self._options.max_files, files.height)
        if self._options.max_bytes is not None:
            fitting = files.select((pl.col("bytes").cum_sum() <= self._options.max_bytes).sum()).item()
            return min(max(int(fitting), 1), files.height)
        return files.height

    def _kept_for_later(self, rest: pl.DataFrame) -> pl.DataFrame | None:
        """Return the files that serve the next batch; None if it looks for files again, not to be a small one while others wait."""
        if self._frozen:
            return rest
        if self._options.latest_first or rest.is_empty():
            return None
        limit, left = (
            (self._options.max_bytes, int(rest["bytes"].sum()))
            if self._options.max_bytes is not None
            else (self._options.max_files, rest.height)
        )
        return rest.head(_MOST_UNREAD_FILES) if limit is not None and left >= limit * _LEAST_UNREAD_SHARE else None

    def _new_files(self) -> pl.DataFrame:
        """Return the new files there are, in the order in which they are read."""
        paths = self._listing.paths()
        # Only of files not met is the time asked for: that costs a call each.
        found = self._listing.details(paths.filter(self._seen.unknown(paths)))
        self._note_aged_out(found)
        new = self._seen.new(found)
        return new.sort(pl.col("mtime_us"), "path", descending=[True, False]) if self._options.latest_first else new

    def _note_aged_out(self, found: pl.DataFrame) -> None:
        old = self._seen.aged_out(found)
        if old.height > self._aged_out:
            _log.warning(
                "%s: %d files, such as %s, came more than max_file_age after newer ones and are not read",
                ", ".join(self._options.bases),
                old.height,
                old["path"][0],
            )
        self._aged_out = old.height

    def _paths(self, first: int, last: int) -> list[str]:
        """Return the paths of entries ``first`` to ``last`` of the log, both included."""
        if first == last == self._latest and self._newest_paths is not None:
            return self._newest_paths
        return [path for entry_id in range(first, last + 1) for path in self._logged(entry_id)["path"].to_list()]

    def _logged(self, entry_id: int) -> pl.DataFrame:
        lines = self._log.get(entry_id)
        if lines is None:
            msg = f"{self._where}: the file log has no entry {entry_id}, which the offset log names; restore the folder from a copy"
            raise CheckpointCorruptError(msg)
        return from_lines(lines, f"{self._where}/{entry_id}")

    def _position(self, offset: Offset) -> int:
        match offset:
            case None:
                return -1
            case {"logOffset": int(position)} if not isinstance(position, bool) and position >= -1:
                return position
            case _:
                msg = f"{self._where}: {offset!r} is no offset of a file source; restore the old query, or take a new checkpoint"
                raise CheckpointMismatchError(msg)
