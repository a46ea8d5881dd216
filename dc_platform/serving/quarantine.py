"""Quarantine for people: counts by reason, source and day, examples, one row with its bytes.

A row is `open` until somebody replays it, `replayed` when all events in it have got through, `failing`
when a replay found that some still do not pass.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dc_platform.contracts.reasons import REMEDIES, Reason
from dc_platform.serving.engine import Engine
from dc_platform.serving.view import View

State = Literal["open", "replayed", "failing"]

_EXCERPT_BYTES = 300
_STATES = """
    states as (
        select quarantine_id, if(bool_and(done), 'replayed', 'failing') as state
        from (
            select quarantine_id, event_index, bool_or(result <> 'rejected') as done
            from ops.replays group by all
        ) group by all
    ), found as (
        select q.*, coalesce(s.state, 'open') as state
        from silver.quarantine q left join states s using (quarantine_id)
    )
"""
_COUNTS = """
    with {states}
    select reason, source_id, ingest_date::varchar as day, state, count(*) as n
    from found where {where} group by all
"""
_EXAMPLES = """
    with {states}
    select quarantine_id, reason, message, source_id, epoch_ms(received_at) as received_ms,
           raw_length, hex(raw)[1:{excerpt}] as excerpt, state
    from found where {where} order by received_at desc, quarantine_id limit {limit}
"""
_ONE = """
    with {states}
    select *, epoch_ms(received_at) as received_ms, epoch_ms(processed_at) as processed_ms,
           ingest_date::varchar as day
    from found where quarantine_id = ?
"""
_REPLAYS = """
    select event_index, result, event_id, reason_now, message, epoch_ms(replayed_at) as replayed_ms,
           run, kafka_partition, kafka_offset, kafka_index
    from ops.replays where quarantine_id = ? order by replayed_at, event_index
"""


class Filters(BaseModel):
    """Which rows; what is left out does not choose. Days are ingest dates (UTC), both ends included."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    reason: Reason | None = None
    source: str | None = Field(default=None, max_length=128)
    schema_version: str | None = Field(default=None, alias="schemaVersion", max_length=64)
    state: State | None = None
    first: date | None = Field(default=None, alias="from")
    last: date | None = Field(default=None, alias="to")
    examples: int = Field(default=5, ge=0, le=200)

    def where(self) -> tuple[str, list[Any]]:
        """(condition, its parameters)."""
        chosen = [
            ("reason = ?", self.reason and self.reason.value),
            ("source_id = ?", self.source),
            ("schema_version = ?", self.schema_version),
            ("state = ?", self.state),
            ("ingest_date >= ?::date", self.first and self.first.isoformat()),
            ("ingest_date <= ?::date", self.last and self.last.isoformat()),
        ]
        given = [(condition, value) for condition, value in chosen if value is not None]
        return " and ".join([c for c, _ in given] or ["true"]), [value for _, value in given]


class Quarantine:
    """Quarantine at one moment, of one tenant."""

    def __init__(self, engine: Engine, view: View, tenant_id: str) -> None:
        self._engine = engine
        self._view = view
        self._tenant_id = tenant_id

    def summary(self, filters: Filters) -> dict[str, Any]:
        """Totals, groups (the largest first) and the newest examples."""
        where, parameters = filters.where()
        counts = self._rows(_COUNTS.format(states=_STATES, where=where), parameters)
        groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in counts:
            key = row["reason"], row["source_id"], row["day"]
            group = groups.setdefault(key, _group(*key))
            group["count"] += row["n"]
            group[row["state"]] += row["n"]
        ordered = sorted(
            groups.values(), key=lambda g: (-g["count"], g["day"], g["reason"], g["sourceId"] or "")
        )
        states = ("open", "replayed", "failing")
        totals = {name: sum(group[name] for group in ordered) for name in ("count", *states)}
        return {**totals, "groups": ordered, "examples": self._examples(filters)}

    def _examples(self, filters: Filters) -> list[dict[str, Any]]:
        if not filters.examples:
            return []
        where, parameters = filters.where()
        sql = _EXAMPLES.format(
            states=_STATES, where=where, excerpt=2 * _EXCERPT_BYTES, limit=filters.examples
        )
        return [
            {
                "quarantineId": row["quarantine_id"],
                "reason": row["reason"],
                "message": row["message"],
                "sourceId": row["source_id"],
                "receivedAt": row["received_ms"],
                "state": row["state"],
                "rawLength": row["raw_length"],
                "excerpt": bytes.fromhex(row["excerpt"]).decode("utf-8", "replace"),
            }
            for row in self._rows(sql, parameters)
        ]

    def one(self, quarantine_id: str) -> dict[str, Any] | None:
        """A row with its bytes and its replays; None when the tenant has no such row."""
        found = self._rows(_ONE.format(states=_STATES), [quarantine_id])
        if not found:
            return None
        row = found[0]
        raw: bytes = row["raw"]
        return {
            "quarantineId": row["quarantine_id"],
            "sourceId": row["source_id"],
            "reason": row["reason"],
            "message": row["message"],
            "remedy": REMEDIES[Reason(row["reason"])],
            "state": row["state"],
            "receivedAt": row["received_ms"],
            "processedAt": row["processed_ms"],
            "day": row["day"],
            "schemaVersion": row["schema_version"],
            "contentType": row["content_type"],
            "requestHash": row["request_hash"],
            "requestIndex": row["request_index"],
            "topicId": row["topic_id"],
            "partition": row["kafka_partition"],
            "offset": row["kafka_offset"],
            "index": row["kafka_index"],
            "rawLength": row["raw_length"],
            "rawSha256": row["raw_sha256"],
            "keptLength": len(raw),
            "text": _text(raw),
            "base64": base64.b64encode(raw).decode(),
            "replays": [_replay(r) for r in self._rows(_REPLAYS, [quarantine_id])],
        }

    def _rows(self, sql: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        rows = self._engine.run_named(
            sql, self._view, tenant_id=self._tenant_id, parameters=parameters
        )
        found: list[dict[str, Any]] = rows.to_pylist()
        return found


def _group(reason: str, source_id: str | None, day: str) -> dict[str, Any]:
    about = {"reason": reason, "sourceId": source_id, "day": day}
    return about | {"count": 0, "open": 0, "replayed": 0, "failing": 0}


def _text(raw: bytes) -> str | None:
    """The bytes as text; None when they are none."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _replay(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "position": row["event_index"],
        "result": row["result"],
        "eventId": row["event_id"],
        "reason": row["reason_now"],
        "message": row["message"],
        "replayedAt": row["replayed_ms"],
        "run": row["run"],
        "partition": row["kafka_partition"],
        "offset": row["kafka_offset"],
        "index": row["kafka_index"],
    }
