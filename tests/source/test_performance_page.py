"""docs/performance.md and bench/README.md say what bench/results and bench/suite.py say; no bench is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.render import PAGE, README, rendered
from bench.suite import BENCHES


@pytest.mark.parametrize("page", [PAGE, README], ids=lambda page: page.name)
def test_the_page_is_rendered(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert rendered(text) == text, "python -m bench.render"


def test_every_bench_is_in_the_suite_and_on_the_page() -> None:
    names = {path.stem for path in README.parent.glob("*.py") if "bench.record import" in path.read_text()}
    assert names == {bench.name for bench in BENCHES}
    page = PAGE.read_text(encoding="utf-8")
    assert not [name for name in names if f"<!-- bench:{name} -->" not in page]
