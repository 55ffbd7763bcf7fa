"""Which files lie where a user points: folders, globs and URLs, walked the same way on a local disk and through fsspec."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote

import polars as pl

from microbatch.errors import PlanError, SourceError

FILES = pl.Schema({"path": pl.String, "mtime_us": pl.Int64, "bytes": pl.Int64})
"""A list of files: local absolute paths or whole URLs, time of the last change (whole milliseconds, in us), size."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_WILD = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_ANY_DEPTH = "**"
_LOCAL = "file"

Entry: TypeAlias = tuple[str, str, bool]
"""Name, path, whether it is a folder."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Where files are looked for: a folder (or file) that is fixed, and name patterns for the levels below it."""

    base: str
    parts: tuple[str, ...]

    @property
    def is_glob(self) -> bool:
        """Whether anything is left to match below the base."""
        return bool(self.parts)


class Tree(Protocol):
    """Where folders can be listed and files described."""

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield what lies directly in a folder; nothing if it is gone."""
        ...

    def is_file(self, path: str) -> bool:
        """Return True for a file; SourceError if there is neither a file nor a folder."""
        ...

    def details(self, paths: Sequence[str]) -> pl.DataFrame:
        """Return ``FILES`` for paths of the last listing, without those that are gone."""
        ...


def parse_patterns(path: object) -> tuple[Pattern, ...]:
    """Return the patterns of a path, a glob, a URL, or a list of them; PlanError if it is none of these.

    ``{a,b}`` stands for either; a relative path is resolved now.

    Examples
    --------
    >>> parse_patterns("/data/{in,out}/*.csv")
    (Pattern(base='/data/in', parts=('*.csv',)), Pattern(base='/data/out', parts=('*.csv',)))
    """
    paths: Sequence[object] = path if isinstance(path, Sequence) and not isinstance(path, str) else [path]
    texts = [str(one) for one in paths if isinstance(one, str | os.PathLike) and str(one)]
    if not texts or len(texts) != len(paths):
        msg = f'path={path!r} is no path; name a folder, a glob such as "landing/*.csv", a URL, or a list of them'
        raise PlanError(msg)
    return tuple(_pattern(text) for with_braces in texts for text in _without_braces(with_braces))


def scheme_of(path: str) -> str:
    """Return the scheme of a URL in lower case, ``"file"`` for a plain path."""
    match = _SCHEME.match(path)
    return match[1].lower() if match else _LOCAL


def local_path(path: str) -> str | None:
    """Return a plain path or ``file://`` URL as an absolute path, None for another scheme."""
    if scheme_of(path) != _LOCAL:
        return None
    match = _SCHEME.match(path)
    return str(Path(unquote(path[match.end() :]) if match else path).expanduser().absolute())


def _without_braces(text: str) -> Iterator[str]:
    match = _BRACES.search(text)
    if match is None:
        yield text
        return
    for choice in match[1].split(","):
        yield from _without_braces(text[: match.start()] + choice + text[match.end() :])


def _pattern(text: str) -> Pattern:
    whole = local_path(text) or text
    match = _WILD.search(whole)
    if match is None:
        return Pattern(whole.rstrip("/") or "/", ())
    cut = whole.rfind("/", 0, match.start())
    return Pattern(whole[:cut] or "/", tuple(part for part in whole[cut + 1 :].split("/") if part))


class Listing:
    """The files that some patterns mean, looked up anew at each call of ``paths``.

    Parameters
    ----------
    enter
        Says by its name whether a folder *below* the depth of a pattern is entered too.
    storage_options
        Options of the fsspec file system, for URLs.
    """

    def __init__(self, patterns: Sequence[Pattern], *, enter: Callable[[str], bool], storage_options: Mapping[str, object]) -> None:
        self._patterns = patterns
        self._enter = enter
        self._storage_options = storage_options
        self._trees: dict[str, Tree] = {}

    def paths(self) -> pl.Series:
        """Return the path of every file there is, each once, in no order. Raises SourceError."""
        schemes = {scheme_of(pattern.base) for pattern in self._patterns}
        self._trees = {scheme: _open_tree(scheme, self._storage_options) for scheme in schemes}
        found = (path for pattern in self._patterns for path in list_files(self._trees[scheme_of(pattern.base)], pattern, self._enter))
        return pl.Series("path", list(found), dtype=pl.String).unique(maintain_order=True)

    def details(self, paths: pl.Series) -> pl.DataFrame:
        """Return ``FILES`` for some of the paths listed last, without those that are gone, oldest first, then by path."""
        by_scheme: dict[str, list[str]] = {scheme: [] for scheme in self._trees}
        for path in paths.to_list():
            by_scheme[scheme_of(path)].append(path)
        parts = [self._trees[scheme].details(some) for scheme, some in by_scheme.items()]
        return pl.concat([FILES.to_frame(), *parts]).sort("mtime_us", "path")

    def all(self) -> pl.DataFrame:
        """Return ``FILES`` for all there is now, oldest first, then by path."""
        return self.details(self.paths())


def _open_tree(scheme: str, storage_options: Mapping[str, object]) -> Tree:
    return LocalTree() if scheme == _LOCAL else RemoteTree(open_file_system(scheme, storage_options))


