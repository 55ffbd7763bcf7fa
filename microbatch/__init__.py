"""Streaming DataFrames in one Python process: Spark Structured Streaming's model on Polars and Arrow.

The one rule: a micro-batch is a pure function of what the offset log says about it,
``(plan, offset ranges, watermarks, batch time, state version) -> (rows out, next state version, next watermarks)``.
Whatever could differ between two runs of a batch is written to the offset log before the batch runs.
"""

from typing import TYPE_CHECKING, Any

from microbatch.api.options import QueryOptions
from microbatch.api.query import Query, QueryResult, StreamingQuery, StreamingQueryListener
from microbatch.api.reading import MemoryStream, concat, scan_files, scan_rate, static
from microbatch.api.state import read_state, read_state_changes, rollback
from microbatch.api.stream_frame import StreamFrame
from microbatch.engine.progress import Progress
from microbatch.errors import (
    CheckpointCorruptError,
    CheckpointInUseError,
    CheckpointMismatchError,
    DataError,
    MicrobatchError,
    PlanError,
    QueryFailedError,
    SinkError,
    SourceError,
)
from microbatch.operators.key_state import KeyState
from microbatch.plan.batch_time import batch_time
from microbatch.plan.keyed_state import StateBatch, StateChange
from microbatch.plan.session import SessionWindow, session_window
from microbatch.plan.window import Window, window, window_time
from microbatch.registry import connector

if TYPE_CHECKING:  # made on first use, see __getattr__
    MemorySink: Any
    read_file_sink: Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Return connector classes on first use, so that importing the package stays cheap."""
    lazy = {"MemorySink": "sink:memory", "read_file_sink": "reader:file_sink"}
    if name in lazy:
        return connector(lazy[name])
    msg = f"module 'microbatch' has no attribute {name!r}"
    raise AttributeError(msg)


__all__ = [
    "CheckpointCorruptError",
    "CheckpointInUseError",
    "CheckpointMismatchError",
    "DataError",
    "KeyState",
    "MemorySink",
    "MemoryStream",
    "MicrobatchError",
    "PlanError",
    "Progress",
    "Query",
    "QueryFailedError",
    "QueryOptions",
    "QueryResult",
    "SessionWindow",
    "SinkError",
    "SourceError",
    "StateBatch",
    "StateChange",
    "StreamFrame",
    "StreamingQuery",
    "StreamingQueryListener",
    "Window",
    "__version__",
    "batch_time",
    "concat",
    "read_file_sink",
    "read_state",
    "read_state_changes",
    "rollback",
    "scan_files",
    "scan_rate",
    "session_window",
    "static",
    "window",
    "window_time",
]
