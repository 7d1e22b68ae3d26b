"""One on-demand view's function, called on columns: the same way for training rows and for a server's batches."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.definitions import OnDemandFeatureView
from fastserve.errors import FastserveError, InvalidDataError
from fastserve.on_demand.columns import Bools, Column, nothing, to_arrow
from fastserve.types import parse_dtype


class OnDemandFunction:
    """See the module's docstring.

    Args:
        view: as it is registered.
        call: its function.
    """

    def __init__(self, view: OnDemandFeatureView, call: Callable[..., Any]) -> None:
        self.view = view
        self._call = call
        self._types = {field.name: parse_dtype(field.dtype) for field in view.schema}
        self._tells_at = "at" in view.arguments
        self._tells_valid = "valid" in view.arguments
        shown = view.name if view.version == 1 else f"{view.name}@v{view.version}"
        self.where = f"on-demand view {shown!r}"

    def __call__(
        self, inputs: Mapping[str, Column], at: npt.NDArray[np.int64], first: int = 0
    ) -> dict[str, pa.Array]:
        """The view's features, each of n values and of its declared Arrow type, in schema order.

        Args:
            inputs: by name, each of n values.
            at: the instants that the rows hold for, microseconds UTC, int64[n].
            first: the number of the first row, for messages.

        Raises:
            InvalidDataError: the function fails, or what it gives does not fit the schema; names view, feature, row.
        """
        n = len(at)
        if self._tells_valid:
            given = {name: column.masked() for name, column in inputs.items()}
            valid = {name: _all(n) if c.valid is None else c.valid for name, c in inputs.items()}
            return self._made(given, at, valid, np.arange(first, first + n)) if n else self._nothing(n)
        gaps = [column.valid for column in inputs.values() if column.valid is not None]
        if not gaps:
            given = {name: column.values for name, column in inputs.items()}
            return self._made(given, at, {}, np.arange(first, first + n)) if n else self._nothing(n)
        picks = np.flatnonzero(np.logical_and.reduce(gaps))
        if not len(picks):
            return self._nothing(n)
        given = {name: column.take(picks) for name, column in inputs.items()}
        made = self._made(given, at[picks], {}, picks + first)
        spread = np.full(n, -1)
        spread[picks] = np.arange(len(picks))
        places = pa.array(spread, mask=spread < 0)
        return {name: values.take(places) for name, values in made.items()}

    def _made(
        self,
        given: dict[str, Any],
        at: npt.NDArray[np.int64],
        valid: dict[str, Bools],
        rows: npt.NDArray[np.intp],
    ) -> dict[str, pa.Array]:
        """The features of rows of which each input is told."""
        told: dict[str, Any] = {}
        if self._tells_at:
            told["at"] = at.view("datetime64[us]")
        if self._tells_valid:
            told["valid"] = valid
        try:
            with np.errstate(all="ignore"):  # a division by zero is the function's own affair
                made = self._call(given, **told)
            if not isinstance(made, Mapping) or set(made) != set(self._types):
                raise self._other_columns(made)
            return {
                name: to_arrow(made[name], dtype, len(at), partial(self._place, name, rows))
                for name, dtype in self._types.items()
            }
        except FastserveError:
            raise
        except (Exception, SystemExit) as error:
            raise InvalidDataError(
                f"{type(error).__name__}: {error}",
                where=f"{self.where}, {self._line(error)}",
                hint=f"mend the function {self.view.function}, or the input that it fails on",
            ) from error

    def _line(self, error: BaseException) -> str:
        """``file:line`` of the error: the innermost line of the function's own file."""
        frames = traceback.extract_tb(error.__traceback__)
        code = getattr(self._call, "__code__", None)
        own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
        frame = (own or frames)[-1]
        return f"{frame.filename}:{frame.lineno}"

    def _nothing(self, n: int) -> dict[str, pa.Array]:
        return {name: nothing(dtype, n) for name, dtype in self._types.items()}

    def _place(self, feature: str, rows: npt.NDArray[np.intp], i: int) -> str:
        row = f", row {rows[i]}" if 0 <= i < len(rows) else ""
        return f"{self.where}, feature {feature!r}{row}"

    def _other_columns(self, made: Any) -> InvalidDataError:
        wanted = ", ".join(self._types)
        gave = f"a {type(made).__name__}"
        if isinstance(made, Mapping):
            gave = f"{', '.join(map(repr, made)) or 'nothing'}, not just {wanted}"
        return InvalidDataError(
            f"{self.view.function} gave {gave}", where=self.where, hint=f"give a dict of columns: {wanted}"
        )


def _all(n: int) -> Bools:
    return np.ones(n, np.bool_)
