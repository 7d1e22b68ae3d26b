"""Answers as one matrix of floats (codec/matrix_py.py says what lies where), with its shape in the headers."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from fastserve.api.hits_py import AnswerHit
from fastserve.api.wire import TENSOR
from fastserve.batch import ReadBatch
from fastserve.codec.matrix import MatrixDecoder, MatrixShape, matrix_shape
from fastserve.http.message import CheckedHeaders, HeaderList, Response
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import Found

MAX_PLANS: Final = 1_024
MAX_SIZES: Final = 1_024  # numbers of rows whose headers are kept
_MEDIA: Final = TENSOR.encode()
MAX_NAMES_BYTES: Final = 8_192  # of a header; a client has its own limit


class PlanMatrix:
    """A plan's decoder, and the headers that all of its answers have."""

    __slots__ = ("_by_rows", "_headers", "decoder", "plan", "shape", "ttls")

    def __init__(self, plan: ReadPlan) -> None:
        decoders = [read.rows for read in plan.reads]
        columns = [(c.read, c.column) for c in plan.columns]
        self.plan = plan
        self.shape: MatrixShape = matrix_shape(decoders, columns, [c.name for c in plan.columns])
        self.decoder = MatrixDecoder(decoders, self.shape)
        self.ttls = tuple(read.ttl_us for read in plan.reads)
        names = ",".join(quote(name, safe="[]") for name in self.shape.names).encode()
        views = ",".join(f"{quote(read.view)}@v{read.version}" for read in plan.reads).encode()
        self._headers = (
            (b"fastserve-dtype", self.shape.dtype.encode()),
            *([(b"fastserve-columns", names)] if len(names) <= MAX_NAMES_BYTES else []),
            (b"fastserve-views", views),
            (b"fastserve-revision", b"%d" % plan.revision),
            (b"fastserve-schema-fingerprint", plan.fingerprint.encode()),
        )
        self._by_rows: dict[int, CheckedHeaders] = {}

    def answer(self, batch: ReadBatch, n: int, now_us: int) -> Response:
        """Of rows that are all known."""
        return Response(200, _MEDIA, self.decoder.decode(batch, n, now_us, self.ttls), self.headers(n))

    def headers(self, n: int) -> CheckedHeaders:
        """Of an answer with n rows."""
        found = self._by_rows.get(n)
        if found is None:
            if len(self._by_rows) >= MAX_SIZES:
                self._by_rows.clear()
            shape = b"%d,%d" % (n, len(self.shape.names))
            found = self._by_rows[n] = CheckedHeaders((*self._headers, (b"fastserve-shape", shape)))
        return found


_matrices: dict[int, PlanMatrix] = {}


def matrix_of(plan: ReadPlan) -> PlanMatrix:
    """The matrix of a plan, made once.

    Raises:
        RequestError: a feature is not of a type that a matrix of floats holds exactly.
    """
    found = _matrices.get(id(plan))
    if found is None or found.plan is not plan:
        if len(_matrices) >= MAX_PLANS:
            _matrices.clear()
        found = _matrices[id(plan)] = PlanMatrix(plan)
    return found


def hit_tensor(plan: ReadPlan) -> AnswerHit:
    """Answers hits on the plan."""
    return matrix_of(plan).answer


def render_tensor(found: Found) -> Response:
    """The answer; docs/http-api.md has it byte by byte."""
    matrix = matrix_of(found.plan)
    body = matrix.decoder.decode(found.rows, found.n, found.now_us, matrix.ttls)
    headers: HeaderList = matrix.headers(found.n)
    if found.unavailable:
        headers = (*headers, (b"fastserve-unavailable", quote(found.unavailable, safe=" :'").encode()))
    if found.stale:
        headers = (*headers, (b"fastserve-stale-rows", b"%d" % found.stale))
    return Response(200, _MEDIA, body, headers)
