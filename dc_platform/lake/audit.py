"""Questions to the tables whose right answer is "none": gaps, doubles, losses.

Each gives the findings themselves, so that a check can name them. They look at the ingest dates
since `since` (a full look costs a scan of the whole lake).
"""

from __future__ import annotations

import json
from datetime import date
from typing import Any, NamedTuple

import duckdb

from dc_platform.contracts.tables import BRONZE_EVENTS, LANDING_BORDER, SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, table_sql

_FINDINGS = 20
_HISTORY = 20_000
_VIEWS = {"border": LANDING_BORDER, "silver": SILVER_EVENTS, "bronze": BRONZE_EVENTS}


class Finding(NamedTuple):
    """How many there are, and the first of them."""

    number: int
    examples: list[dict[str, Any]]


def offset_gaps(lake: Lake) -> Finding:
    """Offsets that no commit of silver covers, and ranges that Kafka deleted before they landed.

    Every commit says in its metadata which offsets it covers (`dcp.ranges`), so a gap shows without
    counting rows: offsets have holes of their own, where transactions left markers.
    """
    gaps: list[dict[str, Any]] = []
    ends: dict[str, int] = {}
    for entry in reversed(LakeTable(lake, SILVER_EVENTS).history(_HISTORY)):
        if "dcp.ranges" not in entry:
            continue
        topic = entry.get("dcp.topic", "")
        for partition, (start, end) in json.loads(entry["dcp.ranges"]).items():
            key = f"{topic}/{partition}"
            if key in ends and start != ends[key]:
                gaps.append(
                    {"partition": partition, "from": ends[key], "to": start, "why": "not covered"}
                )
            ends[key] = end
        for partition, start, end in json.loads(entry.get("dcp.gaps", "[]")):
            gaps.append({"partition": partition, "from": start, "to": end, "why": "expired"})
    return Finding(len(gaps), gaps[:_FINDINGS])


def repeated_identities(lake: Lake, since: date) -> Finding:
    """Identities that silver has twice in one scope; the promise says that there are none."""
    return _find(
        lake,
        """
        select source_id, event_id, count(*) as rows from silver
        where dedup_scope in (select distinct dedup_scope from silver where ingest_date >= $since)
        group by source_id, event_id, dedup_scope having count(*) > 1
        """,
        since,
    )


def reused_identities(lake: Lake, since: date) -> Finding:
    """Ids that a source used for events with different timestamps: one of them was kept out, or
    both are in, depending on whether they met. A fault of the sender, which it should hear of.
    """
    return _find(
        lake,
        """
        select source_id, event_id, count(distinct event_time) as times,
               min(event_time) as first, max(event_time) as last
        from bronze
        where verdict = 'valid' and ingest_date >= $since and event_time <> received_at
        group by source_id, event_id having count(distinct event_time) > 1
        """,
        since,
    )


def missing_events(lake: Lake, since: date) -> Finding:
    """Accepted events of bronze that silver does not have under any address."""
    return _find(
        lake,
        """
        select distinct b.source_id, b.event_id, b.kafka_partition, b.kafka_offset, b.kafka_index
        from bronze b
        left join border using (topic_id, kafka_partition)
        where b.verdict = 'valid' and b.ingest_date >= $since
          and b.kafka_offset < coalesce(border.next_offset, b.kafka_offset + 1)
          and (b.source_id, b.event_id) not in (select (source_id, event_id) from silver)
        """,
        since,
    )


def incomplete_blocks(lake: Lake, since: date) -> Finding:
    """Blocks of which bronze does not have as many events as the gateway counted, each once."""
    return _find(
        lake,
        """
        select block_id, kafka_partition, kafka_offset, count(*) as rows,
               count(distinct kafka_index) as indexes, any_value(block_events) as counted
        from bronze where ingest_date >= $since
        group by block_id, topic_id, kafka_partition, kafka_offset
        having count(*) <> count(distinct kafka_index) or count(*) <> max(kafka_index) + 1
            or count(*) <> coalesce(any_value(block_events), count(*))
        """,
        since,
    )


def lost_events(lake: Lake, since: date) -> Finding:
    """Events that a gateway counted and bronze lacks, and accepted ones that silver lacks."""
    blocks = incomplete_blocks(lake, since)
    events = missing_events(lake, since)
    return Finding(blocks.number + events.number, blocks.examples + events.examples)


def _find(lake: Lake, sql: str, since: date) -> Finding:
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        # The border first: silver, read after it, has all that lies below it.
        for name, spec in _VIEWS.items():
            snapshot = LakeTable(lake, spec).snapshot()
            connection.execute(f"create temp view {name} as {table_sql(spec, snapshot)}")
        used = {"since": since} if "$since" in sql else {}
        rows = connection.execute(
            f"select *, count(*) over () as findings from ({sql}) limit {_FINDINGS}", used
        ).to_arrow_table()
    found = rows.to_pylist()
    count = found[0]["findings"] if found else 0
    return Finding(count, [{k: v for k, v in row.items() if k != "findings"} for row in found])
