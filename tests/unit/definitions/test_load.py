"""Loading a repo directory."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest

from fastserve import Entity, FeatureView
from fastserve.definitions.load import load_definitions
from fastserve.errors import ConfigError

HEADER = "from fastserve import Entity, FeatureView, FeatureService, Field, FileSource, PushSource\n"


def write(repo: Path, **files: str) -> Path:
    for name, text in files.items():
        (repo / f"{name}.py").write_text(HEADER + text)
    return repo


def names(repo: Path) -> list[str]:
    return [f"{type(o).__name__} {o.name}" for o in load_definitions(repo)]


def test_all_files_and_their_imports(tmp_path: Path) -> None:
    write(
        tmp_path,
        views="from entities import user\nstats = FeatureView('stats', entities=[user], schema=[Field('a', 'int64')])",
        entities="user = Entity('user')\nother = user\nsource = FileSource('x')\nnumber = 7",
        services="from views import stats\nsvc = FeatureService('svc', [stats])\npush = PushSource('p')",
    )
    assert sorted(names(tmp_path)) == [
        "Entity user",
        "FeatureService svc",
        "FeatureView stats",
        "PushSource p",
    ]


def test_files_left_out(tmp_path: Path) -> None:
    write(tmp_path, _private="raise 1", test_views="raise 1", serve="raise 1", user="user = Entity('user')")
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", deeper="raise 1")
    assert len(load_definitions(tmp_path, exclude=("serve.py",))) == 1
    assert load_definitions(tmp_path / "nowhere") == ()


def test_equal_objects_are_one(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="user = Entity('user')\npush = PushSource('p')",
        b="user = Entity('user')\np = PushSource('p')",
    )
    assert names(tmp_path) == ["Entity user", "PushSource p"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("x = 1\ny = x +\n", "a.py:3", "SyntaxError: invalid syntax"),
        ("\n\nuser = Entiti('user')", "a.py:4", "NameError: name 'Entiti' is not defined"),
        ("import no_such_module_at_all", "a.py:2", "ModuleNotFoundError: No module named"),
        ("v = FeatureView('v', ttl='2 hours')", "a.py:2", "ValueError: '2 hours' is not a duration"),
        ("def f():\n    return Field('x')\n\nf()", "a.py:3", "TypeError: "),
        ("import json\njson.loads('\\n\\n\\n{')", "a.py:3", "JSONDecodeError: "),
        ("import sys\nsys.exit(3)", "a.py:3", "SystemExit: 3"),
        ("import b\n", "b.py:3", "ZeroDivisionError: division by zero"),
        ("import c\n", "c.py:2", "SyntaxError: "),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, place: str, message: str) -> None:
    write(tmp_path, a=text)
    if "import b" in text:
        write(tmp_path, b="\n1 / 0")
    if "import c" in text:
        write(tmp_path, c="def (")
    with pytest.raises(ConfigError) as caught:
        load_definitions(tmp_path)
    assert caught.value.where == str(tmp_path / place)
    assert caught.value.message.startswith(message)


def test_edits_are_seen_at_once(tmp_path: Path) -> None:
    for name in ("one", "two", "six"):  # of one length, within one second
        write(tmp_path, a=f"import shared\ne = Entity('{name}' + shared.x)", shared=f"x = '_{name}'")
        assert names(tmp_path) == [f"Entity {name}_{name}"]
    assert not list(tmp_path.rglob("__pycache__"))


def test_two_repos_with_the_same_file_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, views="import shared\ne = Entity('e_' + shared.x)", shared=f"x = '{name}'")
    assert names(tmp_path / "one") == ["Entity e_one"]
    assert names(tmp_path / "two") == ["Entity e_two"]


def test_packages_of_the_repo_are_reloaded_too(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    write(tmp_path, a="from lib.names import x\ne = Entity(x)")
    for name in ("one", "two"):
        write(tmp_path / "lib", names=f"x = '{name}'")
        assert names(tmp_path) == [f"Entity {name}"]


def test_libraries_within_the_repo_stay_loaded(tmp_path: Path) -> None:
    """An environment may live in the repo; extension modules in it cannot be loaded twice."""
    site = tmp_path / ".venv" / "site-packages"
    site.mkdir(parents=True)
    (site / "fastserve_test_library.py").write_text("loads = 1")
    write(
        tmp_path,
        a=f"import sys; sys.path.append({str(site)!r})\nimport fastserve_test_library\ne = Entity('e')",
    )
    try:
        load_definitions(tmp_path)
        assert "fastserve_test_library" in sys.modules
    finally:
        sys.modules.pop("fastserve_test_library", None)


def test_the_interpreter_is_left_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, statistics="e = Entity('e')", zz="1 / 0")
    path, modules, writing = list(sys.path), set(sys.modules), sys.dont_write_bytecode
    with pytest.raises(ConfigError):
        load_definitions(tmp_path)
    assert sys.path == path
    assert set(sys.modules) == modules
    assert sys.modules["statistics"] is statistics
    assert sys.dont_write_bytecode is writing


def test_a_relative_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a="import b\nuser = b.user", b="user = Entity('user')")
    (user,) = load_definitions(Path("."))
    assert user == Entity("user")
    assert "a" not in sys.modules
    assert isinstance(user, Entity)
    assert not isinstance(user, FeatureView)
