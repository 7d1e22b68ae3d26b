"""Backfill: the dates of a view as a ledger, written by parallel workers. START at run.py.

survey    which dates the source has, from its files' footers                      survey.py
ledger    which of them are not complete as they are now                           fastserve/registry/backfills.py
work      per few dates: scan, digest, write what changed                          work.py, wherever an engine runs it
commit    files of finished dates in one commit of the offline table, then the ledger
"""

from __future__ import annotations

from materializer.backfill.plan import BackfillPlan, make_plan
from materializer.backfill.run import backfill
from materializer.backfill.values import BackfillRequest, BackfillSummary

__all__ = ["BackfillPlan", "BackfillRequest", "BackfillSummary", "backfill", "make_plan"]
