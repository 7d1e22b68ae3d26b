"""A read as one matrix of floats, as the server sends it: nothing is parsed, numpy is imported when it is asked for.

docs/http-api.md has the body byte by byte: n x C floats, n x ⌈C/8⌉ bytes of a bitmap, views x n statuses.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_STATUSES: Final = ("INVALID", "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "UNAVAILABLE")
_FORMATS: Final = {"<f4": "f", "<f8": "d"}


@dataclass(frozen=True)
class Tensor:
    """Features of n entities as a matrix of n x C floats, row-major, in the order asked for.

    Attributes:
        columns: C names; a list of three is e[0], e[1], e[2]. Empty where they are too many for a header.
        n: number of entities, i.e. rows.
        width: C, the number of columns.
        dtype: "<f4" or "<f8": little-endian float32 or float64.
        row_statuses: ``view@v1`` -> PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE or UNAVAILABLE per row. A value that is not
            there in a row that is PRESENT is null. A view read by two sets of keys is there twice, the second as
            ``view@v1#2``.
        revision: of the registry the answer was made with.
        fingerprint: of the schema: it changes when a name, a type, a view version or the order does.
        unavailable: why the store did not answer, '' when it did.
        stale_rows: how many rows are older than their view allows, answered because the store is down.
        body: the answer as it came.
    """

    columns: tuple[str, ...]
    n: int
    width: int
    dtype: str
    row_statuses: dict[str, list[str]]
    revision: int
    fingerprint: str
    unavailable: str
    stale_rows: int
    body: bytes | bytearray

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"<Tensor {self.n} x {self.width} {self.dtype}>"

    @property
    def matrix(self) -> memoryview:
        """The matrix's bytes, not copied: what torch.frombuffer and the like take."""
        return memoryview(self.body)[: self._matrix_bytes]

    def to_numpy(self) -> npt.NDArray[Any]:
        """The matrix, float[n, C], not copied; 0 where there is no value, so look at `valid` too."""
        import numpy as np  # noqa: PLC0415  (needed by those who ask for it)

        return np.ndarray((self.n, self.width), self.dtype, self.body)

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """bool[n, C]: the value is there."""
        import numpy as np  # noqa: PLC0415

        mask_bytes = (self.width + 7) // 8
        bits = np.ndarray((self.n, mask_bytes), np.uint8, self.body, self._matrix_bytes)
        flags = np.unpackbits(bits, axis=1, count=self.width, bitorder="little")
        return flags.astype(np.bool_)

    def to_masked(self) -> np.ma.MaskedArray[Any, Any]:
        """The matrix with what is not there masked; `.filled(float("nan"))` gives a plain one."""
        import numpy as np  # noqa: PLC0415

        return np.ma.MaskedArray(self.to_numpy(), ~self.valid)

    def to_list(self) -> list[list[float | None]]:
        """Rows of floats, None where there is no value; without numpy."""
        row = struct.Struct(f"<{self.width}{_FORMATS[self.dtype]}")
        mask_bytes = (self.width + 7) // 8
        found = []
        for i in range(self.n):
            start = self._matrix_bytes + i * mask_bytes
            bits = int.from_bytes(self.body[start : start + mask_bytes], "little")
            values = row.unpack_from(self.body, i * row.size)
            found.append([value if bits >> c & 1 else None for c, value in enumerate(values)])
        return found

    @property
    def _matrix_bytes(self) -> int:
        return self.n * self.width * int(self.dtype[2])


def tensor_of(headers: Mapping[str, str], body: bytes | bytearray) -> Tensor:
    """The tensor of an answer.

    Args:
        headers: of the answer, lower-case names.
        body: of the answer.

    Raises:
        KeyError, ValueError: a header is missing, or they and the body do not fit.
    """
    dtype = headers["fastserve-dtype"]
    if dtype not in _FORMATS:
        raise ValueError(f"{dtype!r} is no dtype of a tensor")
    n, width = (int(number) for number in headers["fastserve-shape"].split(","))
    views = [unquote(view) for view in headers["fastserve-views"].split(",") if view]
    names = headers.get("fastserve-columns")
    columns = tuple(unquote(name) for name in names.split(",")) if names else ()
    if columns and len(columns) != width:
        raise ValueError(f"{len(columns)} names for {width} columns")
    start = n * width * int(dtype[2]) + n * ((width + 7) // 8)
    if len(body) != start + len(views) * n:
        raise ValueError(f"{len(body)} bytes, and {start + len(views) * n} for {n} x {width} of {dtype}")
    statuses: dict[str, list[str]] = {}
    for i, view in enumerate(views):
        count = sum(known.partition("#")[0] == view for known in statuses)
        codes = body[start + i * n : start + (i + 1) * n]
        statuses[f"{view}#{count + 1}" if count else view] = [_STATUSES[code] for code in codes]
    return Tensor(
        columns=columns,
        n=n,
        width=width,
        dtype=dtype,
        row_statuses=statuses,
        revision=int(headers["fastserve-revision"]),
        fingerprint=headers["fastserve-schema-fingerprint"],
        unavailable=unquote(headers.get("fastserve-unavailable", "")),
        stale_rows=int(headers.get("fastserve-stale-rows", "0")),
        body=body,
    )
