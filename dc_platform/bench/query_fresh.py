"""What a run adds to the lake: the last hour in small commits, and a tail that has not landed."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.bench import workload
from dc_platform.bench.query_lake import DAYS, HOUR_MS, Piece, rows_of
from dc_platform.bench.workload import Event
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.parquet import FAST_LEVEL, DataFile, write_file
from dc_platform.lake.rewrite import MERGED, write_rows
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import scopes_of
from dc_platform.landing.keys import KeyMaker

# What compaction leaves of an open hour: files that it merged, and those that it has not reached.
_MERGED_MS = 2 * 60_000
_LANDED_MS = 2_000
_LANDED = 30
_TAIL_MS = 5_000
TAIL_ROWS = 5_000


def add_hour(lake: Lake, events: int, now_ms: int) -> int:
    """Commit the hour before the tail, as busy as the lake of `events` events is; gives its rows."""
    table = LakeTable(lake, SILVER_EVENTS)
    maker = KeyMaker(table.id)
    identities = IdentityFiles(lake, SILVER_EVENTS, maker.mark)
    per_ms = events / (DAYS * 24 * HOUR_MS)
    written = 0
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for start, length in _stretches(now_ms - _TAIL_MS):
            piece = Piece(start, length, max(1, round(per_ms * length)), events + written)
            rows = pa.concat_tables(rows_of(connection, [piece], "order by kafka_offset"))
            file = _write(lake, rows, start, merged=length == _MERGED_MS)
            keys = maker.keys(rows["source_id"], rows["event_id"])
            identities.write(file.path, *keys, scopes_of(rows))
            table.commit([file], txns={}, exact=True)
            written += len(rows)
    return written


def _stretches(end_ms: int) -> Iterator[tuple[int, int]]:
    """(start, length) in milliseconds of the hour's files."""
    landed_from = end_ms - _LANDED * _LANDED_MS
    for start in range(end_ms - HOUR_MS, landed_from, _MERGED_MS):
        yield start, min(_MERGED_MS, landed_from - start)
    for start in range(landed_from, end_ms, _LANDED_MS):
        yield start, _LANDED_MS


def _write(lake: Lake, rows: pa.Table, start_ms: int, *, merged: bool) -> DataFile:
    spec = SILVER_EVENTS
    day = datetime.fromtimestamp(start_ms / 1000, UTC).date()
    if not merged:
        return write_file(lake, spec, rows, partition=day, level=FAST_LEVEL)
    path = f"{spec.partition_by}={day.isoformat()}/{MERGED}{uuid.uuid4()}.parquet"
    return write_rows(lake, spec, path, day, [rows])


def tail_rows(first: int, now_ms: int) -> pa.Table:
    """Rows of the last seconds, as landing would write them."""
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        piece = Piece(now_ms - _TAIL_MS, _TAIL_MS, TAIL_ROWS, first)
        return pa.concat_tables(rows_of(connection, [piece], "order by source_id, event_time"))


def produce(bootstrap: str, topic: str, rows: pa.Table, now_ms: int) -> None:
    """Write them to a new topic as the gateway does."""
    by_source: dict[str, list[Event]] = defaultdict(list)
    columns = [
        rows[name].to_pylist() for name in ("source_id", "event_id", "event_type", "payload")
    ]
    times = pc.divide(rows["event_time"].cast(pa.int64()), 1000).to_pylist()
    for source, event_id, event_type, payload, at in zip(*columns, times, strict=True):
        by_source[source].append(Event(source, event_id, at, event_type, payload.encode()))
    workload.produce(bootstrap, topic, "ndjson", iter(by_source.values()), now_ms)


def write_beside(rows: pa.Table, path: Path) -> None:
    """The tail as a file, for those who do not read Kafka."""
    pa.parquet.write_table(rows, path, compression="zstd")
