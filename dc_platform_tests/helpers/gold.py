"""What gold has to be: computed row by row in Python from what silver and quarantine have."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from dc_platform.contracts.gold import DBT_TABLES, GOLD_TABLES, VALUE_LIMIT, GoldSpec
from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake.store import Lake
from dc_platform_tests.helpers.lake import read_table

Rows = list[tuple[Any, ...]]
_WIDE = Context(prec=60)
_UNIT = Decimal("1e-9")
_SILVER = "event_time, received_at, tenant_id, source_id, event_type, payload, sample_rate"


def columns(spec: GoldSpec) -> list[str]:
    """All columns but the version."""
    return [name for name in spec.columns.names if name != "silver_version"]


def gold(lake: Lake) -> dict[str, Rows]:
    """What the tables have."""
    return {
        spec.name: sorted(read_table(lake, spec, ", ".join(columns(spec))), key=repr)
        for spec in DBT_TABLES
    }


def expected(lake: Lake) -> dict[str, Rows]:
    """What they should have."""
    events = [_Event(*row) for row in read_table(lake, SILVER_EVENTS, _SILVER)]
    rejected = read_table(lake, SILVER_QUARANTINE, "received_at, tenant_id, source_id")
    hours = _hours(events)
    made = {
        "gold.events_hourly": hours,
        "gold.sources_daily": _sources(hours, events, rejected),
        "gold.event_types_top": _tops(hours),
    }
    return {
        spec.name: sorted(
            (tuple(row[name] for name in columns(spec)) for row in made[spec.name]), key=repr
        )
        for spec in DBT_TABLES
    }


class _Event:
    def __init__(
        self,
        event_time: datetime,
        received_at: datetime,
        tenant_id: str,
        source_id: str,
        event_type: str,
        payload: str | None,
        sample_rate: float,
    ) -> None:
        self.time = event_time
        self.hour = event_time.replace(minute=0, second=0, microsecond=0)
        self.day = event_time.date()
        self.source = (tenant_id, source_id)
        self.type = event_type
        self.late = received_at - event_time > timedelta(hours=1)
        self.bytes = len((payload or "").encode())
        sampled = 1e-9 < sample_rate < 1
        self.weight = _exact(1 / sample_rate) if sampled else Decimal(1)
        fields = _fields(payload)
        self.user = _user(fields.get("userId"), fields.get("user_id"))
        self.number = _number(fields.get("value"))


class _Number(str):
    """A JSON number as it was written."""


def _fields(payload: str | None) -> dict[str, Any]:
    """The members of an object; of a name that is there twice the first."""

    def first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(reversed(pairs))

    try:
        found = json.loads(
            payload or "", object_pairs_hook=first, parse_int=_Number, parse_float=_Number
        )
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, _Number) else None


def _user(*values: Any) -> str | None:
    for value in values:
        if isinstance(value, _Number):
            return str(float(value)) if set(value) & set(".eE") else str(value)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return value
    return None


def _exact(number: float) -> Decimal:
    return Decimal(repr(number)).quantize(_UNIT, ROUND_HALF_UP, context=_WIDE)


def _at(values: Sequence[float], percent: int) -> float | None:
    return values[(len(values) * percent + 99) // 100 - 1] if values else None


def _hours(events: Iterable[_Event]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[_Event]] = defaultdict(list)
    for event in events:
        groups[(event.hour, *event.source, event.type)].append(event)
    rows = []
    for (hour, tenant, source, type_), group in groups.items():
        numbers = [event.number for event in group if event.number is not None]
        values = sorted(n + 0.0 for n in numbers if abs(n) < VALUE_LIMIT)
        total = sum(map(_exact, values), Decimal(0)) if values else None
        rows.append(
            {
                "hour": hour,
                "tenant_id": tenant,
                "source_id": source,
                "event_type": type_,
                "event_count": _rounded(sum(event.weight for event in group)),
                "row_count": len(group),
                "weight": sum((event.weight for event in group), Decimal(0)),
                "unique_users": len({e.user for e in group} - {None}),
                "value_count": len(values),
                "value_outside": len(numbers) - len(values),
                "value_sum": total,
                "value_min": values[0] if values else None,
                "value_max": values[-1] if values else None,
                "value_avg": None if total is None else float(total) / len(values),
                "value_p50": _at(values, 50),
                "value_p95": _at(values, 95),
                "value_p99": _at(values, 99),
                "late_count": sum(event.late for event in group),
                "first_event_time": min(event.time for event in group),
                "last_event_time": max(event.time for event in group),
                "bytes": sum(event.bytes for event in group),
                "hour_date": hour.date(),
            }
        )
    return rows


def _rounded(number: Decimal | int) -> int:
    return math.floor(number + Decimal("0.5"))


def _sources(
    hours: list[dict[str, Any]], events: Iterable[_Event], rejected: Iterable[tuple[Any, ...]]
) -> list[dict[str, Any]]:
    of_hours = _grouped(hours, "hour_date", "tenant_id", "source_id")
    users: dict[Any, set[str | None]] = defaultdict(set)
    for event in events:
        users[(event.day, *event.source)].add(event.user)
    quarantined: dict[Any, int] = defaultdict(int)
    for received_at, tenant, source in rejected:
        quarantined[(received_at.astimezone(UTC).date(), tenant, source or "")] += 1
    rows = []
    for key in of_hours.keys() | quarantined.keys():
        group = of_hours.get(key, [])
        sums = {
            name: sum(row[name] for row in group)
            for name in ("event_count", "row_count", "late_count", "bytes")
        }
        rows.append(
            {
                **dict(zip(("hour_date", "tenant_id", "source_id"), key, strict=True)),
                **sums,
                "unique_users": len(users[key] - {None}),
                "event_types": len({row["event_type"] for row in group}),
                "quarantined_count": quarantined[key],
                "first_event_time": min((r["first_event_time"] for r in group), default=None),
                "last_event_time": max((r["last_event_time"] for r in group), default=None),
            }
        )
    return rows


def _tops(hours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for (day, tenant), group in _grouped(hours, "hour_date", "tenant_id").items():
        counts: dict[str, int] = defaultdict(int)
        for row in group:
            counts[row["event_type"]] += row["event_count"]
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0].encode()))
        for rank, (type_, count) in enumerate(ordered[:100], 1):
            rows.append(
                {
                    "tenant_id": tenant,
                    "rank": rank,
                    "event_type": type_,
                    "event_count": count,
                    "share": count / sum(counts.values()),
                    "hour_date": day,
                }
            )
    return rows


def _grouped(
    rows: Iterable[dict[str, Any]], *names: str
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def files(lake: Lake) -> dict[str, bytes]:
    """The data files of gold's tables, live or not."""
    return {
        f"{spec.name}/{entry.path}": bytes(lake.mapped(spec, entry.path) or b"")
        for spec in GOLD_TABLES
        for entry in lake.listing(spec, deep=True)
        if entry.path.endswith(".parquet") and not entry.path.startswith("_")
    }
