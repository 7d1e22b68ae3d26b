"""Answers beside what history says of their instants. START HERE.

answers   of one shape each, from a log or read just now       fastserve/offline/answers.py
rebuild   the same values by the path of training sets         rebuild.py
compare   the bytes of each value                              same.py
explain   those that differ                                    explain.py
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from fastserve.codec.status import Status
from fastserve.config import Config
from fastserve.errors import FastserveError, RequestError
from fastserve.offline.answers import UNREADABLE, Answers
from fastserve.timeutil import format_timestamp
from materializer.on_demand import views_of
from materializer.select import is_personal
from materializer.served.explain import DIFFERENCES, KINDS, Explainer
from materializer.served.rebuild import Part, Rebuilder
from materializer.served.report import AnswersReport, Example

if TYPE_CHECKING:
    from fastserve.registry import Registry

EXAMPLES: Final = 3
BATCH_ROWS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """How answers are judged.

    Attributes:
        allow: kinds of differences that do not count.
        grace_us: how long after it became known a row need not be online.

    Raises:
        RequestError: there is no such kind.
    """

    allow: tuple[str, ...] = ()
    grace_us: int = 3_600_000_000

    def __post_init__(self) -> None:
        for kind in self.allow:
            if kind not in DIFFERENCES:
                raise RequestError(
                    f"unknown kind {kind!r}", where="--allow", hint=f"one of {', '.join(DIFFERENCES)}"
                )


def verify_answers(
    config: Config,
    registry: Registry,
    answers: Iterable[Answers],
    judgement: Judgement,
    *,
    seed: int | None = None,
    errors: Mapping[str, str] | None = None,
) -> AnswersReport:
    """Rebuild answers from history and compare the bytes of every value.

    Args:
        seed: how the entities were drawn, to be told.
        errors: of what could not even be asked for: service or features -> why.

    What cannot be rebuilt, for want of a history or because it cannot be read, is among the report's errors.

    Raises:
        RequestError: answers of another registry or project.
    """
    started = time.monotonic()
    report = AnswersReport(allowed=judgement.allow, seed=seed, errors=dict(errors or {}))
    rebuilder = Rebuilder(config, registry)
    for some in _gathered(answers):
        parts = rebuilder.parts(some.asked)
        explainer = Explainer(rebuilder, parts, some, judgement.grace_us)
        try:
            explainer.explain()
        except FastserveError as error:
            report.errors[_name_of(some)] = str(error)
            continue
        report.answers += len(some)
        for part in parts:
            _take(report, some, part, explainer, _is_personal(rebuilder, part))
    report.seconds = time.monotonic() - started
    return report


def _name_of(answers: Answers) -> str:
    """The service, or the features, as people write them."""
    asked = answers.asked
    return asked.service or ", ".join(f"{part.view}:{name}" for part in asked.parts for name in part.features)


def _gathered(answers: Iterable[Answers]) -> Iterator[Answers]:
    """Answers of one shape together, for each rebuild reads the history; some at a time."""
    waiting: dict[str, list[Answers]] = {}
    for some in answers:
        shape = some.asked.to_json()
        same = waiting.setdefault(shape, [])
        same.append(some)
        if sum(map(len, same)) >= BATCH_ROWS:
            yield _joined(waiting.pop(shape))
    for same in waiting.values():
        yield _joined(same)


def _joined(same: Sequence[Answers]) -> Answers:
    tables = [some.table.replace_schema_metadata(None) for some in same]
    return Answers(same[0].asked, pa.concat_tables(tables))


def _is_personal(rebuilder: Rebuilder, part: Part) -> bool:
    views = [] if part.rv is None else views_of([(part.projection, part.rv)]).values()
    return any(is_personal(rebuilder.now, rv) for rv in views)


def _take(report: AnswersReport, answers: Answers, part: Part, explainer: Explainer, personal: bool) -> None:
    """Count a part's values, and keep a few examples of what differs."""
    for name, feature in part.names.items():
        kinds = explainer.kinds[name]
        label = f"{part.projection.view}@v{part.projection.version}:{feature}"
        counts = report.features.setdefault(label, Counter())
        for code, n in zip(*np.unique(kinds, return_counts=True), strict=True):
            kind = KINDS[code]
            room = EXAMPLES - min(counts[kind], EXAMPLES) if kind in DIFFERENCES else 0
            counts[kind] += int(n)
            for row in np.flatnonzero(kinds == code)[:room].tolist():
                rebuilt = explainer.rebuilt.get(name)
                report.examples.append(
                    _example(answers, name, row, (label, kind), rebuilt, part.changed, personal)
                )


def _example(
    answers: Answers,
    name: str,
    row: int,
    about: tuple[str, str],
    rebuilt: pa.ChunkedArray | None,
    changed: str,
    personal: bool,
) -> Example:
    status = int(answers.statuses(name)[row])
    entity = answers.entities.slice(row, 1).to_pydict()
    return Example(
        *about,
        entity={column: _hidden(values[0]) if personal else values[0] for column, values in entity.items()},
        at=format_timestamp(int(answers.times[row])),
        status="UNREADABLE" if status == UNREADABLE else Status(status).name,
        served=None if personal else answers.values(name)[row].as_py(),
        rebuilt=None if personal or rebuilt is None else rebuilt[row].as_py(),
        note="not told: tagged pii" if personal else changed if rebuilt is None else "",
    )


def _hidden(value: Any) -> str:
    return blake2b(repr(value).encode(), digest_size=8).hexdigest()
