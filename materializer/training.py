"""Training sets: labels in, the same labels with the features that were in force at each one's time out.

N rows in, N rows out, in their order, label columns bit for bit. Views are read one after another, each once,
only the columns and the range of time that the labels can see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.config import Config
from fastserve.definitions import FeatureViewProjection
from fastserve.display import html_table
from fastserve.errors import RequestError
from fastserve.offline.history import History
from fastserve.offline.schema import canonical_schema
from fastserve.registry import RegisteredView
from fastserve.timeutil import parse_timestamp
from materializer.pit.factorize import canonical_key
from materializer.pit.join import join_view
from materializer.pit.spine import Spine, label_keys, label_times, to_spine

if TYPE_CHECKING:
    from fastserve.registry import Registry

__all__ = ["TrainingSet", "build_training_set", "to_spine"]

Ints = npt.NDArray[np.int64]
Parts = Sequence[tuple[FeatureViewProjection, RegisteredView]]
Cutoff = int | str | date | Literal["label_time"] | None

_FEW_KEYS: Final = (
    65_536  # so few keys are cheaper to look up in every batch than other entities' rows to keep
)


class RowReader(Protocol):
    """Where the rows of views come from."""

    def read(self, rv: RegisteredView, columns: Sequence[str], times: Ints) -> Iterator[pa.RecordBatch]:
        """As `History.read`."""


@dataclass(frozen=True, slots=True, repr=False)
class TrainingSet:
    """Labels and their features.

    Attributes:
        spine: the labels.
        features: output name -> values, in the order asked for; of the declared Arrow types, missing is null.
    """

    spine: Spine
    features: Mapping[str, pa.ChunkedArray]

    def to_arrow(self) -> pa.Table:
        """Spine columns, then features."""
        table = self.spine.table
        for name, values in self.features.items():
            table = table.append_column(name, values)
        return table

    def to_df(self) -> Any:
        """A pandas frame: spine columns as they came; features in nullable types, so that null is never NaN."""
        import pandas as pd  # noqa: PLC0415  (optional)

        frame = self.spine.frame
        if type(frame).__module__.partition(".")[0] != "pandas":
            frame = self.spine.table.to_pandas()
        made = {name: _series(values) for name, values in self.features.items()}
        return pd.concat([frame, pd.DataFrame(made, index=frame.index)], axis=1)

    def to_polars(self) -> Any:
        """A polars frame: spine columns as they came, then features."""
        import polars as pl  # noqa: PLC0415  (optional)

        frame = self.spine.frame
        if type(frame).__module__.partition(".")[0] != "polars":
            frame = pl.from_arrow(self.spine.table)
        return frame.with_columns(pl.Series(name, pl.from_arrow(v)) for name, v in self.features.items())

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of all columns."""
        return self.to_arrow().schema

    def __len__(self) -> int:
        return len(self.spine.table)

    def _repr_html_(self) -> str:
        head = self.to_arrow().slice(0, 5)
        columns = [column.to_pylist() for column in head.columns]
        return html_table(repr(self), head.column_names, zip(*columns, strict=True), "the first rows")

    def __repr__(self) -> str:
        names = list(self.features)
        shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        return f"TrainingSet({len(self):,} rows; {len(names)} features: {shown})"


@dataclass(slots=True)
class _Join:
    """What is joined in one go: one view on one mapping of join keys, however often it is asked for."""

    rv: RegisteredView
    keys: dict[str, pa.Array]
    features: dict[str, None] = field(default_factory=dict)
    values: dict[str, pa.ChunkedArray] = field(default_factory=dict)

    def make(self, history: RowReader, times: Ints, cutoff: int | Ints | None, threads: int | None) -> None:
        """Read the rows that the labels can see, and fill `values`."""
        features = list(self.features)
        batches = _of_spine(history.read(self.rv, features, times), self)
        rows = pa.Table.from_batches(batches, canonical_schema(self.rv, features))
        self.values = join_view(self.keys, times, rows, self.rv, features, cutoff=cutoff, threads=threads)


def build_training_set(  # noqa: PLR0913  (a call names each)
    spine: Any,
    parts: Parts,
    *,
    config: Config,
    registry: Registry,
    full_feature_names: bool = False,
    cutoff: Cutoff = None,
    timestamp_column: str = "event_timestamp",
    allow_incomplete: bool = False,
    threads: int | None = None,
) -> TrainingSet:
    """Join features to labels, point in time.

    For a label at t: among the entity's rows with ``event_ts <= t`` and ``event_ts > t - ttl``, known by the
    cutoff, the largest (event_ts, created_ts, position in the source).

    Args:
        spine: what `to_spine` takes, or made.
        parts: projections with their views, as `Snapshot.resolve` gives them; features come in this order.
        full_feature_names: name features ``<alias or view>__<feature>``.
        cutoff: only rows created by then; ``"label_time"``: by each label's own time.
        timestamp_column: the spine's column with the labels' times.
        allow_incomplete: read an offline table even where it does not cover all labels.
        threads: that join; None: as many as there are cores. The answer does not depend on it.

    Raises:
        RequestError: no features, a missing column, or two columns of one name.
        InvalidEntityError: a join key is missing or of another type.
        InvalidDataError: a label's time is null or none; or a source's row does not fit.
        IncompleteHistoryError: labels reach outside what the offline table covers.
    """
    return join_features(
        to_spine(spine),
        parts,
        History(
            config,
            registry,
            allow_incomplete=allow_incomplete,
            as_of_us=as_of(cutoff),
            each_label=cutoff == "label_time",
        ),
        full_feature_names=full_feature_names,
        cutoff=cutoff,
        timestamp_column=timestamp_column,
        threads=threads,
    )


