"""How a command loads what it needs: cron starts one every few minutes, and a small run is mostly that.

collections    look at objects that all live to the end: there are none meanwhile, and later ones leave those out
pandas         Arrow looks for it when it first makes an array of Python values, and loads it if it is installed. We
               have no use for it, it takes 0.2 s: Arrow is told that there is none, until a repo's files are loaded,
               whose functions may use it
"""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_PANDAS: Final = "pandas"
_hidden = False


@contextmanager
def loading() -> Iterator[None]:
    """Within, a command imports what it needs. In a process that has Arrow already, which is no command's, as ever."""
    if "pyarrow" in sys.modules or _PANDAS in sys.modules:
        yield
        return
    finder = _NoPandas()
    gc.disable()
    sys.meta_path.insert(0, finder)
    try:
        yield
        _hide_pandas()
    finally:
        sys.meta_path.remove(finder)
        gc.freeze()
        gc.enable()


def show_pandas() -> None:
    """Let Arrow take pandas' objects as it does everywhere else; call it before a user's code is loaded."""
    global _hidden
    if _hidden:
        _hidden = False
        if importlib.util.find_spec(_PANDAS) is not None:
            import pandas as pd  # noqa: PLC0415
            import pyarrow as pa  # noqa: PLC0415

            pa.table(pd.DataFrame())  # it looks again


def _hide_pandas() -> None:
    """Have Arrow look now, if it has come."""
    global _hidden
    if "pyarrow" in sys.modules:
        import pyarrow as pa  # noqa: PLC0415

        pa.array([True])  # here it looks
        _hidden = True


class _NoPandas:
    """A finder that says that there is no pandas."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == _PANDAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
