"""Which functions of a repo are called: those that were applied, with all that they reach, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.definitions import OnDemandFeatureView
from fastserve.definitions.load import load_definitions
from fastserve.errors import ConfigError
from fastserve.on_demand.functions import Functions

HEAD = """
import numpy as np
import helpers
from fastserve import Field, RequestSource, on_demand_feature_view
"""
VIEW = """
@on_demand_feature_view(sources=[RequestSource("r", [Field("a", "float64")])], schema=[Field("b", "float64")])
def doubled(inputs):
    def inner(values):
        return values * FACTOR
    return {"b": helpers.same(inner(inputs["a"])) + below()}

def below():
    return 0.0

FACTOR = 2.0
"""
HELPERS = "def same(values):\n    return values\n"


def write(folder: Path, view: str = VIEW, helpers: str = HELPERS) -> OnDemandFeatureView:
    (folder / "features.py").write_text(HEAD + view)
    (folder / "helpers.py").write_text(helpers)
    (found,) = (v for v in load_definitions(folder) if isinstance(v, OnDemandFeatureView))
    return found


def of(folder: Path, view: OnDemandFeatureView) -> object:
    functions = Functions(folder)
    functions.prepare([view])
    return functions.of(view)


def test_the_text_is_of_all_that_the_function_reaches(tmp_path):
    view = write(tmp_path)
    assert (view.function, view.name, view.call is not None) == ("features:doubled", "doubled", True)
    for part in ("def doubled", "def below", "FACTOR = 2.0", "def same"):
        assert part in view.code
    assert "numpy" not in view.code and "@on_demand" not in view.code
    assert of(tmp_path, view).view is view


@pytest.mark.parametrize(
    ("view", "helpers"),
    [
        (VIEW.replace("FACTOR = 2.0", "FACTOR = 3.0"), HELPERS),
        (VIEW.replace("return 0.0", "return 1.0"), HELPERS),
        (VIEW.replace("values * FACTOR", "values + FACTOR"), HELPERS),
        (VIEW, HELPERS.replace("return values", "return -values")),
    ],
)
def test_another_text_anywhere_is_another_function(tmp_path, view, helpers):
    applied = write(tmp_path)
    write(tmp_path, view, helpers)
    with pytest.raises(ConfigError, match="features:doubled is not the function that was applied"):
        of(tmp_path, applied)
    write(tmp_path)
    assert of(tmp_path, applied)


def test_what_it_does_not_reach_does_not_matter(tmp_path):
    applied = write(tmp_path)
    write(tmp_path, "OTHER = 5\ndef other():\n    return OTHER\n" + VIEW + "\n\n# an end\n")
    assert of(tmp_path, applied)


def test_a_repo_without_the_function_or_that_cannot_be_imported(tmp_path):
    applied = write(tmp_path)
    (tmp_path / "features.py").write_text("")
    with pytest.raises(ConfigError, match="the repo has no function features:doubled"):
        of(tmp_path, applied)
    (tmp_path / "features.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="the repo cannot be imported: ZeroDivisionError"):
        of(tmp_path, applied)


def test_what_a_file_prints_is_not_the_process_output(tmp_path, capsys):
    view = write(tmp_path, "print('imported')\n" + VIEW)
    capsys.readouterr()
    assert of(tmp_path, view)
    assert capsys.readouterr() == ("", "imported\n")


def test_a_newer_revision_has_the_repo_looked_at_again(tmp_path):
    old = write(tmp_path)
    functions = Functions(tmp_path)
    functions.prepare([old])
    new = write(tmp_path, VIEW.replace("FACTOR = 2.0", "FACTOR = 3.0"))
    functions.prepare([new])
    assert functions.of(new).view is new
    assert functions.of(old).view is old  # for requests that began before
