"""What Feast 0.67 answered, recorded; asked again of fastserve over repos imported from Feast's. No Feast is needed."""

from __future__ import annotations

import base64
import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastserve.client import Client as OwnClient
from fastserve.timeutil import MICROS, format_timestamp, parse_timestamp
from tests.feast.cases import COUNT, by_name, differences, requests
from tests.feast.data import NOW
from tests.feast.kit import REPOS, Client, import_recorded, recorded
from tests.servers import serving

CLOCK = format_timestamp(parse_timestamp(NOW))
LINES = recorded()


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The imported repos, materialized."""
    folder = tmp_path_factory.mktemp("feast")
    return {name: import_recorded(folder, name) for name in REPOS}


@pytest.fixture(scope="module")
def ports(repos: dict[str, Path]) -> Iterator[dict[str, int]]:
    """Repo -> port of its server."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(serving(repo, "--clock", CLOCK)).port for name, repo in repos.items()
        }


@pytest.fixture
def clients(ports: dict[str, int]) -> Iterator[dict[str, Client]]:
    made = {name: Client(port) for name, port in ports.items()}
    yield made
    for client in made.values():
        client.close()


def test_the_recording_is_of_the_requests_that_are_asked() -> None:
    assert len(LINES) == COUNT >= 200
    assert [(line["repo"], line["request"]) for line in LINES] == requests()


def test_compat_answers_are_feasts(clients: dict[str, Client]) -> None:
    wrong = []
    for i, line in enumerate(LINES):
        status, answer = clients[line["repo"]].post("/get-online-features?compat=feast", line["request"])
        assert status == 200, answer
        wrong += [f"{i}: {text}" for text in differences(line["answer"], answer)]
    assert not wrong


def test_a_server_can_be_told_to_answer_all_as_feast_does(repos: dict[str, Path]) -> None:
    with serving(repos["rides"], "--clock", CLOCK, "--compat", "feast") as (port, _):
        client = Client(port)
        for line in [each for each in LINES if each["repo"] == "rides"][:40]:
            status, answer = client.post("/get-online-features", line["request"])
            assert status == 200 and not list(differences(line["answer"], answer))
        client.close()


def test_honest_answers_differ_in_null_and_expired_values_only(clients: dict[str, Client]) -> None:
    seen = set()
    for line in LINES:
        status, answer = clients[line["repo"]].post("/get-online-features", line["request"])
        assert status == 200, answer
        feast = by_name(line["answer"])
        for name, result in by_name(answer).items():
            for value, code, theirs in zip(
                result["values"], result["statuses"], feast[name]["values"], strict=True
            ):
                seen.add(code)
                if code in ("NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"):
                    assert value is None
                assert code != "NULL_VALUE" or theirs in (None, -(2**63))
    assert seen == {"PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"}


