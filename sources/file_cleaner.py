"""What becomes of files the query is done with: nothing, deletion, or a place in an archive."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from microbatch.errors import PlanError
from microbatch.sources.file_listing import Pattern, is_hidden, local_path, open_file_system, scheme_of

_log = logging.getLogger("microbatch.sources")


class FileCleaner:
    """Deletes files, or moves them into an archive under the path they had below the source's folder.

    Nothing here fails the query (Spark: FileStreamSourceCleaner): what cannot be moved or deleted is logged and stays.

    Parameters
    ----------
    archive_dir
        Folder (or URL of the same scheme) for finished files; None: they are deleted.
    bases
        The source's folders.
    """

    def __init__(self, archive_dir: str | None, bases: Sequence[str], storage_options: Mapping[str, object]) -> None:
        self._archive_dir = archive_dir
        self._bases = bases
        self._storage_options = storage_options

    def clean(self, paths: Iterable[str]) -> None:
        """Clean up files; those that are gone already are passed over."""
        for path in paths:
            try:
                self._clean(path)
            except (OSError, PlanError) as error:
                _log.warning("%s stays where it is, though the query is done with it: %s", path, error)

    def _clean(self, path: str) -> None:
        target = archived_path(path, self._archive_dir, self._bases) if self._archive_dir else None
        if scheme_of(path) == "file":
            _clean_local(Path(path), Path(target) if target else None)
            return
        file_system = open_file_system(scheme_of(path), self._storage_options)
        if not file_system.exists(path):
            return
        if target is None:
            file_system.rm_file(path)
        elif file_system.exists(target):
            raise _taken(target)
        else:
            file_system.makedirs(target.rpartition("/")[0], exist_ok=True)
            file_system.mv(path, target)


def _clean_local(path: Path, target: Path | None) -> None:
    if target is None:
        path.unlink(missing_ok=True)
    elif path.exists():
        if target.exists():
            raise _taken(str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)


def _taken(target: str) -> OSError:
    return FileExistsError(f"the archive has another file at {target}")


def archived_path(path: str, archive_dir: str, bases: Sequence[str]) -> str:
    """Return where a file goes: below the archive as it lay below the longest of ``bases``.

    Examples
    --------
    >>> archived_path("/in/2024/a.csv", "/old", ["/in"])
    '/old/2024/a.csv'
    """
    below = [path[len(base.rstrip("/")) :] for base in bases if path.startswith(f"{base.rstrip('/')}/")]
    return archive_dir.rstrip("/") + min(below, key=len, default=f"/{path.rpartition('/')[2]}")


def check_archive(archive_dir: str, patterns: Sequence[Pattern]) -> str:
    """Return the archive as an absolute path or URL; PlanError if the source could read files from it again.

    It may lie below a folder of the source only under a name the source passes over, such as ``_done``.
    """
    archive = local_path(archive_dir) or archive_dir.rstrip("/")
    for pattern in patterns:
        if scheme_of(archive) != scheme_of(pattern.base):
            msg = f"archive_dir={archive_dir!r} and {pattern.base} are on different file systems; take a folder on the same one"
            raise PlanError(msg)
        below = f"{archive}/".removeprefix(f"{pattern.base.rstrip('/')}/")
        if below != f"{archive}/" and not is_hidden(below.partition("/")[0] or "/"):
            msg = (
                f"archive_dir={archive_dir!r} lies in {pattern.base}, so archived files would be read again; "
                f"take a folder outside, or one there whose name begins with _"
            )
            raise PlanError(msg)
    return archive
