"""Training sets: labels in, the same labels with the features that were in force at each one's time out.

N rows in, N rows out, in their order, label columns bit for bit. Views are joined one after another (joining.py); only
the columns and the range of time that the labels can see are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.config import Config
from fastserve.definitions import FeatureViewProjection
from fastserve.display import html_table
from fastserve.errors import RequestError
from fastserve.offline.history import History
from fastserve.offline.schema import feature_types
from fastserve.on_demand.functions import Functions
from fastserve.registry import RegisteredView
from fastserve.timeutil import parse_timestamp
from fastserve.types import DType, arrow_type
from materializer.budget import Budget, Need, parse_memory
from materializer.joining import Join, Joined, Ranged, RowReader, Rule, join_all
from materializer.on_demand import OnDemand, stored_parts
from materializer.pit.chunks import ahead
from materializer.pit.spine import Spine, label_keys, label_times, to_spine
from materializer.pit.stow import RANGE_ROWS, Spool
from materializer.progress import Watch, unwatched
from materializer.shards.join import Shards, join_sharded
from materializer.shards.plan import Limits
from materializer.windowed import check_cutoff, fold_all

if TYPE_CHECKING:
    from fastserve.registry import Registry

__all__ = ["TrainingSet", "build_training_set", "to_spine"]

Ints = npt.NDArray[np.int64]
Parts = Sequence[tuple[FeatureViewProjection, RegisteredView]]
Cutoff = int | str | date | Literal["label_time"] | None

_A_TEXT: Final = 24  # bytes of a text or list of any length, for want of knowing better


@dataclass(frozen=True, slots=True, repr=False)
class TrainingSet:
    """Labels and their features.

    Attributes:
        spine: the labels.
        features: output name -> values, in the order asked for; of the declared Arrow types, missing is null. Made
            within a budget of memory they are put together when they are first looked at.
    """

    spine: Spine
    features: Mapping[str, pa.ChunkedArray]

    def to_arrow(self) -> pa.Table:
        """Spine columns, then features."""
        table = self.spine.table
        for name, values in self.features.items():
            table = table.append_column(name, values)
        return table

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of `to_arrow`, 131,072 at a time, in order; what is not in memory is read for it and let go.

        While some are used, the next are put together in another thread.
        """
        return ahead(self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        start, schema = 0, self.schema
        for made in self._ranges():
            rows = len(next(iter(made.values())))
            part = self.spine.table.slice(start, rows)
            yield from pa.table([*part.columns, *made.values()], schema=schema).combine_chunks().to_batches()
            start += rows

    def _ranges(self) -> Iterator[Mapping[str, pa.ChunkedArray]]:
        if isinstance(self.features, Joined):
            yield from self.features.ranges()
            return
        for start in range(0, len(self), RANGE_ROWS):
            yield {name: values.slice(start, RANGE_ROWS) for name, values in self.features.items()}

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
        schema = self.spine.table.schema
        kinds: Mapping[str, pa.DataType] = (
            self.features.fields()
            if isinstance(self.features, Joined)
            else {name: values.type for name, values in self.features.items()}
        )
        for name, kind in kinds.items():
            schema = schema.append(pa.field(name, kind))
        return schema

    def __len__(self) -> int:
        return len(self.spine.table)

    def _repr_html_(self) -> str:
        first = next(self.batches(), None)
        head = self.schema.empty_table() if first is None else pa.Table.from_batches([first.slice(0, 5)])
        columns = [column.to_pylist() for column in head.columns]
        return html_table(repr(self), head.column_names, zip(*columns, strict=True), "the first rows")

    def __repr__(self) -> str:
        names = list(self.features)
        shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        return f"TrainingSet({len(self):,} rows; {len(names)} features: {shown})"


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
    memory: int | str | None = None,
    shards: Shards | None = None,
    watch: Watch = unwatched,
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
        memory: that the process may hold, what it holds already included: bytes or text like ``1.5GiB``; None for
            no limit. Nor does the answer depend on this.
        shards: join by tasks, on the engine there; each may hold as much memory. Nor on this.
        watch: told how far it is.

    Raises:
        RequestError: no features, a missing column, two columns of one name, or too little memory.
        InvalidEntityError: a join key is missing or of another type.
        InvalidDataError: a label's time is null or none; a source's row or a request column does not fit; or an
            on-demand view's function failed.
        ConfigError: the repo does not have the function of an on-demand view that was applied.
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
        functions=Functions(config.repo),
        full_feature_names=full_feature_names,
        cutoff=cutoff,
        timestamp_column=timestamp_column,
        threads=threads,
        memory=memory,
        shards=shards,
        watch=watch,
    )


