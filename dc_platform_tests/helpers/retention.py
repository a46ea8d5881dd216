"""Old and new events, policies, and runs of retention."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dc_platform.broker.records import Record
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.retention import Retention
from dc_platform.retention.run import RetentionRun
from dc_platform.settings import Settings
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.records import SOURCE, strange

DAY_MS = 86_400_000
# Floors follow the real clock: these are days before the start of the tests' process.
TODAY = int(datetime.now(UTC).timestamp() * 1000)


def days_ago(days: float) -> int:
    """A time, in epoch milliseconds."""
    return TODAY - int(days * DAY_MS)


def stranger(
    offset: int,
    *numbers: int,
    days: float,
    kind: str = "click",
    timed: bool = True,
    user: str = "u",
    partition: int = 0,
) -> Record:
    """A record of events that came in so many days ago, with that timestamp or without one."""
    lines = []
    for number in numbers:
        event: dict[str, Any] = {
            "sourceId": SOURCE,
            "eventId": some_uuid(number),
            "eventType": kind,
            "payload": {"userId": user, "n": number},
        }
        if timed:
            event["timestamp"] = days_ago(days)
        lines.append(json.dumps(event).encode())
    value = b"\n".join(lines)
    return strange(value, offset, partition=partition, timestamp_ms=days_ago(days))


def registry(directory: Path) -> Retention:
    """The retention part of a new registry."""
    url = f"sqlite:///{directory / 'registry.db'}"
    migrate(url)
    return Retention(Database(url))


def run_of(
    directory: Path,
    retention: Retention,
    *,
    reached: Callable[[str], None] = lambda point: None,
    **settings: Any,
) -> RetentionRun:
    """A run on the lake in `directory`/lake."""
    return RetentionRun(Settings(data_dir=directory, **settings), retention, reached=reached)


def policies(retention: Retention, days: dict[str, int]) -> None:
    """Policies by data type, of the default tenant."""
    for data_type, keep in days.items():
        retention.set_policy("default", data_type, retention_days=keep, archive_after_days=keep)


def ids(numbers: Sequence[int]) -> set[tuple[str, str]]:
    """Identities of events."""
    return {(SOURCE, some_uuid(number)) for number in numbers}
