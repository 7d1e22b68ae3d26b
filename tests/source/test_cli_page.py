"""docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "deploy" / "render_cli.py"))["render"]()
    assert (ROOT / "docs" / "cli.md").read_text() == made, "run: python deploy/render_cli.py"
