"""What the tables that Python builds have in common: their hours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from dc_platform.contracts.fields import Parameters


def each_hour(hours: Iterable[datetime]) -> Iterator[datetime]:
    """The hours (their beginnings, aware) once and in order, in UTC. One is built at a time: what is
    held in memory then belongs to one hour, and files of others are skipped by their statistics.
    """
    yield from sorted({hour.astimezone(UTC) for hour in hours})


def within(hour: datetime, parameters: Parameters) -> str:
    """The condition that an event lies in the hour."""
    first = f"{parameters.name(hour)}::timestamptz"
    # Added there: the last hour of 9999 has no end that Python can name.
    return f"event_time >= {first} and event_time < {first} + interval 1 hour"


def of_hour(hour: datetime, silver_version: int) -> dict[str, Any]:
    """The columns that all rows of an hour share."""
    return {"hour": hour, "hour_date": hour.date(), "silver_version": silver_version}
