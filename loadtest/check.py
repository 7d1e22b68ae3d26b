"""Whether an answer is right: every value and status. It reads the bytes itself, not with the client's decoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from fastserve.client.wire import Answer
from loadtest.data import DataSet

PRESENT = 1
Matrix = npt.NDArray[np.float32]


class WrongAnswerError(Exception):
    """args[0] is the kind, args[1] what was seen."""


class Checker:
    """Compares answers with the data they must come from."""

    def __init__(self, data: DataSet) -> None:
        self._data = data
        self._names = list(data.names)

    def check(self, format: str, answer: Answer, ids: npt.NDArray[np.int64]) -> None:
        """Raise WrongAnswerError unless the answer has the values of these entities, all PRESENT."""
        if answer.status != 200:
            raise WrongAnswerError(f"HTTP {answer.status}", bytes(answer.body[:200]).decode(errors="replace"))
        try:
            values, present = getattr(self, f"_{format}")(answer, len(ids))
        except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
            raise WrongAnswerError("wrong shape", f"{type(error).__name__}: {error}") from error
        if values.shape != (len(ids), len(self._names)):
            raise WrongAnswerError("wrong shape", f"{values.shape} for {len(ids)} entities")
        if not present:
            raise WrongAnswerError("wrong status", "not everything is PRESENT")
        wrong = np.argwhere(values != self._data.values(ids))
        if len(wrong):
            row, column = wrong[0].tolist()
            seen = f"{self._names[column]} of entity {ids[row]} is {values[row, column]}"
            raise WrongAnswerError("wrong value", f"{seen}; {len(wrong)} of {values.size} are wrong")

    def _json(self, answer: Answer, n: int) -> tuple[Matrix, bool]:
        found: dict[str, Any] = orjson.loads(answer.body)
        if found["names"] != self._names:
            raise ValueError(f"names are {found['names'][:5]}…")
        present = all(column.count(PRESENT) == n == len(column) for column in found["statuses"])
        present = present and len(found["statuses"]) == len(self._names)
        return np.array(found["values"], np.float64).astype(np.float32).T, present

    def _arrow(self, answer: Answer, n: int) -> tuple[Matrix, bool]:
        import pyarrow as pa  # noqa: PLC0415  (for those who ask for it)

        batch = pa.ipc.open_stream(pa.py_buffer(answer.body)).read_next_batch()
        k = len(self._names)
        if batch.schema.names[:k] != self._names:
            raise ValueError(f"names are {batch.schema.names[:5]}…")
        values = np.stack([batch.column(i).to_numpy() for i in range(k)], axis=1)
        statuses = np.stack([batch.column(k + i).to_numpy() for i in range(k)])
        return values, bool((statuses == PRESENT).all())

    def _tensor(self, answer: Answer, n: int) -> tuple[Matrix, bool]:
        k = len(self._names)
        if answer.headers["fastserve-shape"] != f"{n},{k}" or answer.headers["fastserve-dtype"] != "<f4":
            raise ValueError(f"shape is {answer.headers['fastserve-shape']}")
        if answer.headers.get("fastserve-columns", ",".join(self._names)) != ",".join(self._names):
            raise ValueError(f"columns are {answer.headers['fastserve-columns'][:60]}…")
        body, width = memoryview(answer.body), (k + 7) // 8
        if len(body) != n * (4 * k + width + 1):
            raise ValueError(f"{len(body)} bytes")
        values = np.frombuffer(body, "<f4", n * k).reshape(n, k)
        bits = np.frombuffer(body, np.uint8, n * width, 4 * n * k).reshape(n, width)
        there = np.unpackbits(bits, axis=1, count=k, bitorder="little").all()
        statuses = np.frombuffer(body, np.uint8, n, n * (4 * k + width))
        return values, bool(there and (statuses == PRESENT).all())
