"""Statistics of a view's features in an interval, and their bytes.

bytes    JSON in the metadata of the first Arrow stream: format, times, rows, moments by feature
         Arrow streams, zstd, one after the other: `#hash` and the sampled values of features that were
         sampled together, which all features of one run are
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from fastserve.errors import RegistryError
from fastserve.statistics.feature import FeatureStatistics
from fastserve.statistics.moments import Moments
from fastserve.statistics.sample import Sample
from fastserve.timeutil import format_timestamp

FORMAT: Final = 1
_HASH: Final = "#hash"
_ABOUT: Final = b"fastserve.statistics"


@dataclass(frozen=True, slots=True, eq=False)
class ViewStatistics:
    """What is known of a view's rows with event times in ``[start_us, end_us)``.

    Attributes:
        start_us, end_us: the first event time there was, and one microsecond after the last.
        rows: how many were read.
        features: by name.
        runs: how many runs went in.
        overlapping: whether runs that went in may have read some rows twice.
    """

    start_us: int
    end_us: int
    rows: int
    features: Mapping[str, FeatureStatistics]
    runs: int = 1
    overlapping: bool = False

    def merged(self, other: ViewStatistics) -> ViewStatistics:
        """Of the rows of both; a feature that only one knows is as that one says."""
        features = dict(self.features)
        for name, found in other.features.items():
            known = features.get(name)
            fits = known is not None and known.dtype == found.dtype
            features[name] = known.merged(found) if known is not None and fits else found
        return ViewStatistics(
            min(self.start_us, other.start_us),
            max(self.end_us, other.end_us),
            self.rows + other.rows,
            features,
            self.runs + other.runs,
            self.overlapping or other.overlapping,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in RFC 3339, both inclusive."""
        return {
            "start": format_timestamp(self.start_us),
            "end": format_timestamp(self.end_us - 1),
            "rows": self.rows,
            "runs": self.runs,
            "overlapping": self.overlapping,
            "features": {name: one.to_dict() for name, one in self.features.items()},
        }

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        about = {
            "format": FORMAT,
            "times": [self.start_us, self.end_us],
            "rows": self.rows,
            "runs": self.runs,
            "overlapping": self.overlapping,
            "features": {name: [f.dtype, f.moments.to_dict()] for name, f in self.features.items()},
        }
        metadata = {_ABOUT: json.dumps(about).encode()}
        sink = pa.BufferOutputStream()
        for batch in self._batches() or [pa.record_batch({_HASH: pa.array([], pa.uint64())})]:
            more = batch.schema.metadata or {}
            batch = batch.replace_schema_metadata(more | metadata)
            metadata = {}
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
                writer.write_batch(batch)
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]

    def _batches(self) -> list[pa.RecordBatch]:
        """The samples; those of equal hashes in one batch, with the limit in its metadata."""
        groups: dict[tuple[bytes, int], dict[str, Any]] = {}
        known: dict[int, bytes] = {}  # a run's features share their hashes
        for name, feature in self.features.items():
            if (sample := feature.sample) is not None:
                hashes = known.get(id(sample.hashes)) or known.setdefault(
                    id(sample.hashes), sample.hashes.tobytes()
                )
                groups.setdefault((hashes, sample.limit), {})[name] = sample.values
        return [
            pa.record_batch({_HASH: np.frombuffer(hashes, np.uint64), **columns}).replace_schema_metadata(
                {b"limit": str(limit).encode()}
            )
            for (hashes, limit), columns in groups.items()
        ]

    @classmethod
    def from_bytes(cls, data: bytes) -> ViewStatistics:
        """Read what `to_bytes` wrote.

        Raises:
            RegistryError: a newer fastserve wrote it.
        """
        source = pa.BufferReader(data)
        about: dict[str, Any] = {}
        samples: dict[str, Sample] = {}
        while source.tell() < len(data):
            with pa.ipc.open_stream(source) as reader:
                metadata = reader.schema.metadata or {}
                about = about or _about(metadata)
                batch = reader.read_next_batch()
                reader.read_all()  # up to the end of the stream
            hashes = batch.column(_HASH).to_numpy(zero_copy_only=False)
            for name in batch.schema.names:
                if name != _HASH:
                    samples[name] = Sample(hashes, batch.column(name), int(metadata[b"limit"]))
        features = {
            name: FeatureStatistics(dtype, Moments(**moments), samples.get(name))
            for name, (dtype, moments) in about["features"].items()
        }
        start_us, end_us = about["times"]
        return cls(start_us, end_us, about["rows"], features, about["runs"], about["overlapping"])


def _about(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(metadata[_ABOUT])
    if about["format"] != FORMAT:
        raise RegistryError(
            f"statistics are of format {about['format']}, this release reads {FORMAT}",
            hint="upgrade fastserve: a newer one has written them",
        )
    return about