def join_features(  # noqa: PLR0913  (a call names each)
    spine: Spine,
    parts: Parts,
    history: RowReader,
    *,
    functions: Functions,
    full_feature_names: bool = False,
    cutoff: Cutoff = None,
    timestamp_column: str = "event_timestamp",
    threads: int | None = None,
    memory: int | str | None = None,
    shards: Shards | None = None,
    watch: Watch = unwatched,
) -> TrainingSet:
    """`build_training_set` on rows from any reader: a history, or the record of one.

    Args:
        functions: of on-demand views; whoever joins several times has the repo imported once.
    """
    if threads is not None and threads < 1:
        raise RequestError(f"{threads} threads", where="threads", hint="1 or more, or None for all cores")
    limit = parse_memory(memory)
    parts = list(parts)
    names = _output_names(spine.table.column_names, parts, full_feature_names)
    times = label_times(spine.table, timestamp_column)
    rule = Rule(times, _cutoff(cutoff, times))
    on_demand = OnDemand(parts, spine.table, times, functions)
    joins = _joins(spine.table, list(stored_parts(parts)))
    check_cutoff(joins.values(), rule)
    need = _need(joins.values(), len(times))
    budget = Budget.of(limit, need, threads)
    spool = Spool()
    made: Sequence[Ranged]
    if shards is not None:
        made = join_sharded(list(joins.values()), rule, history, shards, Limits.of(limit, need), watch)
    else:
        made = _join_here(list(joins.values()), rule, history, budget, (limit, need), spool, watch)
    answers = on_demand.answers(parts, _same, dict(zip(joins, made, strict=True)))
    values = [
        (of, feature) for of, (part, _) in zip(answers, parts, strict=True) for feature in part.features
    ]
    features = Joined(len(times), dict(zip(names, values, strict=True)), spool, budget.threads)
    if limit is None:
        return TrainingSet(spine, {name: features[name] for name in names})
    return TrainingSet(spine, features)


def _join_here(
    joins: Sequence[Join],
    rule: Rule,
    history: RowReader,
    budget: Budget,
    within: tuple[int | None, Need],
    spool: Spool,
    watch: Watch,
) -> list[Ranged]:
    """The answers of each join, made in this process."""
    rows = [join for join in joins if not join.is_windowed]
    windows = [join for join in joins if join.is_windowed]
    found = iter(join_all(rows, rule, history, budget, spool, watch))
    folded = iter(fold_all(windows, rule, history, within, spool, watch, budget.threads))
    return [next(folded if join.is_windowed else found) for join in joins]


def _need(joins: Iterable[Join], n: int) -> Need:
    keys = {join.same_keys: sum(values.nbytes for values in join.keys.values()) for join in joins}
    row = sum(
        _width(dtype) for join in joins for dtype in feature_types(join.rv, list(join.features)).values()
    )
    read = (feature_types(*join.reads()) for join in joins if join.is_windowed)
    row += sum(_width(dtype) for types in read for dtype in types.values())
    return Need(n, sum(keys.values()) / max(n, 1), row, len(list(joins)))


def _width(dtype: DType) -> int:
    """Bytes of a value, about."""
    kind = arrow_type(DType(dtype.item))
    one = _A_TEXT if dtype.item in ("string", "bytes") else max(kind.bit_width // 8, 1)
    return one * (dtype.length or (8 if dtype.is_list else 1)) + 1


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


def _joins(table: pa.Table, parts: Parts) -> dict[tuple[Any, ...], Join]:
    """The joins to make; every key column is checked before anything is read."""
    joins: dict[tuple[Any, ...], Join] = {}
    for part, rv in parts:
        same = _same(part, rv)
        if same not in joins:
            columns = tuple((part.join_key_map.get(key, key), dtype) for key, dtype in rv.join_keys.items())
            joins[same] = Join(rv, label_keys(table, rv, part.join_key_map), columns)
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
