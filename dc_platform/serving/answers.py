"""Runs a query of design 4.2 and shapes its answer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from dc_platform.serving.engine import Engine
from dc_platform.serving.query import Compiled, Query
from dc_platform.serving.results import plain_rows
from dc_platform.serving.values import jsonable
from dc_platform.serving.view import View


def answer(engine: Engine, view: View, query: Query, *, tenant_id: str) -> dict[str, Any]:
    """`results`, `totalCount` (events that match, before the limit) and `executionTime` in ms."""
    begun = time.perf_counter()
    compiled = Compiled(query)
    results: list[dict[str, Any]] = []
    with engine.run_on_events(
        compiled.count.sql,
        view,
        tenant_id=tenant_id,
        parameters=compiled.count.parameters,
        from_us=compiled.from_us,
        to_us=compiled.to_us,
    ) as cursor:
        row = cursor.fetchone()
        total = int(row[0]) if row else 0
        for statement in compiled.statements:
            table = cursor.execute(statement.sql, statement.parameters).to_arrow_table()
            for batch in table.to_batches():
                results += plain_rows(batch) if query.aggregations else events_of(batch.to_pylist())
    return {
        "results": results,
        "totalCount": total,
        "executionTime": round((time.perf_counter() - begun) * 1000),
        **completeness(view),
    }


def completeness(view: View) -> dict[str, Any]:
    """Nothing for a complete view; else that it is not, and up to where it holds."""
    if view.complete:
        return {}
    return {"complete": False, "completeUpTo": view.up_to_ms}


def events_of(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of EVENT_COLUMNS as events of design 3.2."""
    events = []
    for row in rows:
        metadata = {
            "receivedAt": _ms(row["received_at"]),
            "processedAt": _ms(row["processed_at"]),
            "version": row["schema_version"],
            "tags": jsonable(row["tags"]) or {},
        }
        if row["flags"]:
            metadata["flags"] = row["flags"]
        event = {
            "eventId": row["event_id"],
            "sourceId": row["source_id"],
            "timestamp": _ms(row["event_time"]),
            "eventType": row["event_type"],
            "payload": msgspec.Raw(row["payload"].encode()),
            "metadata": metadata,
        }
        if row["client_event_id"] is not None:
            event["clientEventId"] = row["client_event_id"]
        events.append(event)
    return events


def _ms(value: Any) -> int | None:
    return None if value is None else round(value.timestamp() * 1000)
