"""Workers and runs beside them, killed at any moment, under load: in the end rows are history's, to the byte.

FASTSERVE_CRASH_KILLS says how often, and then on LMDB too; FASTSERVE_CRASH_SEED says when.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from fastserve.timeutil import now_us
from tests.integration.streaming.conftest import Kept
from tests.integration.streaming.kit import SHARDS, all_read, fleet, offsets, until
from tests.integration.streaming.load import sending
from tests.integration.streaming.test_correction import Event, Stage, event, reused, with_late
from tests.integration.streaming.test_crash import all_archived
from tests.servers import ROOT

STORES = ["redis", *(["lmdb"] if "FASTSERVE_CRASH_KILLS" in os.environ else [])]
KILLS = int(os.environ.get("FASTSERVE_CRASH_KILLS", "1"))


def part(seed: int) -> list[Event]:
    rows = with_late(60, seed)
    return [*rows, *reused(rows)]


def started_run(stage: Stage) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "materializer.cli", "run", "--incremental"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        words, cwd=stage.repo, env=environ, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("kept", STORES, indirect=True)
def test_killed_runs_and_workers(kept: Kept) -> None:
    rng = random.Random(int(os.environ.get("FASTSERVE_CRASH_SEED", "1")))
    stage = Stage(kept)
    stage.load([one for seed in range(1, 20) for one in part(seed)])  # the logs have these too
    with fleet(stage.repo) as workers:
        with sending(lambda seed: stage.send(part(seed))):  # late ones, copies, ids used again
            workers.start()
            for _ in range(KILLS):
                workers.start()
                run = started_run(stage)
                before = offsets(stage.store, stage.feed)
                until(lambda before=before: offsets(stage.store, stage.feed) != before)
                time.sleep(rng.uniform(0, 0.3))  # when, is the point
                workers.end(rng.choice(workers.running), signal.SIGKILL)
                time.sleep(rng.uniform(0, 2.5))
                run.kill()
                run.communicate()
            run = started_run(stage)
            output, _ = run.communicate(timeout=60)
            assert run.returncode == 0, output
        until(lambda: all_read(stage.client, stage.store, stage.feed))
        now = now_us()  # what was before is settled by this
        stage.send([event(1_000 + i, now, f"tick{i}") for i in range(40)])
        until(
            lambda: all_read(stage.client, stage.store, stage.feed) and all_archived(stage.client, stage.feed)
        )
        run = started_run(stage)
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 0, output
    assert [state.watermark_us for state in stage.states()] == [now] * SHARDS
    stage.check()