def open_file_system(scheme: str, storage_options: Mapping[str, object]) -> Any:
    """Return fsspec's file system of a scheme; PlanError if there is none, or its package is missing."""
    import fsspec

    try:
        return fsspec.filesystem(scheme, **storage_options)
    except (ImportError, ValueError, TypeError) as error:
        msg = f"{scheme}:// cannot be opened: {error}; use a scheme and storage_options that fsspec knows, and install its package"
        raise PlanError(msg) from error


def list_files(tree: Tree, pattern: Pattern, enter: Callable[[str], bool]) -> Iterator[str]:
    """Yield the paths of all files a pattern means; a path may come twice where ``**`` meets ``*``.

    A pattern matches files at its depth, and stands for the files directly in the folders at its depth (Spark:
    globPathIfNecessary and InMemoryFileIndex). Hidden names are passed over, unless the pattern itself begins like that.
    """
    if tree.is_file(pattern.base):
        if not pattern.parts:
            yield pattern.base
        return
    yield from _below(tree, pattern.base, pattern.parts, enter)


def _below(tree: Tree, folder: str, parts: tuple[str, ...], enter: Callable[[str], bool]) -> Iterator[str]:
    if not parts:
        yield from _inside(tree, folder, enter)
        return
    head, rest = parts[0], parts[1:]
    if head == _ANY_DEPTH:
        yield from _below(tree, folder, rest, enter)
        for name, path, is_folder in tree.entries(folder):
            if is_folder and not is_hidden(name):
                yield from _below(tree, path, parts, enter)
        return
    matches = re.compile(fnmatch.translate(head)).match
    for name, path, is_folder in tree.entries(folder):
        if not matches(name) or (is_hidden(name) and head[0] not in "._"):
            continue
        if is_folder:
            yield from _below(tree, path, rest, enter)
        elif not rest:
            yield path


def _inside(tree: Tree, folder: str, enter: Callable[[str], bool]) -> Iterator[str]:
    for name, path, is_folder in tree.entries(folder):
        if is_hidden(name):
            continue
        if not is_folder:
            yield path
        elif enter(name):
            yield from _inside(tree, path, enter)


def is_hidden(name: str) -> bool:
    """Return True for names no source reads (Spark: HadoopFSUtils.shouldFilterOutPathName).

    Examples
    --------
    >>> [is_hidden(name) for name in (".part", "_SUCCESS", "_day=1", "a.csv._COPYING_", "a_b.csv")]
    [True, True, False, True, False]
    """
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


class LocalTree:
    """The machine's own disks."""

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield what lies directly in a folder; nothing if it is gone."""
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    yield entry.name, entry.path, entry.is_dir()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _unreadable(folder, error) from error

    def is_file(self, path: str) -> bool:
        """Return True for a file; SourceError if there is neither a file nor a folder."""
        if Path(path).is_dir():
            return False
        if Path(path).exists():
            return True
        msg = f"{path} does not exist: make the folder, or correct the path"
        raise SourceError(msg)

    def details(self, paths: Sequence[str]) -> pl.DataFrame:
        """Return ``FILES`` for paths, without those that are gone."""
        found: list[str] = []
        mtimes_us: list[int] = []
        sizes: list[int] = []
        for path in paths:
            try:
                status = os.stat(path)  # noqa: PTH116 - a Path for each file would cost more than the call
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unreadable(path, error) from error
            found.append(path)
            mtimes_us.append(status.st_mtime_ns // 1_000_000 * 1_000)
            sizes.append(status.st_size)
        return pl.DataFrame([found, mtimes_us, sizes], schema=FILES)


class RemoteTree:
    """Anything fsspec can list; one tree for one scheme."""

    def __init__(self, file_system: Any) -> None:
        self._file_system = file_system
        # What a listing before this one found must not hide newer files.
        file_system.invalidate_cache()
        self._found: dict[str, Mapping[str, Any]] = {}

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield what lies directly in a folder; nothing if it is gone."""
        try:
            found: list[dict[str, Any]] = self._file_system.ls(folder, detail=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreadable(folder, error) from error
        for info in sorted(found, key=lambda info: str(info["name"])):
            path = str(self._file_system.unstrip_protocol(info["name"])).rstrip("/")
            self._found[path] = info
            yield path.rpartition("/")[2], path, info["type"] == "directory"

    def is_file(self, path: str) -> bool:
        """Return True for a file; a prefix under which nothing lies yet is a folder."""
        if not self._file_system.isfile(path):
            return False
        self._found[path] = self._file_system.info(path)
        return True

    def details(self, paths: Sequence[str]) -> pl.DataFrame:
        """Return ``FILES`` for the paths of the last listing."""
        found = [(path, _mtime_us(path, self._found[path]), int(self._found[path]["size"] or 0)) for path in paths]
        return pl.DataFrame(found, schema=FILES, orient="row")


# In the order in which the file systems of fsspec give them; the last is all that some have.
_MTIME_KEYS = ("mtime", "LastModified", "last_modified", "modified", "updated", "timeModified", "created")


def _mtime_us(path: str, info: Mapping[str, Any]) -> int:
    value = next((info[key] for key in _MTIME_KEYS if info.get(key) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if not isinstance(value, int | float):
        msg = f"{path}: its file system does not say when it was last changed (it tells {sorted(info)}), so new files have no order"
        raise SourceError(msg)
    return int(value * 1_000) * 1_000


def _unreadable(path: str, error: OSError) -> SourceError:
    msg = f"cannot list {path}: {error.strerror or error}; let this user read it"
    return SourceError(msg, retryable=True)
