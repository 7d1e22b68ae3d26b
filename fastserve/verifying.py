"""`fastserve verify`: answers, read now or from a log, on their way to be rebuilt from history."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

import numpy as np

from fastserve.config import Config
from fastserve.definitions import FeatureViewProjection
from fastserve.errors import IncompleteHistoryError, InvalidDataError, OfflineStoreError, RequestError
from fastserve.offline.answers import Answers, read_answers
from fastserve.registry import Registry
from fastserve.timeutil import now_us as wall_clock_us

if TYPE_CHECKING:
    from fastserve.serving.computing import Computing
    from materializer.served.report import AnswersReport

Asked = tuple[str, Sequence[FeatureViewProjection]]


def verify_now(  # noqa: PLR0913  (a call names each)
    config: Config,
    registry: Registry,
    asked: Sequence[Asked],
    sample: int,
    seed: int | None,
    now_us: int | None,
    *,
    computing: Computing,
    settle_us: int,
    allow: tuple[str, ...],
    grace_us: int,
) -> AnswersReport:
    """Ask for random entities and verify the answers; see FeatureStore.verify_answers.

    Args:
        asked: (name of the service or '', what is read) of each shape of answers.
        computing: of on-demand views.
    """
    from materializer.served.run import Judgement, verify_answers  # noqa: PLC0415

    judgement = Judgement(allow, grace_us)
    _check(sample)
    if not asked:
        raise RequestError("no service is registered", hint="name features to verify: view:feature")
    drawn = random.randrange(2**32) if seed is None else seed
    answers: list[Answers] = []
    errors: dict[str, str] = {}
    for service, projections in asked:
        try:
            answers += _read(config, registry, (service, projections), sample, drawn, now_us, computing)
        except (IncompleteHistoryError, InvalidDataError, OfflineStoreError) as error:
            errors[service or "features"] = str(error)
    sleep(settle_us / 1e6)
    return verify_answers(config, registry, answers, judgement, seed=drawn, errors=errors)


def _read(
    config: Config,
    registry: Registry,
    asked: Asked,
    sample: int,
    seed: int,
    now_us: int | None,
    computing: Computing,
) -> Iterator[Answers]:
    from fastserve.serving.answers import read_now  # noqa: PLC0415  (a log needs no read path)
    from materializer.served.draw import draw  # noqa: PLC0415

    snapshot = registry.snapshot()
    service, projections = asked
    present = wall_clock_us() if now_us is None else now_us
    entities = draw(config, registry, snapshot.resolve(projections), n=sample, seed=seed, now_us=present)
    yield from read_now(
        config.online_store,
        snapshot,
        projections,
        entities,
        service=service,
        now_us=now_us,
        computing=computing,
    )


def verify_log(
    config: Config,
    registry: Registry,
    folder: Path,
    service: str | None,
    sample: int,
    *,
    settle_us: int,
    allow: tuple[str, ...],
    grace_us: int,
) -> AnswersReport:
    """Verify the answers of a log; see FeatureStore.verify_answers."""
    from materializer.served.run import Judgement, verify_answers  # noqa: PLC0415

    judgement = Judgement(allow, grace_us)
    _check(sample)
    answers = _newest(folder, service, sample, wall_clock_us() - settle_us)
    if not answers:
        of = "" if service is None else f" of service {service!r}"
        raise RequestError(
            f"no answers{of} were logged", where=str(folder), hint="or none so long ago as --settle says"
        )
    return verify_answers(config, registry, answers, judgement)


def _newest(folder: Path, service: str | None, sample: int, until_us: int) -> list[Answers]:
    """The newest rows of a log that are not newer than `until_us`, so many in all; memory holds a file beside them."""
    kept: list[Answers] = []
    for found in read_answers(folder):
        if service is not None and found.asked.service != service:
            continue
        found = found.take(np.flatnonzero(found.times <= until_us))
        if not len(found):
            continue
        kept.append(found)
        while sum(map(len, kept)) - len(kept[0]) >= sample:
            kept.pop(0)
    over = sum(map(len, kept)) - sample
    if over > 0:
        kept[0] = kept[0].take(np.argsort(kept[0].times, kind="stable")[over:])
    return kept


def _check(sample: int) -> None:
    if sample < 1:
        raise RequestError(f"{sample} answers", where="--sample", hint="1 or more")
