"""Import a repo directory's Python files and collect the definitions they hold at top level."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from fastserve.definitions import Definition
from fastserve.definitions.reach import seal
from fastserve.definitions.source import BatchSource
from fastserve.errors import ConfigError
from fastserve.loading import show_pandas


def load_repo(repo: Path) -> tuple[Definition, ...]:
    """`load_definitions`, of which there must be some.

    Raises:
        ConfigError: as `load_definitions`, or no file declares anything.
    """
    objects = load_definitions(repo)
    if not objects:
        raise ConfigError(
            "no definitions found",
            where=str(repo),
            hint="declare entities and views in a .py file beside fastserve.toml",
        )
    return objects


def load_definitions(repo: Path, *, exclude: tuple[str, ...] = ()) -> tuple[Definition, ...]:
    """Every definition in the ``*.py`` files directly in `repo`.

    They are not checked here: what they refer to may be another repo's, which only the registry knows, so
    `Registry.plan` checks them together with all that is registered.

    Files named in `exclude`, and those starting with ``_`` or ``test_``, are left out. Files may import
    one another.

    Raises:
        ConfigError: a file cannot be imported; names file, line and error.
    """
    show_pandas()
    repo = Path(repo).resolve()
    files = sorted(
        path
        for path in repo.glob("*.py")
        if not path.name.startswith(("_", "test_")) and path.name not in exclude
    )
    with _importing_from(repo):
        modules = [_import(path) for path in files]
        found = {
            id(value): value
            for module in modules
            for value in vars(module).values()
            if isinstance(value, Definition)
        }
        seal(found.values())
    return _unique(list(found.values()))


@contextlib.contextmanager
def _importing_from(repo: Path) -> Iterator[None]:
    """Let the repo's files import one another, and leave the interpreter afterwards as it was.

    The repo's modules are dropped at the end, so that a later load sees edits and two repos never share a
    name; a module of the same name that was there before, such as ``statistics``, comes back. No bytecode
    is written: its time stamps are too coarse to notice an edit within the second.
    """
    before, writing, path = dict(sys.modules), sys.dont_write_bytecode, list(sys.path)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(repo))
    try:
        yield
    finally:
        sys.dont_write_bytecode, sys.path[:] = writing, path
        for name, module in list(sys.modules.items()):
            if before.get(name) is not module and _is_of(repo, getattr(module, "__file__", None)):
                del sys.modules[name]
                if name in before:
                    sys.modules[name] = before[name]


def _is_of(repo: Path, file: str | None) -> bool:
    """Whether a file is the repo's own: not that of a library in an environment within it."""
    return bool(file) and repo in Path(str(file)).parents and "site-packages" not in Path(str(file)).parts


def _import(path: Path) -> ModuleType:
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded  # another file of the repo imported it already
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError("cannot be imported", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{type(error).__name__}: {error}",
            where=_place(error, path),
            hint="mend the file; fastserve imports every *.py directly in the repo directory",
        ) from error
    return module


def _place(error: BaseException, path: Path) -> str:
    """``file:line`` of the error: the innermost line that is the repo's own."""
    if isinstance(error, SyntaxError) and _is_of(path.parent, error.filename):
        return f"{error.filename}:{error.lineno or 1}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_of(path.parent, frame.filename):
            return f"{frame.filename}:{frame.lineno or 1}"
    return f"{path}:1"


def _unique(objects: list[Definition]) -> tuple[Definition, ...]:
    """Equal objects once. What holds history counts as part of the views that read it, not by itself."""
    kept: list[Definition] = []
    for obj in objects:
        if not isinstance(obj, BatchSource) and obj not in kept:
            kept.append(obj)
    return tuple(kept)
