"""What runs in the environment that has Feast:  python worker.py COMMAND REPO ARGS…

    prepare REPO END              apply the repo's objects and materialize them into its own SQLite, up to END
    ask REPO IN OUT [URL]         answer requests (JSON lines) by Feast itself, or by the server at URL
    write REPO URL IN             push and write rows (JSON lines) through the server at URL

Answers are what Feast's own server would send: feature_server_utils.convert_response_to_dict.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

SKIPPED = ("doubled", "by_moment", "moment")  # Feast itself cannot serve these from its local stores
START = "2025-11-01T00:00:00+00:00"


def prepare(repo: Path, end: str) -> None:
    """Apply and materialize."""
    from feast import FeatureStore
    from feast.repo_operations import parse_repo

    contents = parse_repo(repo)
    groups = (
        contents.data_sources,
        contents.entities,
        contents.feature_views,
        contents.stream_feature_views,
        contents.on_demand_feature_views,
        getattr(contents, "label_views", []),
        contents.feature_services,
    )
    objects = [each for group in groups for each in group if each.name not in SKIPPED]
    store = FeatureStore(repo_path=str(repo))
    store.apply([each for each in objects if type(each).__name__ != "RequestSource"])
    store.materialize(datetime.fromisoformat(START), datetime.fromisoformat(end))


def open_store(repo: Path, url: str) -> Any:
    """The repo's store; with an URL, one whose online store is the server there."""
    from feast import FeatureStore
    from feast.repo_config import load_repo_config

    if not url:
        return FeatureStore(repo_path=str(repo))
    config = load_repo_config(repo, repo / "feature_store.yaml")
    settings = config.model_dump(exclude_none=True, by_alias=True)
    settings["online_store"] = {"type": "remote", "path": url}
    settings["repo_path"] = repo
    return FeatureStore(config=type(config)(**settings))


def ask(repo: Path, source: str, target: str, url: str = "") -> None:
    """Answer every request: {"answer": …}, or {"error": class, "message": …}."""
    from feast.feature_server_utils import convert_response_to_dict

    store = open_store(repo, url)
    services = {service.name: service for service in store.list_feature_services()}
    with Path(target).open("w") as out:
        for line in Path(source).read_text().splitlines():
            request = json.loads(line)
            service = request.get("feature_service")
            try:
                response = store.get_online_features(
                    services[service] if service else request["features"],
                    request["entities"],
                    full_feature_names=request.get("full_feature_names", False),
                )
                found: dict[str, Any] = {"answer": convert_response_to_dict(response.proto)}
            except Exception as error:
                found = {"error": type(error).__name__, "message": str(error)}
            out.write(json.dumps(found, ensure_ascii=False) + "\n")


def write(repo: Path, url: str, source: str) -> None:
    """Rows by push and by write_to_online_store; each line has `push_source` or `feature_view`, and `df`."""
    import pandas as pd

    store = open_store(repo, url)
    for line in Path(source).read_text().splitlines():
        rows = json.loads(line)
        frame = pd.DataFrame(rows["df"])
        for column in ("event_timestamp", "created", "at", "known_at", "moment"):
            if column in frame:
                frame[column] = pd.to_datetime(frame[column], utc=True)
        if "push_source" in rows:
            store.push(rows["push_source"], frame)
        else:
            store.write_to_online_store(rows["feature_view"], frame)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    where = Path(sys.argv[2]).resolve()
    arguments = [str(Path(text).resolve()) if text.endswith(".jsonl") else text for text in sys.argv[3:]]
    os.chdir(where)
    sys.path.insert(0, str(where))
    {"prepare": prepare, "ask": ask, "write": write}[sys.argv[1]](where, *arguments)
