"""Many days of events as two gateways would have sent them: flights, and telemetry of a host."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from random import Random
from typing import Any

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import Envelope, judge_event
from dc_platform.contracts.lines import canonical_line
from dc_platform.demo import flights
from dc_platform.lake.store import Lake
from dc_platform_tests.helpers.landing import batch, committer

FLIGHTS = "11111111-2222-4333-8444-555555555555"
TELEMETRY = "66666666-7777-4888-8999-aaaaaaaaaaaa"
DAY_MS = 86_400_000
_BLOCK = 1_000


def days_of_events(
    first: datetime, days: int, per_day: int
) -> Iterator[tuple[datetime, list[bytes]]]:
    """Of each day its lines, half of them flights (their own day's, moved), half of them telemetry."""
    departures = cycle(flights.events())
    chance = Random(7)
    host = _Host(chance)
    for number in range(days):
        day = first + timedelta(days=number)
        start = int(day.timestamp() * 1000)
        lines = []
        for event in islice(departures, per_day // 2):
            moved = start + event["timestamp"] % DAY_MS
            given = {**event, "timestamp": moved, "eventId": f"{number}-{event['eventId']}"}
            lines.append(_line(FLIGHTS, given, moved + chance.randint(20, 2_000)))
        step = DAY_MS // max(1, per_day // 10)
        for at in range(start, start + DAY_MS, step):
            for kind, payload in host.reading():
                event = {"eventId": str(uuid.UUID(int=chance.getrandbits(128), version=4))}
                event |= {"timestamp": at, "eventType": kind, "payload": payload}
                lines.append(_line(TELEMETRY, event, at + chance.randint(5, 80)))
        yield day, lines


class _Host:
    """Readings as `demo.telemetry` takes them."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._sent = self._received = 10**9
        self._used = 6 * 10**9

    def reading(self) -> list[tuple[str, dict[str, Any]]]:
        chance = self._chance
        self._sent += chance.randint(1_000, 90_000)
        self._received += chance.randint(1_000, 400_000)
        self._used += chance.randint(-(2**20), 2**20)
        load = [round(chance.uniform(0.1, 2.5), 2) for _ in range(3)]
        return [
            ("cpu", {"core": 0, "percent": round(chance.uniform(1, 99), 1)}),
            ("cpu", {"core": 1, "percent": round(chance.uniform(1, 99), 1)}),
            ("memory", {"used_bytes": self._used, "percent": round(self._used / 16e9 * 100, 1)}),
            ("network", {"sent_bytes": self._sent, "received_bytes": self._received}),
            ("load", dict(zip(("m1", "m5", "m15"), load, strict=True))),
        ]


def _line(source: str, event: dict[str, Any], received: int) -> bytes:
    raw = json.dumps(event, separators=(",", ":")).encode()
    verdict = judge_event(raw, reference_ms=received, future_limit_ms=0, max_bytes=1 << 20)
    assert isinstance(verdict, Envelope), verdict
    event_id, client_id = identity.event_id_from_text(source, event["eventId"])
    return canonical_line(
        verdict,
        raw,
        source_id=source,
        event_id=event_id,
        client_event_id=client_id,
        received_at_ms=received,
    )


def land_days(lake: Lake, first: datetime, days: int, per_day: int, *, files: int = 4) -> int:
    """Land them, each day on its own ingest date in some files; gives the bytes of their JSON."""
    offset = raw = 0
    clock = [first]
    writer = committer(lake, [0], clock=lambda: clock[0], memory_mb=64)
    for day, lines in days_of_events(first, days, per_day):
        raw += sum(len(line) + 1 for line in lines)
        share = -(-len(lines) // files)
        for part in range(files):
            clock[0] = day + timedelta(hours=24 * (part + 1) / files - 0.5)
            records = []
            mine = lines[part * share : (part + 1) * share]
            for start in range(0, len(mine), _BLOCK):
                records.append(day_block(mine[start : start + _BLOCK], offset, clock[0]))
                offset += 1
            writer.land(batch(records))
    writer.close()
    return raw


def day_block(lines: list[bytes], offset: int, at: datetime) -> Record:
    """A gateway's block of lines."""
    headers = blocks.block_headers(
        blocks.BlockId("gateway-1", "b00t", offset),
        content_type=blocks.NDJSON,
        verdict=blocks.VALID,
        tenant="default",
        counts={FLIGHTS: len(lines)},
    )
    ms = int(at.astimezone(UTC).timestamp() * 1000)
    return Record(0, offset, ms, dict(headers), b"\n".join(lines))
