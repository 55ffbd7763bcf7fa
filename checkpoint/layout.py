"""Where everything lies in a checkpoint folder, and which folders may be one.

::

    metadata            {"id": ...}: identity of the query, as Spark writes it
    microbatch.json     what only we keep beside it: format version, fingerprints, pins
    offsets/<batch>     what was decided, before the batch ran
    commits/<batch>     what was finished
    sources/<k>/        what source k of the plan keeps for itself
    state/              the state store
    .lock               held while a run uses the folder
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from microbatch.errors import CheckpointMismatchError, PlanError

METADATA = "metadata"
FACTS = "microbatch.json"
OFFSETS = "offsets"
COMMITS = "commits"
SOURCES = "sources"
STATE = "state"
LOCK = ".lock"

_OURS = frozenset({METADATA, FACTS, OFFSETS, COMMITS, SOURCES, STATE})
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://|file:")


def is_local(path: str | os.PathLike[str]) -> bool:
    """Return True for a path and for a ``file:`` URL, whatever its host."""
    text = os.fspath(path)
    return not _SCHEME.match(text) or text[:5].lower() == "file:"


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute local path of a path or a ``file://`` URL; "~" is the home folder.

    Raises PlanError for another scheme, another host, or an empty path.

    Examples
    --------
    >>> str(local_path("file:///data/my%20checkpoint"))
    '/data/my checkpoint'
    """
    text = os.fspath(path)
    if not text.strip():
        msg = 'the path of a checkpoint is empty; name a folder, such as "checkpoints/revenue"'
        raise PlanError(msg)
    if not _SCHEME.match(text):
        return Path(text).expanduser().absolute()
    url = urlsplit(text)
    if url.scheme.lower() != "file" or url.netloc not in {"", "localhost"}:
        msg = f"{text!r} does not lie on this machine; so far only local paths and file:///... can be used: take a local or mounted folder"
        raise PlanError(msg)
    return Path(unquote(url.path))


def check_folder(root: Path) -> None:
    """Raise unless ``root`` is missing, empty, or a checkpoint; touches nothing.

    Hidden files do not count. A folder with a file ``metadata`` is a checkpoint, whatever else lies in it.

    Raises
    ------
    PlanError
        ``root`` is a file.
    CheckpointMismatchError
        Other files lie in it.
    """
    if not root.exists():
        return
    if not root.is_dir():
        msg = f"the checkpoint {root} is a file; name a folder that is new, empty or a checkpoint"
        raise PlanError(msg)
    check_entries(str(root), [entry.name for entry in root.iterdir() if entry.name != METADATA or entry.is_file()])


def check_entries(where: str, names: Iterable[str]) -> None:
    """Raise CheckpointMismatchError if a folder that holds these files and folders is none for a checkpoint (as ``check_folder``)."""
    there = sorted(names)
    foreign = [name for name in there if not name.startswith(".") and name not in _OURS]
    if foreign and METADATA not in there:
        holds = ", ".join(foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        msg = (
            f"the folder {where} is no checkpoint: it holds {holds} and no file {METADATA!r}; "
            "name a folder that is new, empty or a checkpoint"
        )
        raise CheckpointMismatchError(msg)
