"""Questions about identities whose right answer is "none": ids that are there twice, or nowhere.

Each looks at two days of events, 6,000,000 in 2 CPU seconds. Texts of 72 bytes an identity, grouped or
joined, took 4 to 17: now 8 bytes of hash find the few that the texts are needed for.
"""

from __future__ import annotations

from datetime import date

from dc_platform.lake.findings import Finding, found, has_rows, suspicious, tables
from dc_platform.lake.scratch import in_little
from dc_platform.lake.store import Lake

_SCOPES = "dedup_scope in (select distinct dedup_scope from silver where ingest_date >= $since)"
_TIMED = "verdict = 'valid' and ingest_date >= $since and event_time <> received_at"


def repeated_identities(lake: Lake, since: date) -> Finding:
    """Identities that silver has twice in one scope; the promise says that there are none.

    Of each scope that got events since then all files are read: the first of two may be old.
    """
    return suspicious(
        lake,
        f"""
        select hash(source_id, event_id, dedup_scope) as who from silver where {_SCOPES}
        group by who having count(*) > 1
        """,
        f"""
        select source_id, event_id, count(*) as rows from silver
        where {_SCOPES}
          and hash(source_id, event_id, dedup_scope) in (select who from suspects)
        group by source_id, event_id, dedup_scope having count(*) > 1
        """,
        since,
    )


def reused_identities(lake: Lake, since: date) -> Finding:
    """Ids that a source used for events with different timestamps: one of them was kept out, or
    both are in, depending on whether they met. A fault of the sender, which it should hear of.
    """
    return suspicious(
        lake,
        f"""
        select hash(source_id, event_id) as who from bronze where {_TIMED}
        group by who having min(event_time) <> max(event_time)
        """,
        f"""
        select source_id, event_id, count(distinct event_time) as times,
               min(event_time) as first, max(event_time) as last
        from bronze
        where {_TIMED} and hash(source_id, event_id) in (select who from suspects)
        group by source_id, event_id having count(distinct event_time) > 1
        """,
        since,
    )


def missing_events(lake: Lake, since: date) -> Finding:
    """Accepted events of bronze that silver does not have under any address, and that nobody deleted.

    Of the topic that landed last bronze may be ahead of the border; of those before it never again.
    """
    return in_little(lambda memory: _missing(lake, since, memory))


def _missing(lake: Lake, since: date, memory: str) -> Finding:
    with tables(lake, memory) as connection:
        connection.execute(_ABSENT, {"since": since})
        # Of these, duplicates and what a backfill moved, the ids are looked for: in silver of the same
        # days, and those of the few others in all of it, with only these few in memory.
        for days in (">=", "<"):
            if not has_rows(connection, "absent"):
                return Finding(0, [])
            connection.execute(_ELSEWHERE.format(days=days), {"since": since})
        return found(
            connection,
            "select * exclude (topic_id) from absent anti join tombstones using (source_id, event_id)",
        )


# Nearly all are in silver at their own address. The address is compared as it is; that it is the same
# event, and of the same topic, by a hash: with one row at an address it errs once in 2^64.
_ABSENT = """
    create temp table absent as
    with missed as materialized (
        select b.* exclude (who) from (
            select source_id, event_id, topic_id, kafka_partition, kafka_offset, kafka_index,
                   hash(topic_id, source_id, event_id) as who
            from bronze where verdict = 'valid' and ingest_date >= $since
        ) b anti join (
            select kafka_partition, kafka_offset, kafka_index,
                   hash(topic_id, source_id, event_id) as who
            from silver where ingest_date >= $since
        ) s using (kafka_partition, kafka_offset, kafka_index, who)
    )
    select missed.* from missed
    left join (select * from border
               where silver_version = (select max(silver_version) from border)) n
        using (topic_id, kafka_partition)
    where kafka_offset < coalesce(n.next_offset, kafka_offset + 1)
"""
_ELSEWHERE = """
    create or replace temp table absent as
    with there as (
        select distinct source_id, event_id from silver semi join absent
            using (source_id, event_id)
        where ingest_date {days} $since
    )
    select * from absent anti join there using (source_id, event_id)
"""