def join_features(
    spine: Spine,
    parts: Parts,
    history: RowReader,
    *,
    full_feature_names: bool = False,
    cutoff: Cutoff = None,
    timestamp_column: str = "event_timestamp",
    threads: int | None = None,
) -> TrainingSet:
    """`build_training_set` on rows from any reader: a history, or the record of one."""
    if threads is not None and threads < 1:
        raise RequestError(f"{threads} threads", where="threads", hint="1 or more, or None for all cores")
    parts = list(parts)
    names = _output_names(spine.table.column_names, parts, full_feature_names)
    times = label_times(spine.table, timestamp_column)
    known_by = _cutoff(cutoff, times)
    joins = _joins(spine.table, parts)
    for join in joins.values():
        join.make(history, times, known_by, threads)
    values = [joins[_same(part, rv)].values[feature] for part, rv in parts for feature in part.features]
    return TrainingSet(spine, dict(zip(names, values, strict=True)))


def _output_names(taken: Sequence[str], parts: Parts, full: bool) -> list[str]:
    """The features' output names, none of them twice or a spine column's."""
    owner = dict.fromkeys(taken, "a column of the spine")
    names = []
    for part, _ in parts:
        for feature in part.features:
            name = f"{part.output_name}__{feature}" if full else feature
            me = f"{part.output_name}:{feature}"
            if name in owner:
                raise RequestError(
                    f"{me} and {owner[name]} would both be named {name!r}",
                    where="features",
                    hint=("" if full else "pass full_feature_names=True (--full-feature-names), or ")
                    + "give one view another name by view.with_name('…'), or rename the column",
                )
            owner[name] = me
            names.append(name)
    if not names:
        raise RequestError("no features were asked for", where="features", hint="name some: ['view:feature']")
    return names


def _same(part: FeatureViewProjection, rv: RegisteredView) -> tuple[Any, ...]:
    mapped = {key: column for key, column in part.join_key_map.items() if key != column}
    return rv.view_id, tuple(sorted(mapped.items()))


def _joins(table: pa.Table, parts: Parts) -> dict[tuple[Any, ...], _Join]:
    """The joins to make; every key column is checked before anything is read."""
    joins: dict[tuple[Any, ...], _Join] = {}
    for part, rv in parts:
        same = _same(part, rv)
        if same not in joins:
            joins[same] = _Join(rv, label_keys(table, rv, part.join_key_map))
        joins[same].features.update(dict.fromkeys(part.features))
    return joins


def _cutoff(cutoff: Cutoff, times: Ints) -> int | Ints | None:
    if cutoff is None:
        return None
    if isinstance(cutoff, str) and cutoff == "label_time":
        return times
    return _moment(cutoff)


def as_of(cutoff: Cutoff) -> int | None:
    """The present that queries are asked for: the cutoff, if it is one time."""
    return None if cutoff is None or cutoff == "label_time" else _moment(cutoff)


def _moment(cutoff: int | str | date) -> int:
    try:
        return parse_timestamp(cutoff)
    except ValueError as error:
        raise RequestError(str(error), where="cutoff", hint="or 'label_time'") from None


def _of_spine(batches: Iterable[pa.RecordBatch], join: _Join) -> Iterator[pa.RecordBatch]:
    """The rows whose keys the spine may ask for: what need not be kept is dropped on the way."""
    asked = {name: values.unique().drop_null() for name, values in join.keys.items()}
    few = {name: values for name, values in asked.items() if len(values) <= _FEW_KEYS}
    for batch in batches:
        for name, values in few.items():
            mine = canonical_key(batch.column(name), join.rv.join_keys[name])
            batch = batch.filter(pc.is_in(mine, values))
        if batch.num_rows:
            yield batch


def _series(values: pa.ChunkedArray) -> Any:
    """A feature column for pandas: Int64, Float64, boolean, string; other types as pandas has them."""
    import pandas as pd  # noqa: PLC0415  (optional)

    kind = values.type
    if pa.types.is_floating(kind):
        # Not through from_arrow: pandas may read a NaN as missing, and here the two differ.
        mask = values.is_null().to_numpy()
        numbers = np.zeros(len(values), kind.to_pandas_dtype())
        filled = pc.fill_null(values, pa.scalar(0, kind))
        numbers[:] = filled.to_numpy()
        return pd.Series(pd.arrays.FloatingArray(numbers, mask))
    dtypes = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    dtypes[pa.string()] = pd.StringDtype()
    return values.to_pandas(types_mapper=dtypes.get)
