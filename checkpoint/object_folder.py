"""Small files that last in an object store: S3, Google Cloud Storage, Azure, through fsspec."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from microbatch.clock import new_uuid
from microbatch.errors import PlanError

# fsspec's generic mode="create" looks first and writes then, which two runs can do at once. Of these implementations the source was
# read: they send the condition with the write (If-None-Match, ifGenerationMatch=0, overwrite=False) and the store decides.
_INSTALL = {
    "s3": "s3fs: pip install 'microbatch[s3]'",
    "gs": "gcsfs: pip install gcsfs",
    "abfs": "adlfs: pip install adlfs",
}
_STORES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfs", "az": "abfs"}
_TAKEN = "PreconditionFailed"


class ObjectFolder:
    """A prefix of an object store, as ``microbatch.protocols.Folder`` promises it.

    A write is one PUT, so it is never seen half done; ``add`` is a PUT on the condition that there is no such object, and the store says
    which of several writers came first. If the answer to a PUT is lost on its way, the client asks again and is told that the object is
    there: ``add`` then says False though this writer made it. Nothing is cached: a listing is the store's, now.

    Parameters
    ----------
    files
        The fsspec file system.
    path
        The prefix as the file system knows it.
    url
        The same as the user wrote it, for messages.
    """

    def __init__(self, files: Any, path: str, url: str) -> None:
        self._files = files
        self._path = path
        self._url = url

    @classmethod
    def at(cls, url: str) -> ObjectFolder:
        """Return the folder at a URL; touches nothing. Credentials and options come from the environment, as fsspec reads it.

        Raises PlanError if the store is none of those known to write on a condition, its package is missing, or the URL names no bucket.
        """
        scheme = url.partition("://")[0].lower()
        store = _STORES.get(scheme)
        if store is None:
            msg = (
                f"{url!r} cannot hold a checkpoint: {scheme}:// is not known to have a write that fails if the file exists, decided by the "
                "store, without which two runs could log the same batch; take a local folder, s3://, gs:// or abfs://"
            )
            raise PlanError(msg)
        import fsspec

        try:
            files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            msg = f"{url!r} needs the package {_INSTALL[store]} ({error})"
            raise PlanError(msg) from error
        if not path.strip("/"):
            msg = f"{url!r} names no bucket; write {scheme}://<bucket>/<path>"
            raise PlanError(msg)
        return cls(files, path.rstrip("/"), url.rstrip("/"))

    @property
    def path(self) -> str:
        """The URL."""
        return self._url

    def check_condition(self) -> None:
        """Raise PlanError if the store says it wrote a file that was there: some that speak S3 do not know the condition."""
        name = f".probe-{new_uuid()}"
        try:
            kept = self.add(name, b"1") and not self.add(name, b"2")
        finally:
            self.remove(name)
        if not kept:
            msg = (
                f"{self._url} cannot hold a checkpoint: the store ignores the condition of a write (If-None-Match), so two runs could log "
                "the same batch; take a local folder, or a store that knows it (AWS S3 does)"
            )
            raise PlanError(msg)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None if there is no file of that name."""
        try:
            data: bytes = self._files.cat_file(self._of(name))
        except FileNotFoundError:
            return None
        return data

    def add(self, name: str, data: bytes) -> bool:
        """Write a file that must not exist; False, and nothing changed, if it does. Durable on return.

        Raises OSError, with the URL and the way out in its message.
        """
        try:
            with self._error_names(name):
                self._files.pipe_file(self._of(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, replacing the one of that name; readers see the old bytes or the new. Durable on return. Raises as ``add``."""
        with self._error_names(name):
            self._files.pipe_file(self._of(name), data)

    def names(self) -> list[str]:
        """Return the names of the files in this folder, sorted as text, without folders and those that start with "."."""
        return sorted(name for name, kind in self._listed().items() if kind == "file")

    def entries(self) -> list[str]:
        """Return the names of files and folders, sorted, without those that start with "."."""
        return sorted(self._listed())

    def below(self) -> list[str]:
        """Return the paths, from here, of the files in this folder and below it, sorted, without those whose names start with "."."""
        try:
            found = [self._from_here(path) for path in self._files.find(self._path)]
        except FileNotFoundError:
            return []
        return sorted(name for name in found if name and not name.rpartition("/")[2].startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file; no error if it is gone already."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._of(name))

    def sync(self) -> None:
        """Do nothing: a removal lasts when it returns."""

    def sub(self, name: str) -> ObjectFolder:
        """Return the folder of that name below this one."""
        return ObjectFolder(self._files, self._of(name), f"{self._url}/{name}")

    def download(self, names: list[str], into: Path) -> None:
        """Copy files, by their paths from here, to the same paths in a local folder. Raises FileNotFoundError if one is missing."""
        local = [into / name for name in names]
        for folder in {path.parent for path in local}:
            folder.mkdir(parents=True, exist_ok=True)
        self._files.get([self._of(name) for name in names], [str(path) for path in local])

    def upload(self, name: str, file: Path) -> None:
        """Write a file from a local one. Raises as ``add``."""
        with self._error_names(name):
            self._files.put_file(str(file), self._of(name))

    def _of(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _from_here(self, path: str) -> str:
        """Return a path as seen from here, empty if it is this folder or not below it."""
        begin = f"{self._path.lstrip('/')}/"
        path = path.lstrip("/")
        return path.removeprefix(begin).rstrip("/") if path.startswith(begin) else ""

    def _listed(self) -> dict[str, str]:
        try:
            found = self._files.ls(self._path, detail=True)
        except FileNotFoundError:
            return {}
        # Files last: an object may have the name of a prefix.
        kinds = {self._from_here(one["name"]): one["type"] for one in sorted(found, key=lambda one: str(one["type"]))}
        return {name: kind for name, kind in kinds.items() if name and not name.startswith(".")}

    @contextmanager
    def _error_names(self, name: str) -> Generator[None, None, None]:
        """Let an OSError say which object was being written; FileExistsError means that it is there, by whatever name the store says so."""
        try:
            yield
        except FileExistsError:
            raise
        except OSError as error:
            answer = getattr(error.__cause__, "response", None) or {}
            if answer.get("Error", {}).get("Code") == _TAKEN:
                raise FileExistsError(self._of(name)) from error
            msg = (
                f"cannot write {self._url}/{name}: {error}; "
                "no part of it is visible; look at the bucket and your rights to it, then start again"
            )
            raise OSError(error.errno or errno.EIO, msg) from error
