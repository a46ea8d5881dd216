"""Deletion by person: up to where Kafka held events when it was first looked at, landing has to come.

Kafka itself holds the bytes until its own retention deletes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from dc_platform.broker.client import describe_topic
from dc_platform.broker.reader import reader_for
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch_commit import app_id, epoch_of, in_epoch
from dc_platform.registry.retention import Deletion
from dc_platform.settings import Settings

Ends = dict[str, int]


def kafka_ends(settings: Settings) -> Ends:
    """App id of a partition in silver's log → the offset behind its last record now. Raises
    BrokerUnavailableError.
    """
    info = describe_topic(settings.kafka_bootstrap, settings.topic)
    if info is None:
        return {}
    reader = reader_for(settings.kafka_bootstrap, info, settings.kafka_client)
    try:
        ends = reader.end_offsets()
    finally:
        reader.close()
    return {app_id(SILVER_EVENTS, info, p): end for p, end in sorted(ends.items())}


def not_landed(settings: Settings, lake: Lake, ends: Mapping[str, int]) -> Callable[[], str | None]:
    """Says which partition has not landed as far as that; None: all have that there still are."""

    def look() -> str | None:
        silver = LakeTable(lake, SILVER_EVENTS)
        epoch = epoch_of(silver)
        landed = {app: silver.txn(in_epoch(app, epoch)) or 0 for app in ends}
        behind = {app: end for app, end in ends.items() if landed[app] < end}
        if not behind:
            return None
        # Of a topic that was deleted nothing will land any more.
        living = kafka_ends(settings)
        for app, end in behind.items():
            if app in living:
                partition = app.rsplit("/", 1)[-1]
                return f"partition {partition} has landed up to {landed[app]}, and Kafka held {end}"
        return None

    return look


def kept_of(deletion: Deletion) -> dict[str, Any]:
    """What may stay on record: who knows the value can tell that it was this one."""
    text = f"{deletion.deletion_id}/{deletion.predicate['value']}"
    return {
        "field": deletion.predicate["field"],
        "sha256 of deletion id/value": hashlib.sha256(text.encode()).hexdigest(),
    }
