"""Definitions of repo directories, checked together with what other repos registered."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve import FeatureStore
from fastserve.errors import DefinitionError
from tests.support import make_repo

HEADER = "from fastserve import *\n"
VIEW = HEADER + "u = Entity('u')\nv = FeatureView('v', entities=[u], schema=[Field('a', 'int64')])\n"


def repo(folder: Path, name: str, text: str) -> FeatureStore:
    """A repo of the project that all repos of a test share."""
    return FeatureStore(make_repo(folder / name, text, registry=f"sqlite:///{folder}/registry.db"))


def test_all_problems_of_a_repo_at_once(tmp_path: Path) -> None:
    with repo(tmp_path, "one", HEADER + "v = FeatureView('v', entities=['nobody'])\n") as store:
        with pytest.raises(DefinitionError) as caught:
            store.apply()
        assert len(caught.value.problems) == 2 and store.registry.revision() == 0


def test_different_objects_of_one_name(tmp_path: Path) -> None:
    with repo(tmp_path, "one", HEADER + "a = Entity('user')\n") as store:
        (store.config.repo / "b.py").write_text(HEADER + "b = Entity('user', dtype='int64')\n")
        with pytest.raises(DefinitionError, match="Entity 'user': is declared twice, differently"):
            store.plan()


def test_a_service_may_use_another_repos_view(tmp_path: Path) -> None:
    with repo(tmp_path, "two", HEADER + "s = FeatureService('s', features=['v:a'])\n") as two:
        with pytest.raises(DefinitionError, match="'v', which is not declared"):
            two.apply()
        with repo(tmp_path, "one", VIEW) as one:
            one.apply()
        snapshot = two.apply().snapshot
        assert set(snapshot.services) == {"s"} and ("v", 1) in snapshot.views
