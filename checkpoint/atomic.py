"""Small files that last: written whole under a hidden name, made durable, then given their name in one step."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from microbatch.clock import new_uuid

_WAY_OUT = {
    errno.ENOSPC: "free some space and start again",
    errno.EDQUOT: "free some space or raise the quota, and start again",
    errno.EROFS: "mount the disk for writing, or take another folder",
    errno.EACCES: "let this user write to the folder",
    errno.EPERM: "take a folder on a file system with hard links, which this one seems not to have",
    errno.EOPNOTSUPP: "take a folder on a file system with hard links, which this one seems not to have",
}


class LocalFolder:
    """A folder on a local disk, as ``microbatch.protocols.Folder`` promises it.

    Names that start with "." are not listed: files on their way to their name, what a killed writer left of them (harmless), locks,
    and the checksum files other programs put beside theirs. Any number of threads and processes may use one folder.

    Parameters
    ----------
    path
        The folder; a relative path is resolved now. Neither it nor the folders above it need to exist: they are made by the first write.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).absolute()

    @property
    def path(self) -> str:
        """The absolute path."""
        return str(self._path)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None if there is no file of that name (a folder of that name is none)."""
        try:
            return (self._path / name).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return None

    def add(self, name: str, data: bytes) -> bool:
        """Write a file that must not exist; False, and nothing changed, if it does.

        Of any number of writers racing for a name exactly one gets True. Durable on return; costs two fsyncs (file, folder).
        Raises OSError, with the path and the way out in its message; no part of the file is visible then.
        """
        final = self._path / name
        with error_names(final):
            with self._hidden(name, data) as written:
                try:
                    # Link, not rename: rename would silently replace the entry of a second writer.
                    final.hardlink_to(written)
                except FileExistsError:
                    return False
            sync_folder(self._path)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, replacing the one of that name; readers see the old bytes or the new. Durable on return. Raises as ``add``."""
        final = self._path / name
        with error_names(final):
            with self._hidden(name, data) as written:
                written.replace(final)
            sync_folder(self._path)

    def names(self) -> list[str]:
        """Return the names of the files in this folder, sorted as text, without folders and hidden files; empty if there is no folder."""
        try:
            with os.scandir(self._path) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
        except FileNotFoundError:
            return []

    def below(self) -> list[str]:
        """Return the paths, from here, of the files in this folder and below it, sorted, without hidden ones."""
        files = [file for file in self._path.rglob("*") if file.is_file() and not file.name.startswith(".")]
        return sorted(file.relative_to(self._path).as_posix() for file in files)

    def remove(self, name: str) -> None:
        """Remove a file; no error if it is gone already. Not durable: after a power failure it may be back."""
        (self._path / name).unlink(missing_ok=True)

    def sync(self) -> None:
        """Let removals last."""
        if self._path.is_dir():
            sync_folder(self._path)

    def sub(self, name: str) -> LocalFolder:
        """Return the folder of that name below this one; it is made when first written to."""
        return LocalFolder(self._path / name)

    @contextmanager
    def _hidden(self, name: str, data: bytes) -> Generator[Path, None, None]:
        """Hold the bytes durably under a name of their own; that name is gone afterwards."""
        # Unique to this attempt: with a shared temporary name two writers can both believe they won.
        written = self._path / f".{name}.{new_uuid()}.tmp"
        try:
            _write_durably(written, data)
            yield written
        finally:
            with suppress(OSError):
                written.unlink(missing_ok=True)


def _write_durably(path: Path, data: bytes) -> None:
    try:
        file = path.open("xb")
    except FileNotFoundError:
        make_folder(path.parent)
        file = path.open("xb")
    with file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably; nothing to do if it exists."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Let the names in a folder last."""
    # Opened anew each time: 10 us against some 300 us for the fsync, and no descriptor to look after.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def error_names(path: Path) -> Generator[None, None, None]:
    """Let an OSError say which file was being written and what to do; its number and class stay."""
    try:
        yield
    except OSError as error:
        way_out = _WAY_OUT.get(error.errno or 0, "look at the disk, then start again")
        msg = f"cannot write {path}: {error.strerror or error}; no part of it is visible; {way_out}"
        raise OSError(error.errno, msg) from error
