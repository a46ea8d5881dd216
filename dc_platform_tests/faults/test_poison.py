"""Records that no reader can make sense of, beside good ones: each is kept with a typed reason and its
bytes, and landing goes on. So are payloads that change from one event to the next.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import lz4.frame
import pytest

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform_tests.faults.scene import SOURCE, Scene, event, ids
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.records import arrow_bytes

pytestmark = pytest.mark.kafka

ARROW = [("content-type", b"application/vnd.apache.arrow.stream")]
NDJSON = [("content-type", b"application/x-ndjson")]
MIB = 2**20
Headers = list[tuple[str, bytes]]


def poison() -> list[tuple[bytes, Headers, str]]:
    """(value, headers, reason); none has a line break, which would make several rows of it."""
    noise = Random(7).randbytes(3000).replace(b"\n", b"").replace(b"\r", b"")
    (event_id,) = ids(1)
    columns = {"eventId": [event_id], "sourceId": [SOURCE], "eventType": ["t"], "payload": ["{}"]}
    whole = arrow_bytes(columns)
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    head = f'{{"eventId":"{event_id}","sourceId":"{SOURCE}","eventType":"t","payload":'.encode()
    return [
        (noise, [], "not_utf8"),
        (noise, ARROW, "undecodable_block"),
        (whole[:-40], ARROW, "undecodable_block"),
        (arrow_bytes({"other": [1]}), ARROW, "undecodable_block"),
        (lz4.frame.compress(event(event_id))[:-9], NDJSON, "not_utf8"),
        (b'{"eventId":"\xff\xfe"}', [], "not_utf8"),
        (head + deep + b"}", [], "too_deep"),
        (b"[" * 100_000, [], "too_deep"),
        (head + b'{"n": NaN}}', [], "malformed_json"),
        (head + b"[1]}", [], "wrong_type"),
        (b"\x00", [], "malformed_json"),
        (b'"text"', [], "not_an_object"),
        (event(event_id), [("content-type", b"\xff\xfe/\x00")], "unsupported_content_type"),
        (b"1", [("dcp-block", b"\xff"), ("dcp-counts", b"{{{")], "not_an_object"),
        (event(event_id)[:-1] + b',"payload2"', NDJSON, "malformed_json"),
        (b"{}", [("dcp-block", b"g/b/1"), *NDJSON], "missing_field"),
    ]


def test_poison_is_kept_with_its_reason_and_its_neighbours_land(scene: Scene) -> None:
    producer = scene.producer()
    good, bad = [], poison()
    for number, (value, headers, _) in enumerate(bad):
        good += ids(2)
        producer.send(scene.topic, event(good[-2]), partition=number % 2)
        producer.send(scene.topic, value, headers=headers, partition=number % 2)
        producer.send(scene.topic, event(good[-1]), partition=number % 2)
    producer.close()
    scene.land()
    scene.assert_exact(good)
    expected = Counter((reason, value) for value, _, reason in bad)
    assert Counter((reason, raw) for reason, raw, _ in scene.rejected()) == expected


# --- too large ---


def large(event_id: str, size: int) -> bytes:
    """An event of about `size` bytes that do not compress."""
    return event(event_id, text=Random(size).randbytes(size // 2).hex())


def test_a_record_larger_than_a_batch_may_be_lands_alone(scene: Scene) -> None:
    """Each fills more than a whole batch (`landing_file_mb`), and a fetch (4 MiB)."""
    sent = ids(6)
    producer = scene.producer(max_request_size=16 * MIB)
    for number, event_id in enumerate(sent):
        value = large(event_id, 7 * MIB) if number % 2 else event(event_id)
        producer.send(scene.topic, value, partition=0).get(timeout=60)
    producer.close()
    totals = scene.land(landing_file_mb=0.25, max_event_bytes=10 * MIB)
    assert totals.commits >= 2
    scene.assert_exact(sent)


def test_the_largest_record_that_kafka_takes_is_kept_and_named(scene: Scene) -> None:
    too_large, before, after = ids(3)
    producer = scene.producer(max_request_size=16 * MIB)
    # The broker counts the batch's header as well.
    value = large(too_large, 16 * MIB - 400)
    producer.send(scene.topic, event(before), partition=0).get(timeout=60)
    producer.send(scene.topic, value, partition=0).get(timeout=60)
    producer.send(scene.topic, event(after), partition=0).get(timeout=60)
    producer.close()
    scene.land()
    scene.assert_exact([before, after])
    ((reason, raw, length),) = scene.rejected()
    assert (reason, length) == ("event_too_large", len(value))
    assert raw == value


# --- schema drift ---


def test_a_source_may_change_its_payload_from_one_event_to_the_next(scene: Scene) -> None:
    payloads = [
        '{"price": 1}',
        '{"price": "1.00"}',
        '{"price": 1.10, "currency": {"code": "EUR"}}',
        '{"price": [1, {"net": null}], "currency": "EUR"}',
        '{"price": 123456789012345678901234567890}',
        "{}",
    ]
    members = [
        '"metadata": {"version": "1"}',
        '"metadata": {"version": "2", "unknown": [1, 2]}',
        '"unknown": {"a": 1}, "metadata": {"version": "v3", "tags": {"a": "b"}}',
        '"metadata": null',
        '"Payload": 7',
        '"metadata": {}',
    ]
    sent = ids(len(payloads))
    producer = scene.producer()
    for event_id, payload, more in zip(sent, payloads, members, strict=True):
        text = f'{{"eventId":"{event_id}","sourceId":"{SOURCE}","eventType":"t",{more},"payload":'
        producer.send(scene.topic, f"{text}{payload}}}".encode(), partition=0)
    producer.close()
    scene.land()
    scene.assert_exact(sent)
    rows = read_table(scene.lake, SILVER_EVENTS, "event_id, payload, schema_version")
    assert [row[:2] for row in rows] == list(zip(sent, payloads, strict=True))
    assert [row[2] for row in rows] == ["1", "2", "v3", "1", "1", "1"]
    # What silver has no column for is in bronze's bytes.
    raw = {row[0]: row[1] for row in read_table(scene.lake, BRONZE_EVENTS, "event_id, raw")}
    for event_id, more in zip(sent, members, strict=True):
        assert more.encode() in raw[event_id]
