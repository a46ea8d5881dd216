"""Answers a query of design 4.2: from the cache, from gold and the rest, or from all events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.fields import Parameters
from dc_platform.contracts.gold import EVENTS_HOURLY
from dc_platform.serving.engine import Engine
from dc_platform.serving.light import Light
from dc_platform.serving.plan import Plan, explained, plan
from dc_platform.serving.query import Compiled, Query, Statement, cursor_of
from dc_platform.serving.results import plain_rows
from dc_platform.serving.values import jsonable
from dc_platform.serving.view import View

# Of gold.events_hourly, as `hours` has them (`groupings.py`).
_HOURS = "hour as event_time, event_type, weight, row_count, first_event_time, last_event_time"


def answer(engine: Engine | Light, view: View, query: Query, *, tenant_id: str) -> dict[str, Any]:
    """`results`, `totalCount` (events that match, before the limit), `executionTime` in ms; where there
    are others `nextCursor` or `more`, and where it is asked for the `plan`. `Light` raises
    HeavyQueryError.
    """
    begun = time.perf_counter()
    compiled = Compiled(query, sampled=view.sampled)
    asked = _Asked(engine, view, tenant_id, explain=query.explain)
    content: dict[str, Any] = {"results": []}
    total: int | None = None
    for statement in compiled.statements if query.limit else ():
        table = asked.table(statement)
        total = _total(statement, table, query.limit) if total is None else total
        if table.num_rows > query.limit:
            table = table.slice(0, query.limit)
            content |= {"more": True} if query.aggregations else _next(table)
        elif not query.aggregations and query.cursor is None:
            # All events that match are on the page.
            total = table.num_rows
        names = list(statement.columns)
        table = table.select(range(len(names))).rename_columns(names)
        for batch in table.to_batches():
            rows = plain_rows(batch) if query.aggregations else events_of(batch.to_pylist())
            content["results"] += rows
    if total is None:
        total = asked.table(compiled.count).column(0)[0].as_py()
    content["totalCount"] = total
    content["executionTime"] = round((time.perf_counter() - begun) * 1000)
    if query.explain:
        content["plan"] = asked.shown()
    return {**content, **completeness(view)}


class _Asked:
    """The statements of a query over one view."""

    def __init__(
        self, engine: Engine | Light, view: View, tenant_id: str, *, explain: bool
    ) -> None:
        self._engine = engine
        self._view = view
        self._tenant_id = tenant_id
        self._explain = explain
        # One for all statements.
        self._until = engine.deadline()
        self._steps: list[dict[str, Any]] = []

    def table(self, statement: Statement) -> pa.Table:
        """What a statement gives."""
        cache = self._engine.answers
        key = cache.key(
            self._view,
            statement.from_us,
            statement.to_us,
            self._tenant_id,
            statement.sql,
            statement.parameters,
        )
        found = cache.get(key)
        hit = found is not None
        chosen = None if hit and not self._explain else self._plan(statement)
        begun = time.perf_counter()
        if found is None:
            found = self._run(statement, chosen)
            cache.put(key, found)
        if self._explain:
            seconds = time.perf_counter() - begun
            self._steps.append(self._step(statement, chosen, hit, seconds))
        return found

    def _plan(self, statement: Statement) -> Plan | str:
        if statement.parts is None:
            return statement.why or ""
        gold = self._engine.coverage(EVENTS_HOURLY).of(self._view.silver)
        return plan(self._view, gold, statement.from_us, statement.to_us)

    def _run(self, statement: Statement, chosen: Plan | str | None) -> pa.Table:
        if isinstance(chosen, Plan) and statement.parts is not None:
            parameters = Parameters(statement.parameters, tenant=self._tenant_id)
            columns = f"{_HOURS}, source_id" if statement.by_source else _HOURS
            if chosen.gold_alone and statement.hours is not None:
                sql_of = partial(chosen.hours_sql, statement.hours, columns)
            else:
                sql_of = partial(chosen.sql, statement.parts, columns, ())
            return self._engine.run_planned(
                sql_of,
                self._view,
                parameters,
                hourly=None if statement.by_source else chosen.gold.snapshot,
                gold_rows=chosen.gold_rows if chosen.gold_alone else None,
                until=self._until,
            )
        return self._engine.run_on_events(
            statement.sql,
            self._view,
            tenant_id=self._tenant_id,
            parameters=statement.parameters,
            from_us=statement.from_us,
            to_us=statement.to_us,
            equalities=statement.equalities,
            until=self._until,
        )

    # --- explain ---

    def _step(
        self, statement: Statement, chosen: Plan | str | None, hit: bool, seconds: float
    ) -> dict[str, Any]:
        return {
            "columns": list(statement.columns),
            "cache": "hit" if hit else "miss",
            "milliseconds": round(seconds * 1000, 3),
            **explained(self._view, chosen or "", statement.from_us, statement.to_us),
            **self._index(statement),
        }

    def _index(self, statement: Statement) -> dict[str, Any]:
        if not statement.equalities:
            return {}
        found = self._engine.found(
            self._view, statement.from_us, statement.to_us, statement.equalities
        )
        return {"index": found.shown()}

    def shown(self) -> dict[str, Any]:
        """The plan, as JSON."""
        return {
            "silverVersion": self._view.silver.version,
            "statements": self._steps,
        }


def _total(statement: Statement, table: pa.Table, limit: int) -> int | None:
    """How many events match, where the groups tell it."""
    if table.num_columns == len(statement.columns) or not table.num_rows:
        return None
    counts = table.column(table.num_columns - 1)
    if not statement.adds_up:
        return int(counts[0].as_py())
    return int(pc.sum(counts).as_py()) if table.num_rows <= limit else None


def _next(table: pa.Table) -> dict[str, Any]:
    """The cursor of what comes after the last event of a page."""
    last = table.slice(table.num_rows - 1).select(["event_time", "event_id", "source_id"])
    micros = last["event_time"].cast(pa.int64())[0].as_py()
    return {
        "nextCursor": cursor_of(micros, last["event_id"][0].as_py(), last["source_id"][0].as_py())
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
