"""Silver of one ingest date built anew from bronze.

The result is what landing would have written: the same verdicts, each identity once. Where a day has
an event several times, the row that silver already has is kept; so a backfill whose input has not
changed finds nothing to change, and commits nothing. A row that bronze has on another day (a run that
crashed before midnight and was completed after it) stays. Landing may go on meanwhile: the commit is
exact and is tried again when the table moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import duckdb
import pyarrow as pa

from dc_platform.contracts.tables import BRONZE_EVENTS, LANDING_BORDER, SILVER_EVENTS
from dc_platform.decode.columns import plain
from dc_platform.decode.decoder import Decoder
from dc_platform.errors import CommitConflictError
from dc_platform.lake.parquet import write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot, table_sql
from dc_platform.landing.batch import is_valid, mask_rows
from dc_platform.landing.rebuild import bronze_rows, judged_from_bronze

_RETRIES = 10
_ADDRESS = ["topic_id", "kafka_partition", "kafka_offset", "kafka_index"]
_KEY = ", ".join(_ADDRESS)
# When a row was written says nothing about what it holds.
_CONTENT = [name for name in SILVER_EVENTS.file_schema.names if name != "processed_at"]


@dataclass(frozen=True)
class Backfilled:
    """Rows of the day before and after; `version` is None when nothing had to change."""

    before: int
    after: int
    added: int
    removed: int
    version: int | None


def backfill_silver(lake: Lake, decoder: Decoder, day: date) -> Backfilled:
    """Build silver of an ingest date from bronze; raises CommitConflictError after many tries."""
    judged, seen = _judged(lake, decoder, day)
    for _ in range(_RETRIES):
        table = LakeTable(lake, SILVER_EVENTS)
        snapshot = table.snapshot()
        before, after, added, removed = _compare(lake, snapshot, judged, seen, day)
        if not added and not removed:
            return Backfilled(before, before, 0, 0, None)
        files = [write_file(lake, SILVER_EVENTS, after, partition=day)] if len(after) else []
        try:
            version = table.replace(day, files, metadata={"dcp.backfill": day.isoformat()})
        except CommitConflictError:
            # A store that repeats a put by itself may call a commit of ours taken.
            live = LakeTable(lake, SILVER_EVENTS).snapshot().paths
            for file in files:
                if f"{table.uri}/{file.path}" not in live:
                    lake.remove(SILVER_EVENTS, file.path)
            continue
        return Backfilled(before, len(after), added, removed, version)
    raise CommitConflictError(f"silver.events moved {_RETRIES} times during the backfill of {day}")


def _judged(lake: Lake, decoder: Decoder, day: date) -> tuple[pa.Table, pa.Table]:
    """(valid events of bronze of the day in the columns of silver, addresses of all events)."""
    bronze = LakeTable(lake, BRONZE_EVENTS)
    names = [*SILVER_EVENTS.file_schema.names]
    names.remove("processed_at")
    pieces = []
    seen = []
    for rows in bronze_rows(bronze, f"ingest_date = date '{day.isoformat()}'"):
        judged = judged_from_bronze(rows, decoder)
        seen.append(rows.select(_ADDRESS))
        pieces.append(plain(mask_rows(judged, is_valid(judged))).select(names))
    if not pieces:
        empty = SILVER_EVENTS.file_schema.empty_table()
        return empty.select(names), empty.select(_ADDRESS)
    return pa.concat_tables(pieces), pa.concat_tables(seen)


def _compare(
    lake: Lake, snapshot: Snapshot, judged: pa.Table, seen: pa.Table, day: date
) -> tuple[int, pa.Table, int, int]:
    """(rows before, rows after, added, removed) for the day at a snapshot of silver."""
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        # Bronze after silver: it has every event that silver has.
        border, bronze = (LakeTable(lake, s).snapshot() for s in (LANDING_BORDER, BRONZE_EVENTS))
        connection.execute(f"create temp view border as {table_sql(LANDING_BORDER, border)}")
        connection.execute(f"create temp view bronze as {table_sql(BRONZE_EVENTS, bronze)}")
        connection.execute(f"create temp view silver as {table_sql(SILVER_EVENTS, snapshot)}")
        connection.register("judged", judged)
        connection.register("seen", seen)
        for statement in (_TODAY, _ELSEWHERE, _REBUILT):
            connection.execute(statement.replace("$day", f"date '{day.isoformat()}'"))
        row = connection.execute("select count(*) from today").fetchone()
        before = int(row[0]) if row else 0
        content = ", ".join(_CONTENT)
        added, removed = (
            int((connection.execute(sql).fetchone() or [0])[0])
            for sql in (
                f"select count(*) from (select {content} from rebuilt except all"
                f" select {content} from today)",
                f"select count(*) from (select {content} from today except all"
                f" select {content} from rebuilt)",
            )
        )
        names = ", ".join(SILVER_EVENTS.file_schema.names)
        after = connection.execute(
            f"select {names} from rebuilt order by kafka_partition, kafka_offset, kafka_index"
        ).to_arrow_table()
    return before, after.cast(SILVER_EVENTS.file_schema), added, removed


_TODAY = "create temp table today as select * from silver where ingest_date = $day"
# Rows whose event was not among those that were judged, but is in bronze: it landed there on another
# day, or after bronze was read.
_ELSEWHERE = f"""
    create temp table elsewhere as
    with unseen as (select * exclude (ingest_date) from today anti join seen using ({_KEY}))
    select * from unseen semi join bronze using ({_KEY})
"""
# What silver has stays, once per identity and scope. What it has not belongs into it when no row of
# the identity is there, on any day, and when silver's border covers it (the border may lag behind
# silver, never the other way).
_REBUILT = f"""
    create temp table rebuilt as
    with candidates as (
        select j.*, coalesce(t.processed_at, now()) as processed_at, t.event_id is not null as kept
        from judged j
        left join border b using (topic_id, kafka_partition)
        left join today t using ({_KEY})
        where (t.event_id is not null
               or j.kafka_offset < coalesce(b.next_offset, j.kafka_offset + 1))
          and not exists (select 1 from silver s where s.ingest_date <> $day
                          and s.source_id = j.source_id and s.event_id = j.event_id
                          and (t.event_id is null or s.dedup_scope = j.dedup_scope))
          and (j.source_id, j.event_id) not in (select (source_id, event_id) from elsewhere)
    ), numbered as (
        select *, row_number() over (
            partition by source_id, event_id order by not kept, {_KEY}) as of_identity,
        row_number() over (
            partition by source_id, event_id, dedup_scope order by not kept, {_KEY}) as of_scope
        from candidates
    )
    select * exclude (kept, of_identity, of_scope) from numbered
    where of_identity = 1 or (kept and of_scope = 1)
    union all by name select * from elsewhere
"""
