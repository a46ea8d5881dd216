"""Silver with millions of log lines, for the bench of search: words that are common and rare, phrases,
ids, and two days' worth of times, in files as compaction leaves those of closed hours.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import DataFile, needle_options, whole, writer_options
from dc_platform.lake.rewrite import ORDER, SORTED, write_rows
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable

_PIECE = 1_000_000
_BATCH_ROWS = 16_384
SOURCES = 500
HOURS = 48
START_MS = 1_764_000_000_000
THINGS = (
    *("disk", "network", "database", "cache", "queue", "payment", "checkout", "login", "session"),
    *("upload", "report", "invoice", "search", "export", "backup", "replica", "index", "token"),
    *("webhook", "scheduler"),
)
HAPPENED = (
    *("started", "finished", "failed", "retried", "timed out", "was refused", "was skipped"),
    *("was throttled", "recovered", "stalled"),
)
_ROWS = f"""
    select 'default' as tenant_id,
        printf('00000000-0000-0000-0000-0000be7c%04x', i * 7919 % {SOURCES}) as source_id,
        uuid()::varchar as event_id, null::varchar as client_event_id,
        ['app_log', 'audit', 'page_view', 'metric'][1 + i % 4] as event_type,
        make_timestamptz(ms * 1000) as event_time,
        make_timestamptz(ms * 1000 + 80000) as received_at,
        make_timestamptz(ms * 1000 + 900000) as processed_at,
        printf('{{"level":"%s","message":"%s %s after %d ms on node-%03d","user":"user-%06d",'
            || '"trace":"%016x","attributes":{{"region":"eu-%d","attempt":%d}}}}',
            ['info', 'info', 'info', 'info', 'warn', 'error'][1 + (hash(i + 1) % 6)::bigint],
            {list(THINGS)}[1 + (hash(i + 2) % {len(THINGS)})::bigint],
            {list(HAPPENED)}[1 + (hash(i + 3) % {len(HAPPENED)})::bigint],
            hash(i + 4) % 5000, hash(i + 5) % 400, hash(i + 6) % 200000, hash(i) >> 1,
            hash(i + 7) % 5, hash(i + 8) % 4) as payload,
        map {{'env': 'prod'}} as tags, '1' as schema_version,
        (ms // 3600000)::integer as dedup_scope, 1.0::double as sample_rate,
        '00000000-0000-0000-0000-000000000000' as topic_id, 0::integer as kafka_partition,
        i // 100 as kafka_offset, (i % 100)::integer as kafka_index
    from (select range as i,
            ({START_MS} + range * ({HOURS} * 3600000.0 / $total))::bigint
                + (hash(range) % 60000)::bigint as ms
          from range($start, $start + $rows) as numbers(range))
"""


def build(directory: Path, rows: int, *, progress: Callable[[int], None]) -> None:
    """Write silver with `rows` events, a file each million of them by their times."""
    lake = Lake(str(directory))
    lake.ensure(SILVER_EVENTS)
    table = LakeTable(lake, SILVER_EVENTS)
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for start in range(0, rows, _PIECE):
            size = min(_PIECE, rows - start)
            values = {"start": start, "rows": size, "total": rows}
            table.commit([_write(connection, lake, values)], txns={}, exact=True)
            progress(start + size)


def _write(
    connection: duckdb.DuckDBPyConnection, lake: Lake, values: Mapping[str, int]
) -> DataFile:
    spec = SILVER_EVENTS
    today = datetime.fromtimestamp(START_MS / 1000, UTC).date()
    path = f"{spec.partition_by}={today.isoformat()}/{SORTED}{uuid.uuid4()}.parquet"
    found = connection.execute(f"{_ROWS} order by {ORDER[spec.name]}", dict(values))
    batches = found.to_arrow_reader(_BATCH_ROWS)
    pieces = (whole(pa.Table.from_batches([batch]), spec.file_schema) for batch in batches)
    options = writer_options(spec) | needle_options(spec, values["rows"])
    return write_rows(lake, spec, path, today, pieces, options=options)
