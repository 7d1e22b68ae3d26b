"""For locust's own command:  locust -f loadtest/locustfile.py --host http://127.0.0.1:6566 --rate 300 --headless -t 30s

The server has the data of loadtest/data.py. At the end the report is written, and the exit code tells of the SLO.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # locust runs this file, not this package

from loadtest.report import save
from loadtest.settings import Settings, add_options
from loadtest.users import ClosedLoopUser, OpenLoopUser, attach

__all__ = ["ClosedLoopUser", "OpenLoopUser"]


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    add_options(parser)


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    assert options is not None

    def settings() -> Settings:
        given = {"seconds": 0.0, "users": 0}  # locust says when to stop, and how many
        return Settings.from_options(
            options, **given, **({"host": environment.host} if environment.host else {})
        )

    environment.user_classes = [OpenLoopUser if options.rate else ClosedLoopUser]
    attach(environment, settings)

    def report(**_: Any) -> None:
        run = environment.load_run  # type: ignore[attr-defined]
        found = run.recorder.report(run.end)
        save(found, Path(options.report_dir))
        environment.process_exit_code = found["exit_code"]

    environment.events.test_stop.add_listener(report)