def test_curl_reads_the_same_bytes(ports: dict[str, int], clients: dict[str, Client], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    transfers = []
    for i, line in enumerate(LINES):
        (tmp_path / f"{i}.json").write_text(json.dumps(line["request"]))
        url = f"http://127.0.0.1:{ports[line['repo']]}/get-online-features?compat=feast"
        transfers.append(f'url = "{url}"\ndata = "@{tmp_path}/{i}.json"\nwrite-out = "\\n"\n')
    (tmp_path / "config").write_text("next\n".join(transfers))
    done = subprocess.run(
        ["curl", "-sS", "-K", tmp_path / "config"], capture_output=True, text=True, check=True, timeout=120
    )
    answers = [json.loads(text) for text in done.stdout.splitlines()]
    assert len(answers) == len(LINES)
    for line, answer in zip(LINES, answers, strict=True):
        assert answer == clients[line["repo"]].post("/get-online-features?compat=feast", line["request"])[1]


def test_the_native_endpoint_agrees(clients: dict[str, Client]) -> None:
    for line in LINES:
        client, request = clients[line["repo"]], line["request"]
        _, feast = client.post("/get-online-features", request)
        columns = by_name(feast)
        keys = {n: c["values"] for n, c in columns.items() if n.endswith("_id")}
        body = {k: v for k, v in request.items() if k != "entities"}
        body["entities"] = {n: values for n, values in keys.items() if n in needed(request, list(keys))}
        status, native = client.post("/online-features/batch", body)
        assert status == 200, native
        assert native["names"] == [n for n in feast["metadata"]["feature_names"] if n not in keys], (
            "the order asked for"
        )
        codes = native["metadata"]["status_names"]
        for name, values, statuses in zip(native["names"], native["values"], native["statuses"], strict=True):
            n = len(columns[name]["values"])
            repeated = n if len(values) == 1 else 1  # of no entity: natively one row
            assert [codes[s] for s in statuses] * repeated == columns[name]["statuses"]
            for ours, theirs in zip(values * repeated, columns[name]["values"], strict=True):
                assert same(ours, theirs), (name, ours, theirs)


def test_the_projects_own_client_agrees(ports: dict[str, int], clients: dict[str, Client]) -> None:
    with ExitStack() as stack:
        own = {
            name: stack.enter_context(OwnClient(f"http://127.0.0.1:{port}")) for name, port in ports.items()
        }
        for i, line in enumerate(LINES):
            request = line["request"]
            columns = by_name(clients[line["repo"]].post("/get-online-features", request)[1])
            keys = {n: c["values"] for n, c in columns.items() if n.endswith("_id")}
            found = own[line["repo"]].get_online_features(
                request.get("features"),
                {n: values for n, values in keys.items() if n in needed(request, list(keys))},
                service=request.get("feature_service"),
                full_feature_names=request.get("full_feature_names", False),
                format=("json", "arrow")[i % 2],
            )
            assert list(found.names) == [n for n in columns if n not in keys]
            for name, values in found.to_dict().items():
                repeated = len(columns[name]["values"]) if len(values) == 1 else 1
                assert found.statuses[name] * repeated == columns[name]["statuses"]
                for ours, theirs in zip(values * repeated, columns[name]["values"], strict=True):
                    assert same(as_json(ours), theirs), (name, ours, theirs)


def as_json(value: Any) -> Any:
    """An exact Python value in the native JSON form."""
    if isinstance(value, (list, np.ndarray)):
        return [as_json(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


KEYS = {"driver_stats": ["driver_id"], "pair_stats": ["driver_id", "customer_id"], "global_stats": []}
KEYS |= {
    "location_stats": ["location_id"],
    "kinds": ["item_id"],
    "inferred": ["item_id"],
    "clicks": ["item_id"],
}


def needed(request: dict[str, Any], given: list[str]) -> set[str]:
    """The join keys that the features asked for have; the native endpoint takes no others."""
    if "feature_service" in request:
        return set(given)
    return {key for ref in request["features"] for key in KEYS[ref.split(":")[0]]}


def same(native: Any, feast: Any) -> bool:
    """One value in the two JSON forms."""
    if isinstance(native, list) and isinstance(feast, list):
        return len(native) == len(feast) and all(map(same, native, feast))
    if native == "NaN":
        return feast is None
    if isinstance(native, str) and type(feast) is int:
        return parse_timestamp(native) // MICROS == feast
    if isinstance(native, float) and isinstance(feast, float) and native != feast:
        return math.isclose(native, feast, rel_tol=1e-6) and bool(np.float32(native) == np.float32(feast))
    return type(native) is type(feast) and bool(native == feast)


def test_writes_in_the_form_of_feasts_sdk(clients: dict[str, Client]) -> None:
    """What `online_store: {type: remote}` sends: naive UTC times, timestamps as whole seconds, a `created` column."""
    df = {
        "item_id": [901], "flag": [True], "big": [2**53 + 1], "single": [0.10000000149011612], "text": ["é"],
        "moment": [1_768_000_000], "moments": [[1_768_000_000, 0]], "singles": [[0.5]], "texts": [["a", ""]],
        "event_timestamp": ["2026-01-10T11:55:00"], "created": [None],
        "small": [-1], "double": [1e22], "blob": ["AP8="], "config": ["{}"], "flags": [[True]], "smalls": [[1]],
        "bigs": [[2]], "doubles": [[0.25]], "blobs": [["AP8="]],
    }  # fmt: skip
    body = {"feature_view_name": "kinds", "df": df, "allow_registry_cache": False}
    assert clients["odd"].post("/write-to-online-store", body) == (200, None)
    refs = [f"kinds:{name}" for name in df if name not in ("item_id", "event_timestamp", "created")]
    status, answer = clients["odd"].post(
        "/get-online-features", {"features": refs, "entities": {"item_id": [901]}}
    )
    assert status == 200
    found = {name: result["values"] for name, result in by_name(answer).items()}
    assert found == {name: df[name] for name in found} and len(found) == len(refs) + 1
    assert by_name(answer)["big"]["event_timestamps"] == ["2026-01-10T11:55:00Z"]
    body["df"] = df | {"item_id": [902], "moment": [-(2**63)]}
    assert clients["odd"].post("/write-to-online-store", body) == (200, None)
    asked = {"features": ["kinds:moment"], "entities": {"item_id": [902]}}
    moment = by_name(clients["odd"].post("/get-online-features", asked)[1])["moment"]
    assert (moment["values"], moment["statuses"]) == ([None], ["NULL_VALUE"])
    body["df"] = df | {"moment": [2**62]}
    assert clients["odd"].post("/write-to-online-store", body)[0] == 422
