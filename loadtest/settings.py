"""What a load test is told: one set of options for `python -m loadtest`, for locust's command and for the engine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from loadtest.data import DataSet

FORMATS: Final = {
    "json": "application/json",
    "arrow": "application/vnd.apache.arrow.stream",
    "tensor": "application/vnd.fastserve.tensor",
}
HTTP_VERSIONS: Final = ("2", "1.1")
ARRIVALS: Final = ("poisson", "constant")


@dataclass(frozen=True)
class Settings:
    """One load test.

    Attributes:
        host: URL of the server.
        rate: requests/s of an open loop, which sends on time whatever the server does; 0 is a closed loop, whose
            users wait for their answer before they ask again.
        arrivals: "poisson" (independent callers) or "constant" (evenly spaced).
        users: of a closed loop.
        seconds: how long it is measured, after warmup_s; 0 until it is stopped.
        http, formats, batches: each request takes one of each, in turns: HTTP version, answer, entities asked for.
        connections: to the server, per HTTP version.
        entities, features, seed: of the data that the server has; see data.DataSet.
        zipf: exponent of the popularity of entities; 0 is even.
        timeout_s: a request without an answer for so long is an error.
        slo_ms: what 99 % of the answers must not exceed.
        core: for the engine; -1 for any.
    """

    host: str = "http://127.0.0.1:6566"
    rate: float = 0.0
    arrivals: str = "poisson"
    users: int = 8
    seconds: float = 20.0
    warmup_s: float = 1.0
    http: tuple[str, ...] = ("2",)
    formats: tuple[str, ...] = ("json",)
    batches: tuple[int, ...] = (100,)
    connections: int = 8
    entities: int = 100_000
    features: int = 50
    seed: int = 1
    zipf: float = 0.99
    timeout_s: float = 2.0
    slo_ms: float = 10.0
    core: int = -1

    @property
    def data(self) -> DataSet:
        """What the server's answers must be."""
        return DataSet(self.entities, self.features, self.seed)

    @property
    def variants(self) -> list[tuple[str, str, int]]:
        """Every (HTTP version, format, batch)."""
        return [(h, f, b) for b in self.batches for f in self.formats for h in self.http]

    @classmethod
    def from_options(cls, options: argparse.Namespace, **changes: Any) -> Settings:
        """The settings among parsed options."""
        known = {f.name: getattr(options, f.name) for f in fields(cls) if hasattr(options, f.name)}
        return cls(**(known | changes))

    def dumps(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str | bytes) -> Settings:
        """What `dumps` wrote."""
        found: dict[str, Any] = json.loads(text)
        lists: dict[str, Any] = {name: tuple(v) for name, v in found.items() if isinstance(v, list)}
        return cls(**(found | lists))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that locust's own command does not have already."""
    default = Settings()
    add = parser.add_argument
    add("--rate", type=_positive(float, zero=True), default=default.rate, help="requests/s; 0: a closed loop")
    add("--arrivals", choices=ARRIVALS, default=default.arrivals, help="how --rate is spaced")
    add("--http", type=_list_of(HTTP_VERSIONS), default=default.http, metavar="2,1.1", help="HTTP versions")
    add("--format", dest="formats", type=_list_of(tuple(FORMATS)), default=default.formats,
        metavar=",".join(FORMATS), help="what to ask for, in turns")  # fmt: skip
    add("--batch", dest="batches", type=_batches, default=default.batches, metavar="1,10,100,500",
        help="entities a request, in turns")  # fmt: skip
    add("--connections", type=_positive(int), default=default.connections, help="per HTTP version")
    add("--entities", type=_positive(int), default=default.entities, help="how many the server has")
    add("--features", type=_positive(int), default=default.features, help="float32 features a row")
    add("--seed", type=int, default=default.seed, help="of the data")
    add("--zipf", type=_positive(float, zero=True), default=default.zipf, help="exponent; 0: evenly")
    add("--warmup-s", type=_positive(float, zero=True), default=default.warmup_s, help="not measured")
    add("--timeout-s", type=_positive(float), default=default.timeout_s, help="no answer by then is an error")
    add("--slo-ms", type=_positive(float), default=default.slo_ms, help="what p99 has to stay below")
    add("--report-dir", default="build/loadtest", help="where report.html and report.json go")


def _positive(kind: Callable[[str], Any], zero: bool = False) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not (0 <= value if zero else 0 < value) or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    number.__name__ = kind.__name__  # what argparse calls it in "invalid … value"
    return number


def _list_of(choices: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def some(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        for one in found:
            if one not in choices:
                raise argparse.ArgumentTypeError(f"{one!r} is none of {', '.join(choices)}")
        return found

    return some


def _batches(text: str) -> tuple[int, ...]:
    found = tuple(int(part) for part in text.split(","))
    if any(not 1 <= one <= 10_000 for one in found):
        raise argparse.ArgumentTypeError("a batch is 1 to 10,000 entities")
    return found
