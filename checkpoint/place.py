"""Where a checkpoint lies: a local folder or a prefix of an object store."""

from __future__ import annotations

import os
from typing import TypeAlias

from microbatch.checkpoint.atomic import LocalFolder
from microbatch.checkpoint.layout import is_local, local_path
from microbatch.checkpoint.object_folder import ObjectFolder

CheckpointFolder: TypeAlias = LocalFolder | ObjectFolder


def folder_at(path: str | os.PathLike[str]) -> CheckpointFolder:
    """Return the folder at a local path or URL; touches nothing. Raises PlanError where no checkpoint can be."""
    return LocalFolder(local_path(path)) if is_local(path) else ObjectFolder.at(os.fspath(path))
