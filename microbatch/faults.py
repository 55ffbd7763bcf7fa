"""Named points at which a test may kill or halt the process; in production each costs one comparison with None.

``MICROBATCH_FAULT="sink_written:3"`` kills this process with SIGKILL when the point ``sink_written`` is passed for the third
time; ``"sink_written:3:SIGSTOP"`` halts it there until it is sent SIGCONT. The names, in the order a batch passes them, are
``FAULT_POINTS``; a new step in a batch adds a name.
"""

from __future__ import annotations

import os
import signal

FAULT_POINTS = (
    "batch_decided",  # offsets chosen, nothing logged
    "offsets_logged",  # offset log entry N is durable
    "rows_read",  # operators ran, nothing written
    "state_written",  # state delta N+1 is durable
    "sink_files_written",  # data of the batch lies in the sink, its commit does not
    "sink_written",  # the sink has the batch
    "late_rows_written",  # so has the table of late rows, if the query keeps one
    "batch_committed",  # commit log entry N is durable
)

_armed = os.environ.get("MICROBATCH_FAULT")
_passed: dict[str, int] = {}


def arm(point: str | None) -> None:
    """Choose the pass at which this process dies, as ``MICROBATCH_FAULT`` does at its start; None: it lives."""
    global _armed  # noqa: PLW0603 - one process, one death
    _armed = point
    _passed.clear()


def fault_point(name: str) -> None:
    """Do nothing, or kill the process if this pass of ``name`` is the one asked for."""
    if _armed is None:
        return
    wanted, _, rest = _armed.partition(":")
    nth, _, sent = rest.partition(":")
    if wanted != name:
        return
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] == int(nth or 1):
        os.kill(os.getpid(), signal.Signals[sent or "SIGKILL"])
