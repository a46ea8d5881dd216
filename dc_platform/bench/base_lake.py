"""The lake that is not empty: silver with millions of events in the hours that the input has.

Made by DuckDB in pieces of a million rows, written and committed by the platform's own lake code. A
run gets a copy that shares the data files (hard links) and has a log of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from dc_platform.bench.workload import SOURCES, Event, source_id
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.parquet import write_file
from dc_platform.lake.payload_index import SUFFIX as INDEX
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import scopes_of
from dc_platform.landing.keys import KeyMaker

_PIECE = 1_000_000
HOURS = 48
DAY_MS = 86_400_000
# Of the rows that were there before.
TOPIC_ID = "00000000-0000-0000-0000-000000000000"

_ROWS = f"""
    select 'default' as tenant_id,
        printf('00000000-0000-0000-0000-0000be7c%04x', (i * 7919 + $seed) % {SOURCES}) as source_id,
        uuid()::varchar as event_id, null::varchar as client_event_id,
        ['page_view', 'click', 'purchase', 'search', 'signup'][1 + i % 5] as event_type,
        make_timestamptz(ms * 1000) as event_time,
        make_timestamptz(ms * 1000 + 80000) as received_at,
        make_timestamptz(ms * 1000 + 900000) as processed_at,
        printf('{{"userId":"user-%06d","page":"/products/%04d","country":"DE","duration":%d.50,'
            || '"session":"%016x","ok":true}}', i % 200000, i % 5000, i % 600, hash(i) >> 1) as payload,
        null::map(varchar, varchar) as tags, '1' as schema_version,
        (ms // 3600000)::integer as dedup_scope, 1.0::double as sample_rate,
        '{TOPIC_ID}' as topic_id, 0::integer as kafka_partition,
        i as kafka_offset, 0::integer as kafka_index,
        null::varchar as judged_by, null::varchar[] as flags
    from (select range as i, ($now_ms - (random() * {HOURS} * 3600000)::bigint) as ms
          from range($start, $start + $rows))
"""


def build(
    directory: Path,
    rows: int,
    *,
    now_ms: int,
    duplicates: int,
    sources: int = SOURCES,
    progress: Callable[[int], None],
) -> list[Event]:
    """Write silver with `rows` events of the last 48 hours; gives a sample of `duplicates` of them,
    all of the first `sources` sources, half of them older than a day.
    """
    lake = Lake(str(directory))
    lake.ensure(SILVER_EVENTS)
    table = LakeTable(lake, SILVER_EVENTS)
    maker = KeyMaker(table.id)
    identities = IdentityFiles(lake, SILVER_EVENTS, maker.mark)
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    chosen: list[Event] = []
    pieces = max(1, -(-rows // _PIECE))
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for start in range(0, rows, _PIECE):
            size = min(_PIECE, rows - start)
            piece = connection.execute(
                _ROWS, {"seed": start, "now_ms": now_ms, "start": start, "rows": size}
            ).to_arrow_table()
            piece = piece.cast(SILVER_EVENTS.file_schema)
            file = write_file(lake, SILVER_EVENTS, piece, partition=today)
            keys = maker.keys(piece["source_id"], piece["event_id"])
            identities.write(file.path, *keys, scopes_of(piece))
            table.commit([file], txns={}, exact=True)
            chosen += _sample(
                connection, piece, now_ms, duplicates // pieces, source_id(sources - 1)
            )
            progress(start + size)
    return chosen


def _sample(
    connection: duckdb.DuckDBPyConnection, piece: object, now_ms: int, count: int, last_source: str
) -> list[Event]:
    connection.register("piece", piece)
    chosen = []
    for condition in ("<", ">="):
        chosen += connection.execute(
            "select source_id, event_id, epoch_ms(event_time), event_type, payload from piece"
            f" where epoch_ms(event_time) {condition} {now_ms - DAY_MS}"
            f" and source_id <= '{last_source}' limit {count // 2}"
        ).fetchall()
    connection.unregister("piece")
    return [Event(s, e, t, kind, p.encode()) for s, e, t, kind, p in chosen]


def copy(base: Path, target: Path) -> None:
    """A lake with the same files and a log of its own."""
    for path in base.rglob("*"):
        relative = target / path.relative_to(base)
        if path.is_dir():
            relative.mkdir(parents=True, exist_ok=True)
        elif path.suffix in (".parquet", ".ids", INDEX) and "_delta_log" not in path.parts:
            relative.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, relative)
        else:
            relative.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, relative)
