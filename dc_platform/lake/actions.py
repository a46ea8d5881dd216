"""Entries of a table's log for files that come and files that go."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from deltalake.transaction import AddAction, RemoveAction

from dc_platform.lake.parquet import DataFile


def remove_action(
    row: dict[str, Any], partition_by: str | None, changes_data: bool
) -> RemoveAction:
    """What takes a live file, a row of the snapshot, out of the table."""
    value = row[f"partition.{partition_by}"] if partition_by else None
    return RemoveAction(
        row["path"],
        data_change=changes_data,
        deletion_timestamp=time.time_ns() // 1_000_000,
        size=row["size_bytes"],
        partition_values={partition_by: _partition_value(value)} if partition_by else {},
    )


def add_action(file: DataFile, partition_by: str | None, changes_data: bool = True) -> AddAction:
    """What puts a file into the table."""
    values = {partition_by: _partition_value(file.partition)} if partition_by else {}
    return AddAction(file.path, file.size, values, file.modified_ms, changes_data, file.stats)


def _partition_value(partition: date | None) -> str | None:
    return partition.isoformat() if partition else None
