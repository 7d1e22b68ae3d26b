"""The events that came by a stream, for training: a Delta table for each feed, to which each entry is appended once.

    <offline root>/<project>/.events/<source>/<join keys>/     partitioned by event_date, as a view's table

How far each log was followed is in the table itself, as transactions: a commit has events and the offsets after them,
so neither is ever without the other. Of two that follow a log at once, one fails and looks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from fastserve.definitions import EventSource
from fastserve.offline.delta import OfflineTable, create_table, days_of, tended
from fastserve.offline.parquet import writer_properties
from fastserve.offline.schema import EVENT_DATE, EVENT_TS
from fastserve.registry import RegisteredView


def events_uri(root: str, project: str, source: str, join_keys: Sequence[str]) -> str:
    """Where the events of a feed are; no view's name begins with a dot."""
    return f"{root.rstrip('/')}/{project}/.events/{source}/{'+'.join(join_keys) or 'all'}"


def history_table(root: str, project: str, rv: RegisteredView) -> OfflineTable:
    """The offline table that a view's history is read from beside its source: of its rows, or of its events."""
    table = OfflineTable(root, project, rv)
    if isinstance(rv.view.source, EventSource):
        table.uri = events_uri(root, project, rv.view.source.name, list(rv.join_keys))
    return table


class StreamedEvents:
    """The table of one feed; created by the first append.

    Args:
        uri: see events_uri.
        schema: of events.
    """

    def __init__(self, uri: str, schema: pa.Schema) -> None:
        self.uri = uri
        self._schema = schema.append(pa.field(EVENT_DATE, pa.date32()))
        with tended(uri):
            self._table = create_table(uri, self._schema)

    def offsets(self, logs: Sequence[str]) -> list[int | None]:
        """How far each log was followed, as of now.

        Raises:
            OfflineStoreError: the table cannot be read.
        """
        with tended(self.uri):
            self._table.update_incremental()
            return [self._table.transaction_version(log) for log in logs]

    def append(self, events: pa.RecordBatch, offsets: Mapping[str, int]) -> bool:
        """Add events and note the offsets after them; False when another has followed one of these logs meanwhile.

        Raises:
            OfflineStoreError: the table cannot be written.
        """
        days = days_of(events[EVENT_TS])
        batch = pa.RecordBatch.from_arrays([*events.columns, days], schema=self._schema)
        moved = [Transaction(log, offset) for log, offset in offsets.items()]
        with tended(self.uri):
            try:
                write_deltalake(
                    self._table,
                    pa.table(batch),
                    mode="append",
                    schema_mode="merge",
                    writer_properties=writer_properties(self._schema),
                    commit_properties=CommitProperties(app_transactions=moved),
                )
            except CommitFailedError:
                return False
        return True
