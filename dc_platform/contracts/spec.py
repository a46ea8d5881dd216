"""What a table is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
# Exact sums: 29 digits before the point, 9 behind it.
SUM = pa.decimal128(38, 9)
# Columns that say where in Kafka an event is.
ADDRESS = [
    ("topic_id", pa.string()),
    ("kafka_partition", pa.int32()),
    ("kafka_offset", pa.int64()),
    ("kafka_index", pa.int32()),
]


@dataclass(frozen=True)
class TableSpec:
    """One Delta table.

    `statistics` are the columns whose minimum and maximum go into the log for file skipping; every
    further one costs a pass over the column at each commit. `docs` describes columns that mean
    something else than `COLUMN_DOCS` says, or that no other table has. `added` are columns that lakes
    of older releases lack: of these the log says in which files they are (by their nulls).
    """

    name: str
    description: str
    columns: pa.Schema
    statistics: tuple[str, ...]
    partition_by: str | None = "ingest_date"
    docs: dict[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    properties: dict[str, str] = field(
        default_factory=lambda: {
            # Opening 1,000 commits takes 386 ms without a checkpoint, 15 ms with one 20 back.
            "delta.checkpointInterval": "20",
            # Old log entries are removed by number, not by age: lake/cleaning.py.
            "delta.enableExpiredLogCleanup": "false",
            # Each file that was replaced within this time is a row of every checkpoint (10 µs).
            "delta.deletedFileRetentionDuration": "interval 7200 seconds",
        }
    )

    @property
    def layer(self) -> str:
        """The schema in SQL: bronze, silver, gold or ops."""
        return self.name.split(".")[0]

    @property
    def path(self) -> str:
        """Directory of the table below the lake's root."""
        return self.name.replace(".", "/")

    @property
    def file_schema(self) -> pa.Schema:
        """Columns that are stored in the files: all but the partition column."""
        if self.partition_by is None:
            return self.columns
        return self.columns.remove(self.columns.get_field_index(self.partition_by))


@dataclass(frozen=True)
class GoldSpec(TableSpec):
    """A table of gold. A row belongs to an hour (`hourly`), or to the day of `hour_date`. `grain` are
    the columns that name a row; files are in order by `order`, where it is another one.
    """

    grain: tuple[str, ...] = ()
    order: tuple[str, ...] = ()

    @property
    def hourly(self) -> bool:
        """Whether a row belongs to an hour."""
        return "hour" in self.grain
