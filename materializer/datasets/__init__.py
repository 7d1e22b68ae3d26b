"""Training data sets as artefacts: made once, re-made and compared byte by byte at any time after.

<data set>/
  data.parquet    labels and features; the same inputs give the same bytes
  spine.parquet   the labels alone, so that re-making needs nothing else of the user's
  manifest.json   what it was made from: definitions, rows, cutoff, software; and the hashes of what came out
"""

from __future__ import annotations

from materializer.datasets.create import DatasetRequest, create
from materializer.datasets.job import run_job
from materializer.datasets.manifest import DatasetManifest
from materializer.datasets.opened import Dataset, open_dataset
from materializer.datasets.report import Finding, Report
from materializer.datasets.verify import verify

__all__ = [
    "Dataset",
    "DatasetManifest",
    "DatasetRequest",
    "Finding",
    "Report",
    "create",
    "open_dataset",
    "run_job",
    "verify",
]
