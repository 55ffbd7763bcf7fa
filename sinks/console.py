"""Batches printed as text: to see a stream move."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

import polars as pl

from microbatch.errors import PlanError
from microbatch.model import Delivery, OutputMode
from microbatch.protocols import SinkBatch, SinkContext

# Polars reads its table format from the process, so two console sinks must not set it at the same time.
_FORMATTING = threading.Lock()
_RULE = "-" * 43


@dataclass(frozen=True, slots=True)
class ConsoleSink:
    """Prints ``Batch: N`` and the first rows of each batch, at least once: after a crash the last batch is printed again.

    Parameters
    ----------
    rows
        How many rows of a batch are printed, 1 or more; a line says how many there were if there were more.
    truncate
        True: long texts and wide tables are shortened to fit. False: every value and every column is printed in full.
    file
        Where to print; None: standard output, looked up at each batch.
    """

    rows: int = 20
    truncate: bool = True
    file: TextIO | None = None

    def __post_init__(self) -> None:
        """Raise PlanError for options that print nothing."""
        if self.rows < 1:
            msg = f"ConsoleSink(rows={self.rows}) would print no row; give 1 or more"
            raise PlanError(msg)

    @property
    def description(self) -> str:
        """One line with the options that matter."""
        return f"ConsoleSink[rows={self.rows}, truncate={self.truncate}]"

    @property
    def delivery(self) -> Delivery:
        """At least once: what is printed cannot be asked."""
        return Delivery.AT_LEAST_ONCE

    @property
    def durable(self) -> bool:
        """False: a checkpoint is optional."""
        return False

    def check(self, mode: OutputMode, schema: pl.Schema, keys: tuple[str, ...]) -> None:
        """Refuse nothing."""

    def open(self, context: SinkContext) -> _ConsoleWriter:  # noqa: ARG002 - nothing of the run is needed
        """Return a writer; prints nothing."""
        return _ConsoleWriter(self)


class _ConsoleWriter:
    def __init__(self, sink: ConsoleSink) -> None:
        self._sink = sink

    def write(self, batch: SinkBatch) -> None:
        """Print the batch in one write, so that batches of several queries do not mix."""
        file = self._sink.file or sys.stdout
        file.write(f"{_RULE}\nBatch: {batch.batch_id}\n{_RULE}\n{_table(batch.rows, self._sink.rows, truncate=self._sink.truncate)}\n")
        file.flush()

    def metrics(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Leave the file open: it is the caller's."""


def _table(rows: pl.DataFrame, n_shown: int, *, truncate: bool) -> str:
    shown = rows.head(n_shown)
    with _FORMATTING, pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True) as config:
        if not truncate:
            config.set_tbl_cols(-1).set_fmt_str_lengths(1_000_000).set_fmt_table_cell_list_len(-1).set_tbl_width_chars(-1)
        text = str(shown)
    return f"{text}\nonly the first {n_shown} of {rows.height} rows" if rows.height > n_shown else text
