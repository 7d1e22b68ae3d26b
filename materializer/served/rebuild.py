"""The values of answers made again from history, by the path that training sets take, and by the definitions then.

An on-demand view's values can be made by the function that served them only while the repo has it. Where it has
another, the features of that view are made by the one that is registered now, if the repo has that, and are `changed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.config import Config
from fastserve.definitions import AggregatedFeatureView, FeatureViewProjection, OnDemandFeatureView
from fastserve.errors import ConfigError, FastserveError, RequestError
from fastserve.offline.answers import Answers, Asked
from fastserve.offline.history import History
from fastserve.on_demand.functions import Functions
from fastserve.registry import RegisteredView, Snapshot
from materializer.on_demand import stored_parts, views_of
from materializer.pit.spine import Spine
from materializer.training import Cutoff, join_features

if TYPE_CHECKING:
    from fastserve.registry import Registry

Ints = npt.NDArray[np.int64]

_LABEL: str = "event_timestamp"


@dataclass(frozen=True, slots=True)
class Part:
    """What was read of one view.

    Attributes:
        projection, rv: as `Snapshot.resolve` gives them; rv is None where nothing can be made again.
        names: output name -> feature.
        changed: why its features cannot be made as they were; '' where they can.
    """

    projection: FeatureViewProjection
    rv: RegisteredView | None
    names: dict[str, str]
    changed: str = ""

    @property
    def is_computed(self) -> bool:
        """Whether it is of an on-demand view."""
        return self.rv is not None and isinstance(self.rv.view, OnDemandFeatureView)

    @property
    def stored(self) -> list[tuple[FeatureViewProjection, RegisteredView]]:
        """What its values come from."""
        return [] if self.rv is None else list(stored_parts([(self.projection, self.rv)]))

    @property
    def has_windows(self) -> bool:
        """Whether some of its values come from events."""
        return any(isinstance(rv.view, AggregatedFeatureView) for _, rv in self.stored)


class Rebuilder:
    """Rebuilds answers of one repo.

    Args:
        config: where history is, and the functions of on-demand views.
        registry: the definitions of every revision.
    """

    def __init__(self, config: Config, registry: Registry) -> None:
        self._config = config
        self._registry = registry
        self._functions = Functions(config.repo)
        self._snapshots: dict[int, Snapshot] = {}
        self.now = registry.snapshot()

    def history(self, as_of_us: int | None) -> History:
        """Whatever there is: what is not materialized is not online either."""
        return History(self._config, self._registry, allow_incomplete=True, as_of_us=as_of_us)

    def parts(self, asked: Asked) -> list[Part]:
        """What answers are made of.

        Raises:
            RequestError: they were made from another registry or project.
            RegistryError: the revision cannot be read.
        """
        mine = self.now.registry_id, self.now.project
        if (asked.registry_id, asked.project) != mine:
            raise RequestError(
                f"answers of registry {asked.registry_id}, project {asked.project}; this is registry {mine[0]}, "
                f"project {mine[1]}",
                where="--log",
                hint="verify them in the repo that served them",
            )
        then = self._snapshots.get(asked.revision)
        if then is None:
            then = self._snapshots[asked.revision] = self._registry.snapshot(asked.revision)
        return [
            self._part(projection, rv, asked.full_feature_names)
            for projection, rv in then.resolve(asked.parts)
        ]

    def _part(self, projection: FeatureViewProjection, rv: RegisteredView, full: bool) -> Part:
        prefix = f"{projection.output_name}__" if full else ""
        names = {prefix + feature: feature for feature in projection.features}
        changed = self._without_function(projection, rv)
        if not changed:
            return Part(projection, rv, names)
        try:
            ((_, current),) = self.now.resolve([projection])
        except FastserveError as error:
            return Part(projection, None, names, f"{changed}; {error.message}")
        lacking = self._without_function(projection, current)
        return Part(projection, None if lacking else current, names, changed)

    def _without_function(self, projection: FeatureViewProjection, rv: RegisteredView) -> str:
        """Why a view's functions cannot be called; '' where they can."""
        views = [v.view for v in views_of([(projection, rv)]).values()]
        computed = [view for view in views if isinstance(view, OnDemandFeatureView)]
        self._functions.prepare(computed)
        for view in computed:
            try:
                self._functions.of(view)
            except ConfigError as error:
                return f"{error.where}: {error.message}"
        return ""

    def rebuild(
        self, answers: Answers, parts: list[Part], *, times: Ints | None = None, cutoff: Cutoff = None
    ) -> dict[str, pa.ChunkedArray]:
        """Output name -> values, [n], of the parts that can be made again.

        Args:
            times: other instants than those that the answers hold for, microseconds UTC, [n].
            cutoff: as of a training set.

        Raises:
            IncompleteHistoryError: a view has no history.
            InvalidDataError: a row of it does not fit, or a function fails.
        """
        made = [part for part in parts if part.rv is not None]
        if not made:
            return {}
        at = answers.times if times is None else times
        label = _LABEL
        while label in answers.entities.column_names:
            label += "_"
        table = answers.entities.append_column(label, pa.array(at).cast(pa.timestamp("us", "UTC")))
        as_of = int(cutoff) if isinstance(cutoff, int) else int(at.max())
        found = join_features(
            Spine(table),
            [(part.projection, part.rv) for part in made if part.rv is not None],
            self.history(as_of),
            functions=self._functions,
            full_feature_names=True,
            cutoff=cutoff,
            timestamp_column=label,
        ).features
        return {
            name: found[f"{part.projection.output_name}__{feature}"]
            for part in made
            for name, feature in part.names.items()
        }
