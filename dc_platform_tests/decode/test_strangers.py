"""Strangers' records: judged by their Kafka timestamp and by who was registered then."""

from __future__ import annotations

from typing import Any

import pytest

from dc_platform.contracts import blocks, identity
from dc_platform.contracts.reasons import Reason
from dc_platform.decode.columns import plain
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Policy
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.records import (
    SOURCE,
    TOPIC_ID,
    Registered,
    block,
    gateway_line,
    rows,
    strange,
)

HISTORY = {
    "s": ("tenant-s", NOW, NOW + 100),
    SOURCE: ("default", 0, None),
}
DECODER = Decoder(TOPIC_ID, Registered(HISTORY), Policy(HOUR, 500))


def judged(value: bytes, **more: Any) -> dict[str, Any]:
    [row] = rows(plain(DECODER.decode([strange(value, **more)])))
    return row


def event(source: str = "s", rest: str = "") -> bytes:
    return f'{{"sourceId":"{source}","eventType":"t","payload":{{}}{rest}}}'.encode()


@pytest.mark.parametrize(
    ("at", "known"),
    [(NOW - 1, False), (NOW, True), (NOW + 99, True), (NOW + 100, False), (NOW + 10**9, False)],
)
def test_a_source_counts_while_it_is_registered(at: int, known: bool) -> None:
    row = judged(event(), timestamp_ms=at)
    assert row["reason"] == (None if known else Reason.UNKNOWN_SOURCE)
    assert row["source_id"] == "s"
    if known:
        assert row["tenant_id"] == "tenant-s"


def test_a_source_id_is_needed() -> None:
    row = judged(b'{"eventType":"t","payload":{}}')
    assert (row["reason"], row["source_id"]) == (Reason.MISSING_FIELD, None)
    assert "sourceId" in row["message"]


def test_a_uuid_of_a_source_is_found_in_any_case() -> None:
    assert judged(event(SOURCE.upper()))["source_id"] == SOURCE


@pytest.mark.parametrize(("ahead", "fine"), [(HOUR, True), (HOUR + 1, False)])
def test_the_future_begins_after_the_record_not_after_the_clock(ahead: int, fine: bool) -> None:
    far = NOW + 10 * 365 * 24 * HOUR
    for at in (NOW, far):
        row = judged(event(SOURCE, f',"timestamp":{at + ahead}'), timestamp_ms=at)
        assert row["reason"] == (None if fine else Reason.TIMESTAMP_IN_FUTURE)


def test_a_gateway_has_judged_the_future_already() -> None:
    """The block may reach Kafka, or a restarted reader, at any later time."""
    line = gateway_line(b'{"eventType":"t","timestamp":%d,"payload":{}}' % (NOW + HOUR))
    for at in (0, NOW - 10 * HOUR, NOW + 10 * HOUR):
        [row] = rows(plain(DECODER.decode([block([line], timestamp_ms=at)])))
        assert row["verdict"] == blocks.VALID
        assert row["received_at"].timestamp() * 1000 == NOW


def test_an_event_without_an_id_is_its_address() -> None:
    lines = event(SOURCE) + b"\n" + event(SOURCE)
    found = rows(plain(DECODER.decode([strange(lines, 7, partition=3)])))
    assert [row["event_id"] for row in found] == [
        identity.event_id_from_address(TOPIC_ID, 3, 7, index) for index in (0, 1)
    ]
    other_topic = Decoder(SOURCE, Registered(HISTORY))
    elsewhere = rows(plain(other_topic.decode([strange(lines, 7, partition=3)])))
    assert {row["event_id"] for row in elsewhere}.isdisjoint(row["event_id"] for row in found)


def test_a_stranger_cannot_set_what_a_gateway_sets() -> None:
    row = judged(event(SOURCE, ',"metadata":{"receivedAt":1,"clientEventId":"x"}'))
    assert row["received_at"].timestamp() * 1000 == NOW
    assert row["client_event_id"] is None


def test_the_limit_holds_for_strangers_and_not_for_gateways() -> None:
    large = event(SOURCE).replace(b"{}", b'{"a":"' + b"x" * 600 + b'"}')
    assert judged(large)["reason"] == Reason.EVENT_TOO_LARGE
    [row] = rows(plain(DECODER.decode([block([gateway_line(large)])])))
    assert row["verdict"] == blocks.VALID


def test_the_version_of_an_event_goes_before_that_of_its_record() -> None:
    headers = {blocks.SCHEMA_VERSION: b"7"}
    for metadata, version in (
        ("", "7"),
        (',"metadata":{"version":"2"}', "2"),
        (',"metadata":{"version":""}', ""),
        (',"metadata":{"version":null}', "7"),
    ):
        assert judged(event(SOURCE, metadata), headers=headers)["schema_version"] == version
    assert judged(event(SOURCE))["schema_version"] == blocks.DEFAULT_SCHEMA_VERSION


def test_a_rejected_record_keeps_its_bytes() -> None:
    row = judged(b"  \xff\x00 nonsense\t ")
    assert row["raw"] == b"\xff\x00 nonsense"
    assert row["raw_length"] == len(row["raw"])
    assert (row["source_id"], row["tenant_id"]) == (None, "default")
