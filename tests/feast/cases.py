"""Requests from a seed, and the rules by which two answers to one agree."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tests.feast.data import CUSTOMERS, DRIVERS, ITEM_LISTS, ITEM_SCALARS, ITEMS, LOCATIONS

COUNT = 240
DRIVER_FEATURES = [
    f"driver_stats:{n}" for n in ("conv_rate", "rating", "trips", "level", "active", "vehicle")
]
PAIR_FEATURES = ["pair_stats:rides", "pair_stats:spent"]
LOCATION_FEATURES = ["location_stats:temperature", "location_stats:name"]
GLOBAL_FEATURES = ["global_stats:open_rides", "global_stats:surge"]
ITEM_FEATURES = [f"kinds:{n}" for n in (*ITEM_SCALARS, *ITEM_LISTS)]
ITEM_FEATURES += ["inferred:score", "inferred:visits", "clicks:n_clicks"]
# In Feast's answers and not in ours: what an import leaves out, or a request-time feature needs.
NOT_CARRIED_OVER = {"bid", "bid_rate", "extras", "kinds__extras", "bids__bid_rate"}
NULL_TIME = -(2**63)


def requests() -> list[tuple[str, dict[str, Any]]]:
    """(repo, request), COUNT of them, always the same."""
    rng = random.Random(20260110)
    return [_rides(rng) if i % 3 else _odd(rng) for i in range(COUNT)]


def _rides(rng: random.Random) -> tuple[str, dict[str, Any]]:
    n = rng.randrange(1, 6)
    columns = {
        "driver_id": _some(rng, [*DRIVERS, 7], n),
        "customer_id": _some(rng, [*CUSTOMERS, "nobody"], n),
        "location_id": _some(rng, [*LOCATIONS, 99], n),
        "origin_id": _some(rng, [*LOCATIONS, 99], n),
        "destination_id": _some(rng, list(LOCATIONS), n),
    }
    kind = rng.randrange(6)
    if kind == 0:
        wanted = ["driver_id", "origin_id", "destination_id"]
        return "rides", _request(
            rng, columns, wanted, {"feature_service": "ride_model", "full_feature_names": True}
        )
    if kind == 1:
        service = {"feature_service": "pair_model", "full_feature_names": rng.choice([True, False])}
        return "rides", _request(rng, columns, ["driver_id", "customer_id"], service)
    groups = [
        (DRIVER_FEATURES, ["driver_id"]),
        (PAIR_FEATURES, ["driver_id", "customer_id"]),
        (LOCATION_FEATURES, ["location_id"]),
        (GLOBAL_FEATURES, rng.choice([["driver_id"], ["customer_id"]])),
    ]
    chosen = rng.sample(groups, rng.randrange(1, 4))
    features = [ref for refs, _ in chosen for ref in rng.sample(refs, rng.randrange(1, len(refs) + 1))]
    keys = list(dict.fromkeys(key for _, names in chosen for key in names))
    asked = {"features": features, "full_feature_names": rng.choice([True, False])}
    return "rides", _request(rng, columns, keys, asked)


def _odd(rng: random.Random) -> tuple[str, dict[str, Any]]:
    n = rng.randrange(1, 6)
    columns: dict[str, list[Any]] = {"item_id": _some(rng, [*ITEMS, 31], n)}
    if rng.randrange(6) == 0:
        columns["bid"] = [1.5] * n
        asked = {"feature_service": "item_model", "full_feature_names": rng.choice([True, False])}
        return "odd", _request(rng, columns, ["item_id", "bid"], asked)
    features = rng.sample(ITEM_FEATURES, rng.randrange(1, 8))
    return "odd", _request(rng, columns, ["item_id"], {"features": features})


def _request(
    rng: random.Random, columns: dict[str, list[Any]], keys: list[str], asked: dict[str, Any]
) -> dict[str, Any]:
    """The request with these key columns in some order, spelled as Feast's clients may."""
    entities = {}
    for key in rng.sample(keys, len(keys)):
        spelling = rng.randrange(8) if key in ("driver_id", "item_id") else 0
        # Feast does not cast text given under the entity's name, and finds nothing.
        values = [str(value) for value in columns[key]] if spelling == 1 else columns[key]
        entities[key.removesuffix("_id") if spelling == 2 else key] = values
    if rng.randrange(6) == 0:
        entities["request_note"] = ["x"] * len(next(iter(entities.values())))
    return {**asked, "entities": entities}


def _some(rng: random.Random, values: list[Any], n: int) -> list[Any]:
    return [rng.choice(values) for _ in range(n)]


def by_name(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The results of an answer by name: Feast's order is not the same in every process."""
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


def differences(feast: dict[str, Any], ours: dict[str, Any], *, times: bool = True) -> Iterator[str]:
    """Where our answer is not Feast's, but for the table of known deviations (docs/migrate-from-feast.md).

    Args:
        feast, ours: answers, ours with compat=feast.
        times: whether ours has event timestamps (the SDK's remote store drops them).
    """
    theirs, mine = by_name(feast), by_name(ours)
    for name in sorted(set(theirs) - NOT_CARRIED_OVER ^ set(mine)):
        yield f"{name} is in one answer only"
    for name in theirs.keys() & mine.keys():
        for j, expected in enumerate(theirs[name]["values"]):
            found = mine[name]["values"][j]
            if not same_value(expected, found):
                yield f"{name}[{j}]: {expected!r} in Feast, {found!r} here"
        if theirs[name]["statuses"] != mine[name]["statuses"]:
            yield f"{name}: {theirs[name]['statuses']} in Feast, {mine[name]['statuses']} here"
        if (
            times
            and [whole_seconds(t) for t in mine[name]["event_timestamps"]] != theirs[name]["event_timestamps"]
        ):
            yield f"{name}: {theirs[name]['event_timestamps']} in Feast, {mine[name]['event_timestamps']} here"


def same_value(feast: Any, ours: Any) -> bool:
    """Equal, bar what Feast loses: a null time, and integers that it passes through doubles beside nulls."""
    if feast == NULL_TIME and ours is None:
        return True
    if type(feast) is int and type(ours) is int and abs(ours) > 2**53:
        return float(feast) == float(ours)
    return type(feast) is type(ours) and bool(feast == ours)


def whole_seconds(text: str) -> str:
    """Feast keeps no fractions of a second when it materializes."""
    return text[:19] + "Z"
