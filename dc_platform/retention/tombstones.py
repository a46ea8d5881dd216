"""Tombstones: the identities that a deletion takes away and that could come in again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import duckdb
import pyarrow as pa

from dc_platform.contracts.ops_tables import TOMBSTONES
from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.errors import CommitConflictError
from dc_platform.lake.parquet import write_file
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, sql_list, sql_text, table_sql
from dc_platform.retention.conditions import Conditions

_RETRIES = 20
_FILE_ROWS = 1_000_000
_MEMORY = "1GB"
_COLUMNS = ("tenant_id", "source_id", "event_id", "dedup_scope")


def write_tombstones(lake: Lake, conditions: Conditions, deletion_id: str, at: datetime) -> int:
    """Write those of rows that go and have none yet, in one commit; returns how many."""
    lake.ensure(TOMBSTONES)
    with scratch(memory=_MEMORY, threads=1) as connection:
        for _ in range(_RETRIES):
            table = LakeTable(lake, TOMBSTONES)
            files = [
                write_file(lake, TOMBSTONES, rows, partition=None)
                for rows in _missing(lake, connection, table, conditions, deletion_id, at)
            ]
            if not files:
                return 0
            try:
                table.commit(files, txns={}, exact=True, metadata={"dcp.tombstones": deletion_id})
            except CommitConflictError:
                # The files stay: a store that repeats a put may have committed them.
                continue
            return sum(file.rows for file in files)
    raise CommitConflictError("ops.tombstones: too many conflicting commits; the next run goes on")


def _missing(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    table: LakeTable,
    conditions: Conditions,
    deletion_id: str,
    at: datetime,
) -> Iterator[pa.Table]:
    """Rows of the table, by scope: who looks for a batch's scopes reads few of its row groups."""
    parts = [
        part
        for spec, column in ((SILVER_EVENTS, "event_id"), (SILVER_QUARANTINE, "quarantine_id"))
        if (part := _going(lake, spec, column, conditions)) is not None
    ]
    if not parts:
        return
    known = table_sql(TOMBSTONES, table.snapshot())
    reader = connection.execute(
        f"select distinct {', '.join(_COLUMNS)}, {sql_text(deletion_id)} as cause,"
        f" make_timestamptz({int(at.timestamp() * 1_000_000)}) as deleted_at"
        f" from ({' union all '.join(parts)}) g"
        f" where not exists (select 1 from ({known}) k where k.event_id = g.event_id"
        " and k.source_id is not distinct from g.source_id)"
        " order by dedup_scope, event_id"
    ).to_arrow_reader(_FILE_ROWS)
    for batch in reader:
        if len(batch):
            yield pa.Table.from_batches([batch]).cast(TOMBSTONES.columns)


def _going(lake: Lake, spec: TableSpec, column: str, conditions: Conditions) -> str | None:
    table = LakeTable(lake, spec)
    near = [f"{table.uri}/{path}" for path in conditions.near(spec, table.snapshot())]
    condition = conditions.of(spec)
    if not near or condition is None:
        return None
    more = f" and ({conditions.returning})" if spec is SILVER_EVENTS else ""
    return (
        f"select tenant_id, source_id, {column} as event_id, dedup_scope"
        f" from read_parquet({sql_list(near)}, hive_partitioning = false) where ({condition}){more}"
    )
