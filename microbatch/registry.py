"""Connector names to where they live: the engine imports no connector, and nobody pays for a client they do not use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from microbatch.errors import PlanError

_CONNECTORS = {
    "source:files": ("microbatch.sources.files:FileSource", None),
    "source:rate": ("microbatch.sources.rate:RateSource", None),
    "source:memory": ("microbatch.sources.memory:MemorySource", None),
    "sink:delta": ("microbatch.sinks.delta:DeltaSink", None),
    "sink:files": ("microbatch.sinks.files:FileSink", None),
    "sink:memory": ("microbatch.sinks.memory:MemorySink", None),
    "sink:console": ("microbatch.sinks.console:ConsoleSink", None),
    "sink:foreach_batch": ("microbatch.sinks.foreach_batch:ForeachBatchSink", None),
    "reader:file_sink": ("microbatch.sinks.files:read_file_sink", None),
}


def connector(name: str) -> Any:
    """Return a connector's class; PlanError with what to install if its library is missing."""
    path, extra = _CONNECTORS[name]
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ImportError as cause:
        hint = f"pip install 'microbatch[{extra}]'" if extra else "reinstall microbatch"
        msg = f"{name} needs {cause.name}, which is not installed: {hint}"
        raise PlanError(msg) from cause
