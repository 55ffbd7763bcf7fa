"""Cases about the logs themselves: texts go to a MetadataLog, lists of offsets to an OffsetLog."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.metadata_log import MetadataLog
from microbatch.checkpoint.offset_log import OffsetLog
from microbatch.model import BatchPlan, Marks
from tests.conformance.compare import check_equal
from tests.conformance.report import NotSupportedError

Entry = Any
Step = dict[str, Any]


class Log(Protocol):
    """What the steps ask of either log."""

    def add(self, entry_id: int, entry: Entry) -> bool: ...

    def get(self, entry_id: int) -> Entry: ...

    def ids(self) -> list[int]: ...

    def purge_below(self, entry_id: int) -> None: ...


class _Offsets:
    def __init__(self, folder: LocalFolder) -> None:
        self._log = OffsetLog(folder)

    def add(self, entry_id: int, entry: Entry) -> bool:
        plan = BatchPlan(batch_id=entry_id, offsets=tuple(entry), marks=Marks(late_us=None, eviction_us=None), batch_time_us=0)
        return self._log.add(plan)

    def get(self, entry_id: int) -> Entry:
        plan = self._log.get(entry_id)
        return None if plan is None else list(plan.offsets)

    def ids(self) -> list[int]:
        return self._log.ids()

    def purge_below(self, entry_id: int) -> None:
        self._log.purge_below(entry_id)


def run(body: dict[str, Any], folder: Path) -> str:
    """Do the steps on a log in ``folder``."""
    kind = _Offsets if any(isinstance(s["log_add"][1], list) for s in body["steps"] if "log_add" in s) else MetadataLog
    log: Log = kind(LocalFolder(folder / "log"))
    for step in body["steps"]:
        name = next(iter(step))
        if name == "reopen":
            log = kind(LocalFolder(folder / "log"))
        elif name == "log_files":
            check_equal(name, sorted(step[name]), sorted(f.name for f in (folder / "log").iterdir() if not f.name.startswith(".")))
        elif name in _STEPS:
            _STEPS[name](log, step[name], step)
        else:
            msg = f"step {name}"
            raise NotSupportedError(msg)
    return ""


def _add(log: Log, value: Any, step: Step) -> None:
    added = log.add(*value)
    if "ok" in step:
        check_equal(f"log_add {value[0]}", step["ok"], added)


def _get(log: Log, value: Any, step: Step) -> None:
    check_equal(f"log_get {value}", step["is"], log.get(value))


def _latest(log: Log, value: Any, step: Step) -> None:
    ids = log.ids()
    check_equal("log_latest", value, [ids[-1], log.get(ids[-1])] if ids else None)


def _range(log: Log, value: Any, step: Step) -> None:
    first, last = value
    if isinstance(log, MetadataLog):
        found = [list(entry) for entry in log.range(first, log.ids()[-1] if last is None else last)]
    else:
        found = [[i, log.get(i)] for i in log.ids() if (first is None or i >= first) and (last is None or i <= last)]
    check_equal(f"log_range {value}", step["is"], found)


def _purge(log: Log, value: Any, step: Step) -> None:
    log.purge_below(value)


_STEPS: dict[str, Callable[[Log, Any, Step], None]] = {
    "log_add": _add,
    "log_get": _get,
    "log_latest": _latest,
    "log_range": _range,
    "log_purge_below": _purge,
}
