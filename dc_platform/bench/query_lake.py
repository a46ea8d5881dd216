"""A lake to ask: 30 days of events as landing, compaction and tiers leave them, made once by DuckDB.

Days that are older than DCP_TIER_HOT_DAYS are warm files, in order by type, source and time; the newer
ones are a file per closed ingest hour, in order by event hour, source and time. Both are written by
the functions that compaction and tiers write with. Skew is as in life: a few sources, users and pages
have most of the events, nights are quiet.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import DataFile, archive_options, needle_options, writer_options
from dc_platform.lake.rewrite import ORDER, SORTED, WARM, write_rows
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.retention.tiers import WARM_ORDER
from dc_platform.settings import Settings

DAYS = 30
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SOURCES = 1_000
USERS = 2_000_000
# Of rows that no topic of the bench's has.
TOPIC_ID = "00000000-0000-0000-0000-000000000000"
# A commit of so many files: the log stays short.
_FILES_PER_COMMIT = 24
# An event takes so much in a file of a closed hour; a warm file is made of at most the target size.
_BYTES_PER_EVENT = 70
_BATCH_ROWS = 16_384

# `pieces`: starts in epoch milliseconds, lengths, rows, and the number of the first row. u and v are
# uniform in [0, 1): powers bring most of the rows to small numbers.
ROWS = f"""
    with drawn as (
        select first + i as n, start_ms, length_ms, hash(first + i) as h,
            (hash(first + i, 1) % 1000000007) / 1000000007.0 as u,
            (hash(first + i, 2) % 1000000007) / 1000000007.0 as v,
            start_ms + (hash(first + i, 3) % length_ms)::bigint as ms
        from pieces, range(rows) t(i)
    )
    select 'default' as tenant_id,
        printf('00000000-0000-0000-0000-0000be7c%04x', floor(u * u * {SOURCES})::int) as source_id,
        printf('%08x-%04x-4%03x-8%03x-%012x', h >> 32, (h >> 16) & 65535, h & 4095,
            (h >> 12) & 4095, hash(n, 4) & 281474976710655) as event_id,
        null::varchar as client_event_id,
        ['page_view', 'page_view', 'page_view', 'page_view', 'click', 'click', 'search', 'purchase',
            'signup', 'error'][1 + (h % 10)::int] as event_type,
        make_timestamptz(ms * 1000) as event_time,
        make_timestamptz((ms + 80) * 1000) as received_at,
        make_timestamptz((ms + 900) * 1000) as processed_at,
        printf('{{"userId":"user-%07d","page":"/products/%04d","country":"%s","value":%d.%d0,'
            || '"session":"%016x","ok":true}}',
            floor(v * v * v * {USERS})::int, floor(u * v * 5000)::int,
            ['DE', 'US', 'FR', 'IN', 'BR', 'JP', 'NG', 'SE'][1 + ((h >> 7) % 8)::int],
            ((h >> 10) % 600)::int, ((h >> 20) % 10)::int, h) as payload,
        null::map(varchar, varchar) as tags, '1' as schema_version,
        (ms // {HOUR_MS})::integer as dedup_scope, 1.0::double as sample_rate,
        '{TOPIC_ID}' as topic_id, 0::integer as kafka_partition,
        n as kafka_offset, 0::integer as kafka_index,
        null::varchar as judged_by, null::varchar[] as flags
    from drawn
"""


class Piece(NamedTuple):
    """Rows of a stretch of time (epoch milliseconds); `first` is the number of the first of them."""

    start_ms: int
    length_ms: int
    rows: int
    first: int


def source_id(number: int) -> str:
    """A source of the lake."""
    return f"00000000-0000-0000-0000-0000be7c{number:04x}"


def user_id(number: int) -> str:
    """A user of the lake: payload.userId."""
    return f"user-{number:07d}"


def build(
    lake: Lake, settings: Settings, events: int, *, end_ms: int, progress: Callable[[int], None]
) -> int:
    """Write about `events` events of the 30 days before `end_ms` (a full UTC day, epoch
    milliseconds); gives how many they are.
    """
    lake.ensure(SILVER_EVENTS)
    table = LakeTable(lake, SILVER_EVENTS)
    written = 0
    files: list[DataFile] = []
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for pieces, warm in _files(_hours(events, end_ms), settings, end_ms):
            files.append(_write(connection, lake, settings, pieces, warm=warm))
            written += files[-1].rows
            if len(files) == _FILES_PER_COMMIT:
                table.commit(files, txns={}, exact=True)
                files = []
            progress(written)
    if files:
        table.commit(files, txns={}, exact=True)
    return written


def _hours(events: int, end_ms: int) -> list[Piece]:
    starts = range(end_ms - DAYS * DAY_MS, end_ms, HOUR_MS)
    whole = sum(map(busy, starts))
    pieces: list[Piece] = []
    first = 0
    for start in starts:
        rows = round(events * busy(start) / whole)
        pieces.append(Piece(start, HOUR_MS, rows, first))
        first += rows
    return pieces


def busy(at_ms: int) -> float:
    """How busy an hour is: nights have a third of the days."""
    of_day = at_ms // HOUR_MS % 24
    return 0.35 if of_day < 6 else 1.0 if of_day < 20 else 0.7


def _files(
    hours: Sequence[Piece], settings: Settings, end_ms: int
) -> Iterator[tuple[list[Piece], bool]]:
    """The hours of each file, and whether it is warm."""
    hot_from = end_ms - int(settings.tier_hot_days * DAY_MS)
    most = settings.compaction_file_mb * 2**20 // _BYTES_PER_EVENT
    held: list[Piece] = []
    for hour in hours:
        day_ends = held and hour.start_ms // DAY_MS != held[0].start_ms // DAY_MS
        if held and (day_ends or sum(p.rows for p in held) + hour.rows > most):
            yield held, True
            held = []
        if hour.start_ms >= hot_from:
            yield [hour], False
        else:
            held.append(hour)
    if held:
        yield held, True


def _write(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    settings: Settings,
    pieces: Sequence[Piece],
    *,
    warm: bool,
) -> DataFile:
    spec = SILVER_EVENTS
    rows = sum(piece.rows for piece in pieces)
    order, name, options = ORDER[spec.name], SORTED, writer_options(spec)
    if warm:
        order, name = WARM_ORDER[spec.name], WARM
        options = archive_options(spec, settings.tier_warm_level)
    day = datetime.fromtimestamp(pieces[0].start_ms / 1000, UTC).date()
    path = f"{spec.partition_by}={day.isoformat()}/{name}{uuid.uuid4()}.parquet"
    found = rows_of(connection, pieces, f"order by {order}, kafka_offset")
    options = {**options, **needle_options(spec, rows)}
    return write_rows(lake, spec, path, day, found, options=options)


def rows_of(
    connection: duckdb.DuckDBPyConnection, pieces: Sequence[Piece], order: str
) -> Iterator[pa.Table]:
    """Rows of silver, in batches."""
    columns: dict[str, Any] = {
        name: pa.array([piece[n] for piece in pieces], pa.int64())
        for n, name in enumerate(Piece._fields)
    }
    connection.register("pieces", pa.table(columns))
    reader = connection.execute(f"{ROWS} {order}").to_arrow_reader(_BATCH_ROWS)
    for batch in reader:
        yield pa.Table.from_batches([batch]).cast(SILVER_EVENTS.file_schema)
    connection.unregister("pieces")
