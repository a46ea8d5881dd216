"""A lake in a directory, and silver rows to put into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts import identity
from dc_platform.contracts.tables import SILVER_EVENTS, TableSpec
from dc_platform.lake.parquet import DataFile, write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, table_sql
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.records import TOPIC_ID

DAY = date(2024, 5, 17)


def silver_row(number: int = 0, **columns: Any) -> dict[str, Any]:
    """A row of silver; what is not given depends on `number` alone."""
    source = str(columns.get("source_id", "s"))
    event_id = str(columns.get("event_id", some_uuid(number)))
    row = {
        "tenant_id": "default",
        "source_id": source,
        "event_id": event_id,
        "event_type": "t",
        "event_time": NOW * 1000,
        "received_at": NOW * 1000,
        "processed_at": NOW * 1000,
        "payload": "{}",
        "schema_version": "1",
        "dedup_scope": identity.dedup_scope(source, event_id, NOW),
        "sample_rate": 1.0,
        "topic_id": TOPIC_ID,
        "kafka_partition": 0,
        "kafka_offset": number,
        "kafka_index": 0,
    }
    return {**row, **columns}


def silver_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows with the columns of silver's files."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=SILVER_EVENTS.file_schema)


def older(spec: TableSpec) -> TableSpec:
    """The table as it was made before it had the columns that were added."""
    columns = [f for f in spec.columns if f.name not in spec.added]
    return replace(spec, columns=pa.schema(columns), added=())


def write_silver(lake: Lake, rows: Sequence[Mapping[str, Any]]) -> DataFile:
    """A data file that is not yet committed."""
    return write_file(lake, SILVER_EVENTS, silver_table(rows), partition=DAY)


def read_table(lake: Lake, spec: TableSpec, columns: str = "*") -> list[tuple[Any, ...]]:
    """The rows of a table at its newest version, in the order of their address."""
    snapshot = LakeTable(lake, spec).snapshot()
    address = [
        c for c in ("kafka_partition", "kafka_offset", "kafka_index") if c in spec.columns.names
    ]
    order = f" order by {', '.join(address)}" if address else ""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        return connection.execute(
            f"select {columns} from ({table_sql(spec, snapshot)}){order}"
        ).fetchall()


def commit_rows(lake: Lake, spec: TableSpec, rows: pa.Table) -> None:
    """Append rows, which have all columns of `spec`, to a table."""
    lake.ensure(spec)
    assert spec.partition_by is not None
    days = rows[spec.partition_by].unique().to_pylist()
    files = [
        write_file(lake, spec, rows.filter(pc.field(spec.partition_by) == day), partition=day)
        for day in days
    ]
    LakeTable(lake, spec).commit(files, txns={}, exact=True)
