"""What is installed: only ``microbatch/...``, all of it, from an sdist, with the rooms at the top of the repository under one name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINKED = ("sources", "sinks", "checkpoint")
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Return what the command printed; fail with all it said if it fails."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def packages_on_disk() -> list[str]:
    """Return the dotted names of all folders with an ``__init__.py``; rglob does not follow the links."""
    found = []
    for top in ("microbatch", *LINKED):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.append(".".join(parts if top == "microbatch" else ("microbatch", *parts)))
    return sorted(found)


def modules_on_disk() -> list[str]:
    """Return every file of the package as its place below ``microbatch/``."""
    own = [file.relative_to(ROOT).as_posix() for file in (ROOT / "microbatch").rglob("*.py")]
    linked = [f"microbatch/{file.relative_to(ROOT).as_posix()}" for top in LINKED for file in (ROOT / top).rglob("*.py")]
    return sorted(own + linked)


def test_the_package_list_equals_the_folders_on_disk() -> None:
    assert sorted(_PROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_version_is_the_same_everywhere() -> None:
    import microbatch

    assert microbatch.__version__ == _PROJECT["project"]["version"]


@pytest.mark.parametrize("name", LINKED)
def test_a_room_is_linked_into_the_package_by_a_relative_path(name: str) -> None:
    link = ROOT / "microbatch" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a clone, or no git")
@pytest.mark.parametrize("name", LINKED)
def test_the_link_is_tracked_as_a_link(name: str) -> None:
    assert run("git", "ls-files", "--stage", f"microbatch/{name}", cwd=ROOT).startswith("120000 ")


_BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built as a release is: from an unpacked sdist, so that what the sdist forgot is missed."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("microbatch", *LINKED):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    sdist = folder / run(sys.executable, "-c", _BUILD, "build_sdist", folder, cwd=tree).splitlines()[-1]
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    return folder / run(sys.executable, "-c", _BUILD, "build_wheel", folder, cwd=unpacked).splitlines()[-1]


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    outside = {name.split("/")[0] for name in names} - {"microbatch"}
    assert sorted(name for name in names if name.endswith(".py")) == modules_on_disk()
    assert [name for name in outside if not name.endswith(".dist-info")] == []
    assert "microbatch/py.typed" in names


_IMPORT_ALL = """
import importlib, importlib.util, pathlib, sys
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    assert pathlib.Path(module.__file__).is_relative_to(sys.argv[1]), module.__file__
print([name for name in ("sources", "sinks", "checkpoint", "tests") if importlib.util.find_spec(name)])
"""


def test_the_wheel_installs_into_an_empty_environment_and_imports(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=tmp_path)
    # Path entries do not run .pth files, so the editable install of this environment stays out of the way.
    libraries = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    names = [m.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for m in modules_on_disk()]
    found = run(python, "-W", "error", "-c", _IMPORT_ALL, home.resolve(), *names, cwd=tmp_path, PYTHONPATH=libraries)
    assert found.strip() == "[]", "a room must not be importable under its bare name"
