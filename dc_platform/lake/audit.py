"""Questions to the tables whose right answer is "none": gaps, losses (doubles: `audit_identities.py`).

Each gives the findings themselves, so that a check can name them. Of the tables they look at the
ingest dates since `since` (a full look costs a scan of the whole lake), of the history at the newest
2,000 commits. Whatever that costs, it stays on one core and in bounded memory (`lake/findings.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from dc_platform.contracts import blocks
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.audit_identities import missing_events
from dc_platform.lake.findings import EXAMPLES, Finding, suspicious, tables
from dc_platform.lake.gaps import BEFORE_FIRST, EXPIRED, known_gaps
from dc_platform.lake.scratch import MUCH
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable

_HISTORY = 2_000


class _Covered(NamedTuple):
    """What a commit of silver says of a partition; without counts where it does not count."""

    topic_id: str
    partition: int
    start: int
    end: int
    records: int | None
    events: int | None


def offset_gaps(lake: Lake) -> Finding:
    """Offsets that no commit of silver covers, and ranges that Kafka deleted before they landed.

    Every commit says in its metadata which offsets it covers (`dcp.ranges`), so a hole shows without
    counting rows: offsets have holes of their own, where transactions left markers. What Kafka deleted
    is in `ops.gaps` for ever. What it had deleted before landing met a partition is named too, but is
    not held against the platform.
    """
    holes: list[dict[str, Any]] = []
    ends: dict[tuple[str, int], int] = {}
    history = _history(lake)
    for entry in history:
        if "dcp.restore" in entry:
            ends = _restored_ends(entry)
        for covered in _ranges([entry]):
            key = covered[:2]
            if key in ends and covered.start != ends[key]:
                holes.append(_gap(covered.partition, ends[key], covered.start, "not covered"))
            ends[key] = covered.end
    # Commits of before there was the table have them in their metadata alone.
    deleted = {gap[:4]: gap.why for gap in known_gaps(lake)} | {
        (entry.get("dcp.topic", ""), *gap): EXPIRED
        for entry in history
        for gap in json.loads(entry.get("dcp.gaps", "[]"))
    }
    holes += [
        _gap(partition, start, end, why)
        for (_, partition, start, end), why in sorted(
            deleted.items(), key=lambda item: item[1] == BEFORE_FIRST
        )
    ]
    harmless = sum(why == BEFORE_FIRST for why in deleted.values())
    return Finding(len(holes) - harmless, holes[:EXAMPLES])


def _gap(partition: int, start: int, end: int, why: str) -> dict[str, Any]:
    return {"partition": partition, "from": start, "to": end, "why": why}


def _history(lake: Lake) -> list[dict[str, Any]]:
    """The newest commits of silver that landed something or put its offsets back, in their order."""
    found = reversed(LakeTable(lake, SILVER_EVENTS).history(_HISTORY))
    return [entry for entry in found if "dcp.ranges" in entry or "dcp.restore" in entry]


def _restored_ends(entry: dict[str, Any]) -> dict[tuple[str, int], int]:
    """Where a restore put silver: from there on everything is covered again."""
    offsets = json.loads(entry["dcp.restore"])["offsets"]
    return {(t, int(p)): end for t, of in offsets.items() for p, end in of.items()}


def _ranges(history: list[dict[str, Any]]) -> Iterator[_Covered]:
    for entry in history:
        topic = entry.get("dcp.topic", "")
        counted = json.loads(entry.get("dcp.counted", "{}"))
        for partition, (start, end) in json.loads(entry.get("dcp.ranges", "{}")).items():
            sums = counted.get(partition, [None, None])
            yield _Covered(topic, int(partition), start, end, *sums)


def incomplete_blocks(lake: Lake, since: date) -> Finding:
    """Blocks of which bronze does not have as many events as the gateway counted, each once."""
    return suspicious(lake, _SUSPECT_RECORDS, _INCOMPLETE, since)


# Counting each record's distinct positions takes twice the time of looking for an address that is
# there twice.
_SUSPECT_RECORDS = """
    select kafka_offset from bronze where ingest_date >= $since
    group by block_id, topic_id, kafka_partition, kafka_offset
    having count(*) <> max(kafka_index) + 1
        or count(*) <> coalesce(any_value(block_events), count(*))
    union all
    select kafka_offset from bronze where ingest_date >= $since
    group by kafka_offset, hash(topic_id, kafka_partition, kafka_index) having count(*) > 1
"""
_INCOMPLETE = """
    select block_id, kafka_partition, kafka_offset, count(*) as rows,
           count(distinct kafka_index) as indexes, any_value(block_events) as counted
    from bronze semi join suspects using (kafka_offset)
    where ingest_date >= $since
    group by block_id, topic_id, kafka_partition, kafka_offset
    having count(*) <> count(distinct kafka_index) or count(*) <> max(kafka_index) + 1
        or count(*) <> coalesce(any_value(block_events), count(*))
"""


def lost_records(lake: Lake) -> Finding:
    """Ranges of offsets in which bronze has not what landing counted when it polled the records.

    The sums were taken from the records' headers alone, and stand in silver's commits
    (`dcp.counted`): records without a count, and the events that the others count.
    """
    history = _history(lake)
    counted = [covered for covered in _ranges(history) if covered.records is not None]
    if not counted:
        return Finding(0, [])
    oldest = datetime.fromtimestamp(history[0]["timestamp"] / 1000, UTC).date()
    with tables(lake, MUCH) as connection:
        wrong = counted
        # Bronze has the rows on the day of silver's commit or, after a crash, on any day before it.
        for first in (oldest - timedelta(days=1), date.min):
            columns = [list(column) for column in zip(*wrong, strict=True)]
            connection.register("counted", pa.table(columns, names=list(_Covered._fields)))
            rows = connection.execute(_LOST, {"since": first}).fetchall()
            wrong = [_Covered(*row[:6]) for row in rows]
            if not wrong:
                return Finding(0, [])
    examples = [
        {"partition": c.partition, "from": c.start, "to": c.end}
        | {"records": c.records, "records in bronze": records}
        | {"counted events": c.events, "counted events in bronze": events}
        for c, records, events in ((_Covered(*row[:6]), *row[6:]) for row in rows)
    ]
    return Finding(len(examples), examples[:EXAMPLES])


_LOST = f"""
    with of_record as (
        select topic_id, kafka_partition as partition, kafka_offset,
               count(block_events) as events,
               bool_and(block_events is null and lower(trim(split_part(
                   coalesce(content_type, ''), ';', 1), ' \t\r\n')) <> '{blocks.ARROW}') as uncounted
        from bronze where ingest_date >= $since
          and kafka_offset >= (select min(start) from counted)
        group by all
    ), found as (
        select c.*, count(*) filter (r.uncounted) as records_found,
               coalesce(sum(r.events), 0)::bigint as events_found
        from counted c
        left join of_record r on r.topic_id = c.topic_id and r.partition = c.partition
            and r.kafka_offset >= c.start and r.kafka_offset < c."end"
        group by all
    )
    select * from found where records <> records_found or events <> events_found
    order by topic_id, partition, start
"""


def lost_events(lake: Lake, since: date) -> Finding:
    """Records that were polled, and events that a gateway counted, of which bronze lacks some;
    accepted events that silver lacks.
    """
    parts = [lost_records(lake), incomplete_blocks(lake, since), missing_events(lake, since)]
    return Finding(sum(part.number for part in parts), [e for part in parts for e in part.examples])
