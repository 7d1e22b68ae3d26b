"""The text of a function of the repo, and of all in the repo that it reaches: what tells one version from another.

Reached are, by name and on through what they name: functions, classes, whole modules of the repo, and constants of
plain values or numpy arrays. Not looked at: libraries, and objects of other kinds.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from fastserve.definitions.freeze import freeze
from fastserve.definitions.on_demand import OnDemandFeatureView

_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None))


def function_text(function: Callable[..., Any]) -> str:
    """The function as it is written, from its ``def`` on."""
    text = textwrap.dedent(inspect.getsource(function))
    first = ast.parse(text).body[0]
    lines = text.splitlines()[first.lineno - 1 :]
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"


def reached_text(function: Callable[..., Any]) -> str:
    """`function_text`, and after it the texts of what it reaches, sorted by module and name."""
    repo = Path(inspect.getfile(function)).resolve().parent
    found: dict[str, str] = {}
    todo: list[tuple[str, Any]] = [(_label(function), function)]
    while todo:
        label, value = todo.pop()
        if label in found:
            continue
        text = _text(value, label.rpartition(":")[2], repo)
        if text is not None:
            found[label] = text
            todo += _named_by(value)
    first = found.pop(_label(function))
    return "\n".join([first, *(f"# {label}\n{found[label]}" for label in sorted(found))])


def seal(objects: Iterable[Any]) -> None:
    """Give on-demand views the text of what their functions reach now: some of it may be written below them."""
    for view in objects:
        if isinstance(view, OnDemandFeatureView) and view.call is not None:
            freeze(view, code=reached_text(view.call))


def _label(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"


def _text(value: Any, name: str, repo: Path) -> str | None:
    """What stands for a value; None for one that is not looked at."""
    if isinstance(value, (FunctionType, type)):
        return function_text(value) if _is_of(repo, value) else None
    if isinstance(value, ModuleType):
        return Path(str(value.__file__)).read_text() if _is_of(repo, value) else None
    plain = _plain(value)
    return None if plain is None else f"{name} = {plain}\n"


def _is_of(repo: Path, value: Any) -> bool:
    try:
        file = Path(inspect.getfile(value)).resolve()
    except (TypeError, OSError):  # built in
        return False
    return repo in file.parents and "site-packages" not in file.parts


def _plain(value: Any) -> str | None:
    """A constant as text; None for what is none."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tobytes"):
        digest = hashlib.sha256(value.tobytes()).hexdigest()
        return f"numpy {value.dtype} {value.shape} {digest}"
    if isinstance(value, (tuple, list, set, frozenset, dict)):
        parts = value.items() if isinstance(value, dict) else value
        texts = [_plain(part) for part in parts]
        if None in texts:
            return None
        shown = sorted(map(str, texts)) if isinstance(value, (set, frozenset)) else map(str, texts)
        return f"{type(value).__name__}({', '.join(shown)})"
    return None


def _named_by(value: Any) -> Iterator[tuple[str, Any]]:
    """(label, value) of the globals that a function, the methods of a class or a module name."""
    if isinstance(value, ModuleType):
        yield from _labelled(vars(value), list(vars(value)), value.__name__)
    elif isinstance(value, type):
        for method in vars(value).values():
            method = getattr(method, "__func__", getattr(method, "fget", method))
            if isinstance(method, FunctionType):
                yield from _named_by(method)
    elif isinstance(value, FunctionType):
        yield from _labelled(value.__globals__, list(_names(value.__code__)), value.__module__)


def _labelled(scope: dict[str, Any], names: list[str], module: str) -> Iterator[tuple[str, Any]]:
    for name in names:
        if name not in scope or name.startswith("__"):
            continue
        value = scope[name]
        if isinstance(value, ModuleType):
            yield f"{value.__name__}:", value
        elif isinstance(value, (FunctionType, type)):
            yield _label(value), value
        else:
            yield f"{module}:{name}", value


def _names(code: CodeType) -> Iterator[str]:
    """Every name that code, or a function inside it, looks up; attributes too, which does no harm."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
