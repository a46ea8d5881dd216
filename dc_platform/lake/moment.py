"""A table as it was at a version: its files with their statistics, and its offsets.

From the table's own log, as far as that reaches, or from the copy of a log in a backup.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

from dc_platform.contracts.tables import TableSpec
from dc_platform.errors import ConfigurationError, StoreUnavailableError
from dc_platform.lake.log_entries import committed_at, offsets_at
from dc_platform.lake.parquet import DataFile, as_json
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot


class Moment(NamedTuple):
    """One version. `root` is where its files lie: the table's directory, or a backup's."""

    spec: TableSpec
    version: int
    committed_at: datetime
    files: list[DataFile]
    offsets: dict[str, int]
    root: str


def moment(lake: Lake, spec: TableSpec, version: int, *, root: str | None = None) -> Moment:
    """The table at a version; its files lie in the table's directory, or in `root`.

    Raises ConfigurationError when the log no longer has the version.
    """
    try:
        table = LakeTable(lake, spec, version)
        at = committed_at(lake, spec, version)
        offsets = offsets_at(lake, spec, version)
    except StoreUnavailableError as error:
        raise ConfigurationError(
            f"{spec.name} has no version {version} in its log any more, or not yet: restore from a"
            f" backup (dcp backup list); {error}"
        ) from error
    return Moment(
        spec,
        version,
        at,
        data_files(spec, table.snapshot()),
        offsets,
        root or table.uri,
    )


def data_files(spec: TableSpec, snapshot: Snapshot) -> list[DataFile]:
    """The live files of a snapshot, with the statistics that its log has of them."""
    return [_data_file(spec, row) for row in snapshot.actions.to_pylist()]


def _data_file(spec: TableSpec, row: dict[str, Any]) -> DataFile:
    low, high, nulls = (
        {name: row.get(f"{of}.{name}") for name in spec.statistics}
        for of in ("min", "max", "null_count")
    )
    stats = {
        "numRecords": row["num_records"],
        "minValues": {n: as_json(v, up=False) for n, v in low.items() if v is not None},
        "maxValues": {n: as_json(v, up=True) for n, v in high.items() if v is not None},
        "nullCount": {n: v for n, v in nulls.items() if v is not None},
    }
    return DataFile(
        path=row["path"],
        size=row["size_bytes"],
        rows=row["num_records"],
        partition=row.get(f"partition.{spec.partition_by}"),
        stats=json.dumps(stats, ensure_ascii=False),
        modified_ms=row["modification_time"],
    )
