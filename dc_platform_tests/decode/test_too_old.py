"""Strangers' events before the floor in force at their Kafka timestamp are rejected, by every reader
alike, whenever they are judged.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from dc_platform.contracts.floors import Floor, Floors
from dc_platform.decode.columns import AnySource
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Policy, lines_of, read_lines
from dc_platform_tests.helpers.events import HOUR, NOW, some_uuid
from dc_platform_tests.helpers.records import (
    NEVER,
    SOURCE,
    TOPIC_ID,
    arrow,
    block,
    gateway_line,
    strange,
)

FLOOR = NOW - 240 * HOUR
# In force an hour ago: what came before it is judged as if it were not there.
FLOORS = Floors([Floor("default", "old", frozenset(), FLOOR, NOW - HOUR)])
POLICY = Policy(late_ms=NEVER, floors=FLOORS)
EVENTS: list[dict[str, Any]] = [
    {"sourceId": SOURCE, "eventType": kind, "timestamp": time, "eventId": some_uuid(n)}
    for n, (kind, time) in enumerate(
        [
            ("old", FLOOR - 1),
            ("old", FLOOR),
            ("other", FLOOR - 1),
            ("old", None),
            ("old", FLOOR + 1),
        ]
    )
]
VERDICTS = ["too_old", None, None, None, None]


def reasons(records: list[Any]) -> list[str | None]:
    judged = Decoder(TOPIC_ID, AnySource(), POLICY).decode(records)
    found: list[str | None] = judged["reason"].to_pylist()
    return found


def as_json(at_ms: int) -> Any:
    lines = [json.dumps({**e, "payload": {}}).encode() for e in EVENTS]
    return strange(b"\n".join(lines), timestamp_ms=at_ms)


def as_arrow(at_ms: int) -> Any:
    columns = {name: [event[name] for event in EVENTS] for name in EVENTS[0]}
    return arrow({**columns, "payload": ["{}"] * len(EVENTS)}, timestamp_ms=at_ms)


@pytest.mark.parametrize("record_of", [as_json, as_arrow])
def test_the_floor_in_force_at_the_kafka_timestamp_decides(record_of: Any) -> None:
    assert reasons([record_of(NOW)]) == VERDICTS
    assert reasons([record_of(NOW - HOUR)]) == VERDICTS
    assert reasons([record_of(NOW - HOUR - 1)]) == [None] * len(EVENTS)


def test_the_columns_say_what_the_strict_judge_says() -> None:
    records = [as_json(NOW)]
    options: dict[str, Any] = {"topic_id": TOPIC_ID, "sources": AnySource(), "policy": POLICY}
    strictly = read_lines(lines_of(records), records, **options)
    judged = Decoder(TOPIC_ID, AnySource(), POLICY).decode(records)
    assert judged.cast(strictly.schema).equals(strictly)


def test_what_a_gateway_accepted_stays_accepted() -> None:
    line = gateway_line(b'{"eventType":"old","payload":{},"timestamp":%d}' % (FLOOR - 1))
    assert reasons([block([line])]) == [None]
