"""Making a data set as a job: fastserve.jobs runs this in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastserve.errors import RequestError
from fastserve.jobs.context import JobContext, JobStopped
from fastserve.registry import open_registry
from materializer.datasets.create import DatasetRequest, create
from materializer.datasets.labels import read_labels

_ARGS = ("name", "service", "features", "spine", "cutoff", "full_feature_names", "timestamp_column",
         "allow_incomplete", "author", "output")  # fmt: skip


def run_job(context: JobContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job of kind `training_dataset`; the result says where the data set is.

    Run again after a kill it finds what was finished, and makes nothing twice.

    Args:
        args: `spine`, the path (relative to the repo) or URL of a .parquet or .csv file; `output`, a directory
            relative to the repo; and fields of DatasetRequest by name.

    Raises:
        JobStopped: it was stopped; nothing is left behind.
        RequestError: an unknown or missing member.
        FastserveError: as `create`.
    """
    unknown = set(args) - set(_ARGS)
    if unknown:
        raise RequestError(f"unknown member {min(unknown)!r}", hint=f"members: {', '.join(_ARGS)}")
    for name in ("name", "spine"):
        if not isinstance(args.get(name), str) or not args[name]:
            raise RequestError("is missing, or no text", where=f"$.{name}")
    about = {n: v for n, v in args.items() if n not in ("spine", "output") and v is not None}
    config = context.config
    if context.stopping:
        raise JobStopped
    output = args.get("output") or ""
    with open_registry(config.registry, config.project) as registry:
        labels = read_labels(args["spine"], registry.snapshot().key_columns(), config.repo)
        context.report(rows=labels.num_rows, phase="join")
        if context.stopping:
            raise JobStopped
        target = str(config.repo / output) if output else ""
        manifest = create(config, registry, labels, DatasetRequest(**about), output=target)
        made = registry.training_dataset(manifest.id)
    context.report(phase="done", eta_s=0.0)
    return {
        "id": manifest.id,
        "name": manifest.name,
        "rows": manifest.rows,
        "uri": made.uri,
        "schema_fingerprint": manifest.schema_fingerprint,
        "output_sha256": manifest.output_sha256,
    }
