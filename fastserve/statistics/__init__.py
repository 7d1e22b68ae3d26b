"""Statistics of features: exact moments and a sample of rows, both mergeable; see `feature.py`."""

from __future__ import annotations

from fastserve.statistics.feature import FeatureStatistics
from fastserve.statistics.moments import Moments
from fastserve.statistics.sample import SAMPLE_ROWS, Sample
from fastserve.statistics.view import ViewStatistics

__all__ = ["SAMPLE_ROWS", "FeatureStatistics", "Moments", "Sample", "ViewStatistics"]
