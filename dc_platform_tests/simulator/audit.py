"""What the tables hold against what the clients were told. No look at how it got there.

The same sheet for a simulated lake and for a real one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from dc_platform.broker.records import TopicInfo
from dc_platform.contracts.ops_tables import GAPS
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.lake import audit, audit_identities
from dc_platform.lake.gaps import BEFORE_FIRST, EXPIRED
from dc_platform.lake.parquet import read_batches
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch_commit import app_id
from dc_platform_tests.helpers.records import SOURCE
from dc_platform_tests.simulator.client import Item
from dc_platform_tests.simulator.store import SimStore

_ADDRESS = ["topic_id", "kafka_partition", "kafka_offset", "kafka_index"]

Address = tuple[str, int, int, int]
# Topic id → (partition, offset) → events that Kafka has acknowledged there.
Acknowledged = Mapping[str, Mapping[tuple[int, int], list[Item]]]


class Living(NamedTuple):
    """The topic that landing reads, and the oldest offset of each partition."""

    info: TopicInfo
    begins: Mapping[int, int]


class Tables(NamedTuple):
    """What is needed of the rows of a lake."""

    bronze: list[tuple[Any, ...]]  # address
    silver: list[tuple[Any, ...]]  # source, id, topic
    quarantine: list[tuple[Any, ...]]  # source, hash, index, address
    gaps: list[tuple[Any, ...]]  # topic, partition, from, to, why


def findings(
    lake: Lake, sent: Acknowledged, living: Living, *, overlapped: bool = False
) -> list[str]:
    """What is wrong, with `lost:` or `doubled:` before it; nothing, if all is well.

    Of two landers at once (`overlapped`) one may name as lost what the other had in memory and landed.
    """
    specs = (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, GAPS)
    live = [path for spec in specs for path in LakeTable(lake, spec).snapshot().paths]
    missing = [path for path in live if not Path(path).exists()]
    if missing:
        return [f"lost: files in the log that are not there: {missing}"]
    tables = Tables(
        _rows(lake, BRONZE_EVENTS, _ADDRESS),
        _rows(lake, SILVER_EVENTS, ["source_id", "event_id", "topic_id"]),
        _rows(lake, SILVER_QUARANTINE, ["source_id", "request_hash", "request_index", *_ADDRESS]),
        _rows(lake, GAPS, ["topic_id", "kafka_partition", "from_offset", "to_offset", "why"]),
    )
    found = [
        *_twice("bronze", tables.bronze),
        *_twice("silver", [row[:2] for row in tables.silver]),
        *_twice("gaps", tables.gaps),
    ]
    tables.gaps.extend(_not_met(lake, living))
    landed, problems = _landed(tables, sent, living.info.topic_id, exact=not overlapped)
    found += problems
    found += _silver(landed, tables.silver, living.info.topic_id)
    found += _quarantine(landed, tables.quarantine, living.info.topic_id)
    holes = audit.offset_gaps(lake)
    return found + [f"audit: {e}" for e in holes.examples if e["why"] == "not covered"]


def own_audit(lake: Lake, *, topics: int = 1) -> list[str]:
    """What the platform's own checks find; they cost more than a simulated schedule."""
    checks = {
        "repeated": audit_identities.repeated_identities(lake, date.min),
        "lost records": audit.lost_records(lake),
        "incomplete": audit.incomplete_blocks(lake, date.min),
    }
    if topics == 1:
        checks["missing"] = audit_identities.missing_events(lake, date.min)
    return [f"audit, {name}: {f.examples[:3]}" for name, f in checks.items() if f.number]


def backwards(store: SimStore) -> Iterable[str]:
    """Offsets that went back."""
    for name, log in store.logs.items():
        at: dict[str, int] = {}
        for entry in log.entries:
            for app, offset in entry.txns.items():
                if offset < at.get(app, 0):
                    yield f"{name}: {app} went back from {at[app]} to {offset}"
                at[app] = offset
            for start, end in json.loads(entry.metadata.get("dcp.ranges", "{}")).values():
                if start > end:
                    yield f"{name}: version {entry.version} covers {start} to {end}"


