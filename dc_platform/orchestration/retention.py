"""The check `retention_guard`: an alarm before Kafka deletes what has not landed.

What was deleted all the same is in `ops.gaps` once landing goes on (`no_offset_gaps` names it).
"""

from __future__ import annotations

import time
from typing import Any

import dagster as dg

from dc_platform.broker.client import describe_topic
from dc_platform.broker.retention import held, retention_of
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import PlatformError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch_commit import next_offset
from dc_platform.landing.retention import Risk, risk_of
from dc_platform.orchestration.assets import BRONZE_KEY
from dc_platform.settings import Settings, settings

_WARN, _ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
_SILENT = "cannot tell what Kafka will delete: the partition did not answer within 10 s"


class RetentionGuard:
    """As `checks.Promise`; its severity depends on what it finds."""

    name = "retention_guard"
    asset = BRONZE_KEY
    description = (
        "What has not landed is far from being deleted by Kafka: less than DCP_RETENTION_WARN of the"
        " topic's retention.ms and retention.bytes is used up (a warning; an error from"
        " DCP_RETENTION_ERROR on). When it fails: let landing run (is the landing sensor on?), or"
        " raise retention.ms of the topic."
    )

    def evaluate(self, now_ms: int | None = None) -> dict[str, Any]:
        """The fields that a result and a reported evaluation have in common."""
        configured = settings()
        try:
            risks, silent, compacted = _look(configured, now_ms or time.time_ns() // 1_000_000)
        except PlatformError as error:
            return _failed(1, _WARN, [{"why": f"cannot tell what Kafka will delete: {error}"}])
        metadata = {f"hours left ({risk.partition})": _hours(risk) for risk in risks}
        metadata |= {f"hours left ({partition})": "unknown" for partition in silent}
        if compacted:
            why = "compaction deletes records with the same key: set cleanup.policy=delete"
            return _failed(1, _ERROR, [{"why": why}], metadata)
        found = [risk for risk in risks if risk.used > configured.retention_warn]
        worst = max((risk.used for risk in found), default=0.0)
        severity = _ERROR if worst > configured.retention_error else _WARN
        examples = [{**risk._asdict(), "used": round(risk.used, 3)} for risk in found]
        examples += [{"partition": partition, "why": _SILENT} for partition in silent]
        return _failed(len(examples), severity, examples, metadata)


def _failed(
    number: int,
    severity: dg.AssetCheckSeverity,
    examples: list[dict[str, Any]],
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "passed": number == 0,
        "severity": severity,
        "metadata": {
            "findings": number,
            "examples": dg.MetadataValue.json(examples),
            **(metadata or {}),
        },
    }


def _hours(risk: Risk) -> Any:
    return "no limit" if risk.hours_left is None else round(risk.hours_left, 2)


def _look(configured: Settings, now_ms: int) -> tuple[list[Risk], list[int], bool]:
    """The risk of each partition, those that did not say how old theirs is, and whether the topic is
    compacted.
    """
    bootstrap = configured.kafka_bootstrap
    info = describe_topic(bootstrap, configured.topic)
    if info is None:
        return [], [], False
    silver = None
    lake = Lake(configured.lake)
    if lake.exists(SILVER_EVENTS):
        silver = LakeTable(lake, SILVER_EVENTS)
    borders = {}
    for partition in range(info.partitions):
        border = next_offset(silver, info, partition) if silver else None
        if border is not None:
            borders[partition] = border
    retention = retention_of(bootstrap, configured.topic)
    found = held(bootstrap, info, borders)
    # A partition that never landed begins where Kafka begins.
    risks = [
        risk_of(p, borders.get(p, has.begin), has, retention, now_ms) for p, has in found.items()
    ]
    # Of a silent partition it is known all the same when something is gone already.
    silent = [risk.partition for risk in risks if not (found[risk.partition].answered or risk.lost)]
    known = [risk for risk in risks if risk.partition not in silent]
    return known, silent, retention.compacted
