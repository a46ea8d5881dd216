"""Silver of one ingest date built anew from bronze.

The result is what landing would have written: what bronze calls valid, each identity once. Where a
day has an event several times, the row that silver already has is kept; so a backfill whose input has
not changed finds nothing to change, and commits nothing. A row that bronze has on another day (a run
that crashed before midnight and was completed after it) stays. Landing goes on meanwhile, and the rows
before and after are those that were compared (`landing/backfill_commit.py`).

What silver lacks belongs into it below the border of its own topic and partition, also when that
topic is gone: it had landed once. Beyond the border, and of a topic without one, it stays out: of the
topic that is landing now it will come with its commit; of a deleted topic it never landed, and the
check `every_accepted_event_landed` names it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import date

from dc_platform.contracts.ops_tables import LANDING_BORDER, TOMBSTONES
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.errors import CommitConflictError
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot, table_sql
from dc_platform.landing.backfill_commit import RebuiltDay
from dc_platform.landing.backfill_rows import (
    CONTENT,
    DIGESTS,
    KEY,
    Connection,
    Judged,
)
from dc_platform.points import Point, Reached, unarmed

_RETRIES = 10
# Of digests, times and ids, for all joins; what exceeds it is spilled.
_MEMORY = "1GB"


@dataclass(frozen=True)
class Backfilled:
    """Rows of the day before and after, as compared; `version` is None when nothing had to change."""

    before: int
    after: int
    added: int
    removed: int
    version: int | None


def backfill_silver(lake: Lake, day: date, *, reached: Reached = unarmed) -> Backfilled:
    """Build silver of an ingest date from bronze; raises CommitConflictError after many tries.

    Raises FatalError, and changes nothing, when a valid event of bronze cannot be read any more.
    """
    with (
        scratch(memory=_MEMORY) as connection,
        tempfile.TemporaryDirectory(prefix="dcp-backfill-") as folder,
    ):
        for _ in range(_RETRIES):
            bronze, silver = LakeTable(lake, BRONZE_EVENTS), LakeTable(lake, SILVER_EVENTS)
            judged = Judged(connection, folder)
            judged.read(bronze, day)
            silver.refresh()
            before, after, added, removed = _compare(lake, connection, silver.snapshot(), day)
            if not added and not removed:
                return Backfilled(before, before, 0, 0, None)
            rebuilt = RebuiltDay(lake, connection, silver, day, bronze=bronze.snapshot())
            files = rebuilt.write(judged.rebuilt())
            reached(Point.BACKFILL_WRITTEN)
            version = rebuilt.commit(files)
            if version is not None:
                reached(Point.BACKFILL_COMMITTED)
                return Backfilled(before, after, added, removed, version)
    raise CommitConflictError(
        f"{_RETRIES} times what came into silver.events during the backfill of {day} changed its result"
    )


def _compare(
    lake: Lake, connection: Connection, snapshot: Snapshot, day: date
) -> tuple[int, int, int, int]:
    """(rows before, rows after, added, removed) for the day at a snapshot of silver; the rows after
    are in `rebuilt`.
    """
    # Bronze after silver: it has every event that silver has. Tombstones after both: they have what was
    # deleted from these.
    lake.ensure(TOMBSTONES)
    border, bronze, tombstones = (
        LakeTable(lake, s).snapshot() for s in (LANDING_BORDER, BRONZE_EVENTS, TOMBSTONES)
    )
    for name, spec, found in (
        ("tombstones", TOMBSTONES, tombstones),
        ("border", LANDING_BORDER, border),
        ("bronze", BRONZE_EVENTS, bronze),
        ("silver", SILVER_EVENTS, snapshot),
    ):
        columns = DIGESTS if name == "silver" else "*"
        rows = table_sql(spec, found)
        connection.execute(f"create or replace temp view {name} as select {columns} from ({rows})")
    today = table_sql(SILVER_EVENTS, snapshot)
    connection.execute(
        "create or replace temp view silver_today as"
        f" select * from ({today}) where ingest_date = date '{day.isoformat()}'"
    )
    for statement in (_TODAY, _ELSEWHERE, _REBUILT):
        connection.execute(statement.replace("$day", f"date '{day.isoformat()}'"))
    content = ", ".join(CONTENT)
    before, after, added, removed = (
        int((connection.execute(f"select count(*) from {rows}").fetchone() or [0])[0])
        for rows in (
            "today",
            "rebuilt",
            f"(select {content} from rebuilt except all select {content} from today)",
            f"(select {content} from today except all select {content} from rebuilt)",
        )
    )
    return before, after, added, removed


_TODAY = "create or replace temp table today as select * from silver where ingest_date = $day"
# Rows whose event was not among those that were judged, but is in bronze: it landed there on another
# day, or after bronze was read.
_ELSEWHERE = f"""
    create or replace temp table elsewhere as
    with unseen as (select * exclude (ingest_date) from today anti join seen using ({KEY}))
    select * from unseen semi join bronze using ({KEY})
"""
# What silver has stays, once per identity and scope. What it has not belongs into it when no row of
# the identity is there, on any day, and when the border of its topic covers it (which may lag behind
# silver, never the other way). What was deleted does not, whoever has it.
_REBUILT = f"""
    create or replace temp table rebuilt as
    with candidates as (
        select j.*, coalesce(t.processed_at, now()) as processed_at, t.event_id is not null as kept
        from judged j
        left join border b using (topic_id, kafka_partition)
        left join today t using ({KEY})
        where (t.event_id is not null
               or j.kafka_offset < b.next_offset)
          and not exists (select 1 from silver s where s.ingest_date <> $day
                          and s.source_id = j.source_id and s.event_id = j.event_id
                          and (t.event_id is null or s.dedup_scope = j.dedup_scope))
          and (j.source_id, j.event_id) not in (select (source_id, event_id) from elsewhere)
          and not exists (select 1 from tombstones d
                          where d.source_id = j.source_id and d.event_id = j.event_id)
    ), numbered as (
        select *, row_number() over (
            partition by source_id, event_id order by not kept, {KEY}) as of_identity,
        row_number() over (
            partition by source_id, event_id, dedup_scope order by not kept, {KEY}) as of_scope
        from candidates
    )
    select * exclude (kept, of_identity, of_scope) from numbered
    where of_identity = 1 or (kept and of_scope = 1)
    union all by name select * from elsewhere
"""
