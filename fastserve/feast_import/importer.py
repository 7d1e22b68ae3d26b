"""Dump, translate, write: a Feast repo becomes a fastserve repo beside it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastserve.config import FILE_NAME
from fastserve.definitions import Definition
from fastserve.errors import ConfigError
from fastserve.feast_import import dump as dump_script
from fastserve.feast_import.code import features_py
from fastserve.feast_import.translate import Translated, translate
from fastserve.feast_import.types import arrow_name

REPORT: Final = "import-report.md"
_TIMEOUT_S: Final = 300
_TOML: Final = """project = "{project}"
registry = "sqlite:///.fastserve/registry.db"   # or postgresql://user:password@host/database
online_store = "lmdb://.fastserve/online"       # or redis://host:6379/0
offline_store = ".fastserve/offline"            # or s3://bucket/path, gs://bucket/path
"""


@dataclass(frozen=True, slots=True)
class Import:
    """What an import made.

    Attributes:
        output: the new repo.
        project: its project.
        feast_version: the release that read the old one.
        made: the definitions and the notes.
        files: what was written.
    """

    output: Path
    project: str
    feast_version: str
    made: Translated
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON: counts, and every note."""
        made = self.made
        kinds: dict[str, Sequence[Definition]] = {
            "entities": made.entities,
            "feature_views": made.views,
            "feature_services": made.services,
            "push_sources": made.push_sources,
        }
        return {
            "output": str(self.output),
            "project": self.project,
            "feast_version": self.feast_version,
            "imported": {kind: [each.name for each in objects] for kind, objects in kinds.items()},
            "notes": [asdict(note) for note in made.notes],
            "files": [str(path) for path in self.files],
        }


def import_repo(repo: Path, output: Path, python: str) -> Import:
    """Read a Feast repo and write a fastserve repo.

    Args:
        repo: directory with feature_store.yaml.
        output: directory to write; made if it is not there.
        python: an interpreter that has feast, and all that the repo imports.

    Raises:
        ConfigError: no Feast repo there, no such interpreter or no feast in it, the repo cannot be imported, or
            there is a repo at `output` already.
    """
    root, target = repo.resolve(), output.resolve()
    if not (root / "feature_store.yaml").is_file():
        raise ConfigError(
            "not found", where=str(root / "feature_store.yaml"), hint="name the Feast repo's directory"
        )
    if target == root:
        raise ConfigError(
            "the new repo would stand in the Feast repo, which Feast would then import",
            where="--output",
            hint="name another directory",
        )
    return write_repo(read_feast(root, python), root, target)


def read_feast(root: Path, python: str) -> dict[str, Any]:
    """The dump of a Feast repo, made by an interpreter that has feast.

    Raises:
        ConfigError: there is no such interpreter, it has no feast, or the repo cannot be imported.
    """
    program = os.path.abspath(python) if os.sep in python else python  # not resolved: a venv is its link
    # As text: run as a file it would put this directory on its path, in front of the standard library.
    script = Path(dump_script.__file__).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "dump.json"
        try:
            done = subprocess.run(
                [program, "-c", script, str(root), str(answer)],
                cwd=root,
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"cannot run {python}: {error}", where="--python") from None
        if done.returncode:
            raise _failed(done.stderr, python, root)
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found


def _failed(stderr: str, python: str, root: Path) -> ConfigError:
    last = (stderr.strip().splitlines() or ["it ended without a message"])[-1]
    if re.search(r"No module named '(feast)'", last):
        hint = "name the interpreter of the environment that runs Feast: --python /path/to/venv/bin/python"
        return ConfigError(f"{python} has no feast", where="--python", hint=hint)
    places = re.findall(r'File "([^"]+)", line (\d+)', stderr)
    own = [f"{file}:{line}" for file, line in places if root in Path(file).parents]
    return ConfigError(f"Feast cannot read the repo: {last}", where=own[-1] if own else str(root))


def write_repo(dump: Mapping[str, Any], root: Path, target: Path) -> Import:
    """Write the fastserve repo that a dump describes.

    Args:
        dump: what dump.py wrote of the repo at `root`.
        root: the Feast repo; its files' columns are looked at where Feast would infer them.
        target: where to write.

    Raises:
        ConfigError: there is a repo already.
    """
    files = tuple(target / name for name in (FILE_NAME, "features.py", REPORT))
    for path in files:
        if path.exists():
            raise ConfigError(
                "is there already", where=str(path), hint="name an empty directory: --output DIR"
            )
    made = translate(dump, cache(lambda path: _columns(path, root)), lambda path: _place(path, root, target))
    project = re.sub(r"\W", "_", dump["config"]["project"], flags=re.ASCII)[:64]
    project = project if re.match(r"[A-Za-z_]", project) else f"_{project}"[:64]
    target.mkdir(parents=True, exist_ok=True)
    done = Import(target, project, dump["feast_version"], made, files)
    origin = (
        f"Imported from the Feast project {dump['config']['project']}; {REPORT} says what is not as it was."
    )
    texts = (_TOML.format(project=project), features_py(made, origin), report_md(done, dump))
    for path, text in zip(files, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return done


def _place(path: str, root: Path, target: Path) -> str:
    """A source's path, relative to the new repo; URLs stay."""
    plain = path.removeprefix("file://")
    return plain if "://" in plain else os.path.relpath(root / plain, target)


def _columns(path: str, root: Path) -> dict[str, str] | None:
    """A Parquet source's columns, or None: it may be elsewhere, or another format."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.dataset as ds  # noqa: PLC0415

    plain = path.removeprefix("file://")
    try:
        schema = ds.dataset(plain if "://" in plain else str(root / plain), format="parquet").schema
    except (OSError, ValueError, pa.ArrowException):
        return None
    return {field.name: arrow_name(field.type) for field in schema}


def report_md(done: Import, dump: Mapping[str, Any]) -> str:
    """The report that is written beside the definitions."""
    config = dump["config"]
    lines = [
        f"# Import of the Feast project {config['project']}",
        "",
        f"Read with Feast {done.feast_version}.",
        "",
    ]
    for kind, names in done.to_dict()["imported"].items():
        lines.append(f"- {kind.replace('_', ' ')}: {', '.join(names) or 'none'}")
    lines += ["", "## Not as it was", ""]
    lines += [f"- {n.where}: {n.what}: {n.why}" for n in done.made.notes] or ["Nothing."]
    lines += [
        "",
        "## Stores",
        "",
        f"Feast's registry ({config['registry']}), online store ({config['online_store']}) and offline store"
        f" ({config['offline_store']}) are neither read nor changed. {FILE_NAME} names new ones, beside it.",
    ]
    return "\n".join(lines) + "\n"
