"""Jobs: long work in processes of their own, whose state is in the registry.

    submit (registry/jobs.py) ─▶ Supervisor starts `python -m fastserve.jobs.process` ─▶ the kind's function (kinds.py)

A supervisor holds nothing that matters: kill it, and its jobs go on; start another, and it takes them over.
"""

from fastserve.jobs.context import JobContext, JobStopped
from fastserve.jobs.supervisor import Supervisor

__all__ = ["JobContext", "JobStopped", "Supervisor"]
