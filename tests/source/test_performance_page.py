"""docs/performance.md says what bench/results say."""

from __future__ import annotations

from bench.render import PAGE, rendered


def test_the_page_is_rendered_from_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert rendered(page) == page, "python -m bench.render"
    assert "<!-- bench:" in page
