"""What a table is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TableSpec:
    """One Delta table.

    `statistics` are the columns whose minimum and maximum go into the log for file skipping; every
    further one costs a pass over the column at each commit. `docs` describes columns that mean
    something else than `COLUMN_DOCS` says, or that no other table has.
    """

    name: str
    description: str
    columns: pa.Schema
    statistics: tuple[str, ...]
    partition_by: str | None = "ingest_date"
    docs: dict[str, str] = field(default_factory=dict)
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
