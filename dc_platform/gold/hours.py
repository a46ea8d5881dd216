"""What the tables that Python builds have in common: their hours, weights and rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from dc_platform.contracts.fields import Parameters

# An event counts for those that sampling left out.
WEIGHT_SQL = "coalesce(try_cast(1 / sample_rate as decimal(38, 9)), 1)"


def each_hour(hours: Iterable[datetime]) -> Iterator[datetime]:
    """The hours (their beginnings, aware) once and in order, in UTC. One is built at a time: what is
    held in memory then belongs to one hour, and files of others are skipped by their statistics.
    """
    yield from sorted({hour.astimezone(UTC) for hour in hours})


def within(hour: datetime, parameters: Parameters) -> str:
    """The condition that an event lies in the hour."""
    first, end = parameters.name(hour), parameters.name(hour + timedelta(hours=1))
    return f"event_time >= {first} and event_time < {end}"


def rounded(condition: str) -> str:
    """The number of events for which the condition holds, sampling's left out counted."""
    return f"coalesce(round(sum(weight) filter ({condition})), 0)::bigint"


def of_hour(hour: datetime, silver_version: int) -> dict[str, Any]:
    """The columns that all rows of an hour share."""
    return {"hour": hour, "hour_date": hour.date(), "silver_version": silver_version}
