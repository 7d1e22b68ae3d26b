"""Feature services (what one model reads) and feature references."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from fastserve.definitions.freeze import freeze, frozen_tags
from fastserve.definitions.view import FeatureView, FeatureViewProjection
from fastserve.display import html_table
from fastserve.errors import RequestError
from fastserve.timeutil import parse_duration

_REF = re.compile(r"([^:@\s]+)(?:@v(\d+))?:([^:@\s]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureService:
    """The features one model reads, in the order it reads them.

    Args:
        name: the service's name.
        features: views, projections of views (``view[["a"]].with_name(...)``) or refs (``"view:a"``).
            A whole view stands for the features it has now: a field added later does not change the service.
        pinned_to: id of a training data set. The service then reads the view versions that the data set did, and
            is refused rather than answered with another schema than the data set's.
        deadline: how long a read waits for the online store (``"20ms"``); then what is there is answered, and the rest
            is UNAVAILABLE. A request's own deadline, and the server's, hold where they are shorter.
    """

    name: str
    features: tuple[FeatureViewProjection, ...] = ()
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    owner: str = ""
    pinned_to: str = ""
    deadline_us: int | None = None

    def __init__(
        self,
        name: str,
        features: Sequence[FeatureView | FeatureViewProjection | str]
        | FeatureView
        | FeatureViewProjection
        | str = (),
        *,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
        pinned_to: str = "",
        deadline: timedelta | str | None = None,
    ) -> None:
        if isinstance(features, (FeatureView, FeatureViewProjection, str)):
            features = (features,)
        freeze(
            self,
            name=name,
            features=merge_refs(features),
            description=description,
            tags=frozen_tags(tags),
            owner=owner,
            pinned_to=pinned_to,
            deadline_us=None if deadline is None else parse_duration(deadline),
        )

    def _repr_html_(self) -> str:
        rows = [
            (feature, f"{p.view}@v{p.version}" if p.version else p.view, p.alias, _mapped(p.join_key_map))
            for p in self.features
            for feature in p.features
        ]
        header = ("feature", "view", "as", "join keys")
        return html_table(f"FeatureService {self.name}", header, rows, self.description)


def _mapped(join_key_map: Mapping[str, str]) -> str:
    return ", ".join(f"{key} = {column}" for key, column in join_key_map.items())


def parse_ref(ref: str) -> FeatureViewProjection:
    """``view:feature`` or ``view@v2:feature`` as a projection of one feature.

    Raises:
        RequestError: when the text is not such a reference.
    """
    match = _REF.fullmatch(ref) if isinstance(ref, str) else None
    if match is None:
        raise RequestError(
            f"{ref!r} is not a feature reference",
            hint="write view:feature, or view@v2:feature for a version; a service is asked for by service=",
        )
    version = int(match[2]) if match[2] else None
    alias = f"{match[1]}@v{version}" if version is not None else ""
    return FeatureViewProjection(view=match[1], version=version, features=(match[3],), alias=alias)


def merge_refs(
    features: Iterable[FeatureView | FeatureViewProjection | str],
) -> tuple[FeatureViewProjection, ...]:
    """Views, projections and refs as projections.

    Neighbouring refs into the same view become one projection: order is kept, and each view is read once.
    """
    merged: list[FeatureViewProjection] = []
    for item in features:
        if isinstance(item, FeatureView):
            merged.append(item.projection())
        elif isinstance(item, FeatureViewProjection):
            merged.append(item)
        else:
            part = parse_ref(item)
            last = merged[-1] if merged else None
            if last and last == replace(part, features=last.features):
                merged[-1] = replace(part, features=last.features + part.features)
            else:
                merged.append(part)
    return tuple(merged)
