"""fastserve.toml and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.config import Config
from fastserve.errors import ConfigError


def write(repo: Path, text: str) -> Path:
    (repo / "fastserve.toml").write_text(text)
    return repo


def test_defaults_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 'project = "flights"')
    monkeypatch.chdir(tmp_path.parent)
    config = Config.from_repo(tmp_path.name, {})
    assert config == Config(
        repo=tmp_path,
        project="flights",
        registry=f"sqlite:///{tmp_path}/.fastserve/registry.db",
        online_store=f"lmdb://{tmp_path}/.fastserve/online",
        offline_store=f"{tmp_path}/.fastserve/offline",
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("registry", "postgresql://u:p@host/db"),
        ("registry", "sqlite:////abs/registry.db"),
        ("online_store", "redis://host:6379/0"),
        ("online_store", "lmdb:///abs/online"),
        ("offline_store", "s3://bucket/offline"),
        ("offline_store", "/abs/offline"),
    ],
)
def test_absolute_settings_stay(tmp_path: Path, setting: str, value: str) -> None:
    write(tmp_path, f'project = "p"\n{setting} = "{value}"')
    assert getattr(Config.from_repo(tmp_path, {}), setting) == value


def test_the_environment_wins(tmp_path: Path) -> None:
    write(tmp_path, 'project = "p"\nonline_store = "memory://"')
    environ = {"FASTSERVE_ONLINE_STORE": "redis://h", "FASTSERVE_PROJECT": "q", "FASTSERVE_REGISTRY": ""}
    config = Config.from_repo(tmp_path, environ)
    assert (config.online_store, config.project) == ("redis://h", "q")
    assert config.registry.startswith("sqlite:///")


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSERVE_OFFLINE_STORE", "elsewhere")
    assert Config.from_repo(write(tmp_path, 'project = "p"')).offline_store == f"{tmp_path}/elsewhere"


def test_limits_are_a_table_and_the_environment_wins(tmp_path: Path) -> None:
    write(tmp_path, 'project = "p"\n[limits]\nmax_connections = 20_000\nidle_timeout_s = 300.5')
    assert Config.from_repo(tmp_path, {}).limits == {"max_connections": 20_000, "idle_timeout_s": 300.5}
    for text in ("max_connections=5 body_timeout_s=60", " max_connections=5,\nbody_timeout_s=60 "):
        config = Config.from_repo(tmp_path, {"FASTSERVE_LIMITS": text})
        assert config.limits == {"max_connections": "5", "idle_timeout_s": 300.5, "body_timeout_s": "60"}
    with pytest.raises(ConfigError, match="FASTSERVE_LIMITS: 'max_connections' has no value") as caught:
        Config.from_repo(tmp_path, {"FASTSERVE_LIMITS": "max_connections 5"})
    assert "NAME=VALUE" in caught.value.hint


def test_settings_of_spark_may_be_written_as_spark_writes_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        'project = "p"\n[spark]\nmaster = "spark://h:7077"\nspark.executor.memory = "4g"\n"spark.executor.cores" = 2\n'
        "spark.ui.enabled = false",
    )
    assert Config.from_repo(tmp_path, {}).spark == {
        "spark.master": "spark://h:7077",
        "spark.executor.memory": "4g",
        "spark.executor.cores": "2",
        "spark.ui.enabled": "false",
    }
    for wrong in ('executor.memory = "4g"', "spark.jars = ['a']"):
        write(tmp_path, f'project = "p"\n[spark]\n{wrong}')
        with pytest.raises(ConfigError, match="is no setting of Spark") as caught:
            Config.from_repo(tmp_path, {})
        assert "[spark]" in caught.value.where


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('project = "p"\nlimits = 5', "'limits' is no table", "write [limits]"),
        ('project = "p"\nspark = "yarn"', "'spark' is no table", "write [spark]"),
        ("project = ", "is not valid TOML", ""),
        ('project = "p"\nregstry = "x"', "unknown setting 'regstry'", "did you mean 'registry'?"),
        ('project = "p"\nzzz = "x"', "unknown setting 'zzz'", "settings: project, registry"),
        ('project = "p"\nregistry = 7', "'registry' is a int", "put it in quotes"),
        ("", "`project` is missing or not a name", "add a line like project ="),
        ('project = "a b"', "`project` is missing or not a name", "add a line like project ="),
        ('project = "p\\n"', "`project` is missing or not a name", "add a line like project ="),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str, hint: str) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Config.from_repo(tmp_path, {})
    assert caught.value.where == str(tmp_path / "fastserve.toml")
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not found") as caught:
        Config.from_repo(tmp_path / "nowhere", {})
    assert "fastserve init" in caught.value.hint


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "fastserve.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.from_repo(tmp_path, {})
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.from_repo(tmp_path / "file", {})
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "fastserve.toml").write_bytes(b'project = "\xff"')
    with pytest.raises(ConfigError, match="not valid TOML"):
        Config.from_repo(tmp_path / "odd", {})