def _not_met(lake: Lake, living: Living) -> list[tuple[Any, ...]]:
    """What is gone of partitions that never had a batch: it is named with their first one."""
    silver = LakeTable(lake, SILVER_EVENTS)
    return [
        (living.info.topic_id, number, 0, begin, BEFORE_FIRST)
        for number, begin in living.begins.items()
        if silver.txn(app_id(SILVER_EVENTS, living.info, number)) is None
    ]


def _rows(lake: Lake, spec: TableSpec, columns: list[str]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for path in LakeTable(lake, spec).snapshot().paths:
        for batch in read_batches(path, columns):
            rows += zip(*(batch.column(c).to_pylist() for c in columns), strict=True)
    return rows


def _twice(name: str, rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"doubled: {name} has {n} of {row}" for row, n in Counter(rows).items() if n > 1][:5]


Landed = list[tuple[tuple[int, int], Item]]


def _landed(
    tables: Tables, sent: Acknowledged, topic_id: str, *, exact: bool
) -> tuple[Landed, list[str]]:
    """The events of the living topic that bronze has, with their records' addresses; and what is
    neither there nor named, or there although it is named as lost, or there and was never sent.
    """
    landed: Landed = []
    problems = []
    bronze = set(tables.bronze)
    for (partition, offset), items in sent.get(topic_id, {}).items():
        named = [
            gap
            for gap in tables.gaps
            if gap[:2] == (topic_id, partition) and gap[2] <= offset < gap[3]
        ]
        there = [(topic_id, partition, offset, i) in bronze for i in range(len(items))]
        if all(there):
            landed += [((partition, offset), item) for item in items]
            if there and exact and any(gap[4] == EXPIRED for gap in named):
                problems.append(f"partition {partition}, offset {offset} is landed and in {named}")
        elif any(there):
            problems.append(f"lost: partition {partition}, offset {offset} in part: {there}")
        elif not named:
            problems.append(f"lost: partition {partition}, offset {offset}: {items}")
    addresses = {
        (topic, partition, offset, i)
        for topic, records in sent.items()
        for (partition, offset), items in records.items()
        for i in range(len(items))
    }
    strange = sorted(bronze - addresses)
    return landed, [*problems[:5], *(f"nobody sent {address}" for address in strange[:5])]


def _silver(landed: Landed, silver: list[tuple[Any, ...]], topic_id: str) -> list[str]:
    wanted = {str(item.event_id) for _, item in landed if item.valid}
    have = {row[1] for row in silver}
    ours = {row[1] for row in silver if row[2] == topic_id}
    problems = [f"lost: silver lacks {event_id}" for event_id in sorted(wanted - have)[:5]]
    problems += [f"silver has {event_id}, bronze not" for event_id in sorted(ours - wanted)[:5]]
    return problems + [f"of another source: {row}" for row in silver if row[0] != SOURCE][:5]


def _quarantine(landed: Landed, rows: list[tuple[Any, ...]], topic_id: str) -> list[str]:
    wanted = {(i.request_hash, i.index) for _, i in landed if i.request_hash is not None}
    requests = [row[1:3] for row in rows if row[0] == SOURCE]
    problems = _twice("quarantine", requests)
    problems += [f"lost: quarantine lacks {key}" for key in sorted(wanted - set(requests))][:5]
    nonsense = {address for address, item in landed if not item.valid and item.request_hash is None}
    of_address = [(row[4], row[5]) for row in rows if row[0] != SOURCE and row[3] == topic_id]
    problems += _twice("quarantine", of_address)
    if set(of_address) != nonsense:
        problems.append(f"quarantine's nonsense: {sorted(of_address)}, sent {sorted(nonsense)}")
    return problems
