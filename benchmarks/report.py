"""Tables of results, and what they were made with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


class Table:
    """Lines of a Markdown table."""

    def __init__(self, *columns: str) -> None:
        self._lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]

    def add(self, *cells: str) -> None:
        """Add a line, and print it, so that a long run shows how far it is."""
        self._lines.append("| " + " | ".join(cells) + " |")
        print(self._lines[-1], flush=True)

    def __str__(self) -> str:
        """Return the table."""
        return "\n".join(self._lines)


def versions() -> str:
    """Return what the numbers depend on, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("polars", "pyarrow", "deltalake"))
    return f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores, {platform.system()}"
