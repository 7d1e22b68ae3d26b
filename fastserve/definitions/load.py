"""Import a repo directory's Python files and collect the definitions they hold at top level."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from fastserve.definitions import Definition
from fastserve.definitions.source import FileSource, PushSource
from fastserve.definitions.validate import check
from fastserve.errors import ConfigError


def load_definitions(repo: Path, *, exclude: tuple[str, ...] = ()) -> tuple[Definition, ...]:
    """Every definition in the ``*.py`` files directly in `repo`, checked as a whole.

    Files named in `exclude`, and those starting with ``_`` or ``test_``, are left out. Files may import
    one another.

    Raises:
        ConfigError: a file cannot be imported; names file, line and error.
        DefinitionError: all problems of the definitions.
    """
    files = sorted(
        path
        for path in repo.glob("*.py")
        if not path.name.startswith(("_", "test_")) and path.name not in exclude
    )
    sys.path.insert(0, str(repo))
    try:
        modules = [_import(path) for path in files]
    finally:
        sys.path.remove(str(repo))
        _forget(repo)
    found: dict[int, Definition] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Definition):
                found[id(value)] = value
    objects = _unique(list(found.values()))
    check(objects)
    return objects


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
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else 1)
        raise ConfigError(
            f"{type(error).__name__}: {error}",
            where=f"{path}:{line}",
            hint="mend the file; fastserve imports every *.py directly in the repo directory",
        ) from error
    return module


def _forget(repo: Path) -> None:
    """Drop the repo's modules, so that a later load sees edits and two repos never share a name."""
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if origin and Path(origin).parent == repo:
            del sys.modules[name]


def _unique(objects: list[Definition]) -> tuple[Definition, ...]:
    """Equal objects once; sources inside views are part of those, so only named ones count here."""
    kept: list[Definition] = []
    for obj in objects:
        if isinstance(obj, FileSource) or obj in kept:
            continue
        if isinstance(obj, PushSource) and any(o.name == obj.name and o == obj for o in kept):
            continue
        kept.append(obj)
    return tuple(kept)
