"""What the tables hold against what the client was told. No look at how it got there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    GAPS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    TableSpec,
)
from dc_platform.lake import audit
from dc_platform.lake.gaps import BEFORE_FIRST, EXPIRED
from dc_platform.lake.parquet import read_batches
from dc_platform.lake.table import LakeTable
from dc_platform.landing.commits import app_id
from dc_platform_tests.helpers.records import SOURCE
from dc_platform_tests.simulator.broker import SimBroker
from dc_platform_tests.simulator.client import Client, Item
from dc_platform_tests.simulator.store import SimLake, SimStore

_ADDRESS = ["topic_id", "kafka_partition", "kafka_offset", "kafka_index"]


def findings(store: SimStore, client: Client, broker: SimBroker, *, overlapped: bool) -> list[str]:
    """What is wrong; nothing, if all is well.

    Two landers at once (`overlapped`) may name a gap that one of them had in memory and still lands.
    """
    lake, topic_id = store.lake(), broker.info.topic_id
    found = list(_logs(store))
    missing = [
        p
        for spec in (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, GAPS)
        for p in LakeTable(lake, spec).snapshot().paths
        if not Path(p).exists()
    ]
    if missing:
        return [*found, f"files in the log that are not there: {missing}"]
    bronze = _rows(lake, BRONZE_EVENTS, _ADDRESS)
    silver = _rows(lake, SILVER_EVENTS, ["source_id", "event_id", "topic_id"])
    quarantine = _rows(
        lake, SILVER_QUARANTINE, ["source_id", "request_hash", "request_index", *_ADDRESS]
    )
    found += _twice("bronze", bronze)
    found += _twice("silver", [row[:2] for row in silver])
    gaps = _rows(lake, GAPS, ["topic_id", "kafka_partition", "from_offset", "to_offset", "why"])
    found += _twice("gaps", gaps)
    gaps += _not_met(lake, broker)
    landed, problems = _landed(client, topic_id, set(bronze), gaps, exact=not overlapped)
    found += problems
    found += _silver(landed, silver, topic_id)
    found += _quarantine(landed, quarantine, topic_id)
    holes = audit.offset_gaps(lake)
    found += [f"audit: {e}" for e in holes.examples if e["why"] == "not covered"]
    return found


def thorough(store: SimStore, client: Client, topic_id: str) -> list[str]:
    """What the platform's own audit says, too; it costs more than the schedule."""
    from datetime import date

    lake = store.lake()
    checks = {
        "repeated": audit.repeated_identities(lake, date.min),
        "lost records": audit.lost_records(lake),
        "incomplete": audit.incomplete_blocks(lake, date.min),
    }
    if len(client.acknowledged) == 1:
        checks["missing"] = audit.missing_events(lake, date.min)
    return [f"audit, {name}: {f.examples[:3]}" for name, f in checks.items() if f.number]


def _not_met(lake: SimLake, broker: SimBroker) -> list[tuple[Any, ...]]:
    """What is gone of partitions that never had a batch: it is named with their first one."""
    silver = LakeTable(lake, SILVER_EVENTS)
    return [
        (broker.info.topic_id, number, 0, part.begin, BEFORE_FIRST)
        for number, part in enumerate(broker.partitions)
        if silver.txn(app_id(SILVER_EVENTS, broker.info, number)) is None
    ]


def _logs(store: SimStore) -> Iterable[str]:
    """Offsets never go back, and silver's ranges follow each other."""
    for name, log in store.logs.items():
        at: dict[str, int] = {}
        for entry in log.entries:
            for app, offset in entry.txns.items():
                if offset < at.get(app, 0):
                    yield f"{name}: {app} went back from {at[app]} to {offset}"
                at[app] = offset
            if name == SILVER_EVENTS.name and "dcp.ranges" in entry.metadata:
                ranges = json.loads(entry.metadata["dcp.ranges"])
                if any(start > end for start, end in ranges.values()):
                    yield f"{name}: version {entry.version} covers {ranges}"


def _rows(lake: SimLake, spec: TableSpec, columns: list[str]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for path in LakeTable(lake, spec).snapshot().paths:
        for batch in read_batches(path, columns):
            rows += zip(*(batch.column(c).to_pylist() for c in columns), strict=True)
    return rows


def _twice(name: str, rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"{name} has {n} of {row}" for row, n in Counter(rows).items() if n > 1][:5]


def _landed(
    client: Client,
    topic_id: str,
    bronze: set[tuple[Any, ...]],
    gaps: list[tuple[Any, ...]],
    *,
    exact: bool,
) -> tuple[list[tuple[tuple[int, int], Item]], list[str]]:
    """The events of the living topic that bronze has, with their records' addresses; and what is
    neither there nor named, or there although it is named as lost, or there and was never sent.
    """
    landed: list[tuple[tuple[int, int], Item]] = []
    problems = []
    sent = client.acknowledged.get(topic_id, {})
    for (partition, offset), items in sent.items():
        named = [g for g in gaps if g[:2] == (topic_id, partition) and g[2] <= offset < g[3]]
        there = [(topic_id, partition, offset, i) in bronze for i in range(len(items))]
        if all(there):
            landed += [((partition, offset), item) for item in items]
            if there and exact and any(g[4] == EXPIRED for g in named):
                problems.append(f"partition {partition}, offset {offset} is landed and in {named}")
        elif any(there):
            problems.append(f"partition {partition}, offset {offset} landed in part: {there}")
        elif not named:
            problems.append(f"lost: partition {partition}, offset {offset}: {items}")
    addresses = {
        (t, p, o, i)
        for t, records in client.acknowledged.items()
        for (p, o), items in records.items()
        for i in range(len(items))
    }
    strange = bronze - addresses
    return landed, [*problems[:5], *(f"nobody sent {address}" for address in list(strange)[:5])]


def _silver(
    landed: list[tuple[tuple[int, int], Item]], silver: list[tuple[Any, ...]], topic_id: str
) -> list[str]:
    wanted = {item.event_id for _, item in landed if item.valid}
    have = {row[1] for row in silver}
    ours = {row[1] for row in silver if row[2] == topic_id}
    problems = [f"silver lacks {event_id}" for event_id in list(wanted - have)[:5]]
    problems += [f"silver has {event_id}, bronze not" for event_id in list(ours - wanted)[:5]]
    return problems + [f"another source: {r}" for r in silver if r[0] != SOURCE][:5]


def _quarantine(
    landed: list[tuple[tuple[int, int], Item]], rows: list[tuple[Any, ...]], topic_id: str
) -> list[str]:
    wanted = {(i.request_hash, i.index) for _, i in landed if i.request_hash is not None}
    requests = [r[1:3] for r in rows if r[0] == SOURCE]
    problems = _twice("quarantine", requests)
    problems += [f"quarantine lacks {key}" for key in wanted - set(requests)][:5]
    nonsense = {address for address, item in landed if not item.valid and item.request_hash is None}
    of_address = [(r[4], r[5]) for r in rows if r[0] != SOURCE and r[3] == topic_id]
    problems += _twice("quarantine", of_address)
    if set(of_address) != nonsense:
        problems.append(f"quarantine's nonsense: {sorted(of_address)}, sent {sorted(nonsense)}")
    return problems
