"""The canonical line: one line, valid JSON, the payload's bytes as they came, nothing forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.contracts.envelope import Envelope, judge_event
from dc_platform.contracts.lines import canonical_line
from dc_platform_tests.helpers.events import HOUR, NOW, TRAPS, client_ids, events

SOURCE = "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01"
EVENT = "11111111-2222-3333-4444-555555555555"
ENVELOPE = {"eventId", "sourceId", "timestamp", "eventType", "payload", "metadata"}
OURS = {"receivedAt", "processedAt", "clientEventId"}


def line_of(original: bytes, client_event_id: str | None = None) -> tuple[Envelope, bytes]:
    event = judge_event(original, reference_ms=NOW, future_limit_ms=HOUR, max_bytes=1 << 20)
    assert isinstance(event, Envelope), event
    line = canonical_line(
        event,
        original,
        source_id=SOURCE,
        event_id=EVENT,
        client_event_id=client_event_id,
        received_at_ms=NOW,
    )
    return event, line


def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refusing keys that stand twice."""
    assert len(items) == len(dict(items)), "a member stands twice"
    return dict(items)


@given(events(), st.none() | client_ids)
def test_a_line_says_what_the_event_said(original: bytes, client_event_id: str | None) -> None:
    _, line = line_of(original, client_event_id)
    assert b"\n" not in line
    assert b"\r" not in line
    sent = json.loads(original)
    kept = json.loads(line)
    metadata = kept["metadata"]
    assert kept["eventId"] == EVENT
    assert kept["sourceId"] == SOURCE
    assert kept["eventType"] == sent["eventType"]
    assert kept.get("timestamp") == sent.get("timestamp")
    assert kept["payload"] == sent["payload"]
    assert metadata["receivedAt"] == NOW
    assert metadata.get("clientEventId") == client_event_id
    sent_metadata = sent.get("metadata") or {}
    assert metadata.get("version") == sent_metadata.get("version")
    assert metadata.get("tags") == (sent_metadata.get("tags") or None)
    for name in sent.keys() - ENVELOPE:
        assert kept[name] == sent[name]
    for name in sent_metadata.keys() - OURS - {"version", "tags"}:
        assert metadata[name] == sent_metadata[name]


@given(events())
def test_the_payload_stands_last_byte_for_byte(original: bytes) -> None:
    event, line = line_of(original)
    payload = bytes(event.payload)
    assert payload in original
    one_line = payload.replace(b"\n", b" ").replace(b"\r", b" ")
    assert line.endswith(b',"payload":' + one_line + b"}")
    assert len(one_line) == len(payload)


@pytest.mark.parametrize(
    "payload",
    [
        '{"price":1.10,"big":1e999,"n":' + "7" * 60 + "}",
        '{"a":"\\u00e9\\/\\ud83d\\ude00 é","\\u0061":2,"a":3}',
        '{ "b" :\t[ 1 ,2 ] }',
        '{"nul":"\\u0000","lines":"x\\ny\\r"}',
    ],
)
def test_numbers_escapes_and_duplicate_keys_are_not_touched(payload: str) -> None:
    _, line = line_of(f'{{"eventType":"t","payload":{payload}}}'.encode())
    assert line.endswith(f',"payload":{payload}}}'.encode())


def test_line_breaks_between_tokens_become_spaces() -> None:
    _, line = line_of(b'{"eventType":"t","x":[1,\r\n2],"payload":\n{\n"a":\r\n"b\\nc"}}')
    assert line.endswith(
        b',"x":[1,  2],"metadata":{"receivedAt":%d},"payload":{ "a":  "b\\nc"}}' % NOW
    )


@pytest.mark.parametrize("trap", TRAPS)
def test_texts_that_look_like_the_payload_stay_texts(trap: str) -> None:
    text = json.dumps(trap, ensure_ascii=False)
    original = (
        f'{{"eventType":{json.dumps("t" + trap)},"metadata":{{"tags":{{{text}:{text}}}}},'
        f'"payload":{{{text}:{text}}}}}'
    ).encode()
    _, line = line_of(original, client_event_id=trap)
    kept = json.loads(line, object_pairs_hook=pairs)
    assert kept["payload"] == {trap: trap}
    assert kept["metadata"]["tags"] == {trap: trap}
    assert kept["metadata"]["clientEventId"] == trap
    # The first place where the mark stands is the payload: readers cut there.
    assert line.index(b',"payload":') == len(line) - len(f',"payload":{{{text}:{text}}}}}'.encode())


def test_a_client_cannot_set_what_the_gateway_sets() -> None:
    _, line = line_of(
        b'{"eventType":"t","payload":{},"eventId":"x","sourceId":"y",'
        b'"metadata":{"receivedAt":1,"processedAt":2,"clientEventId":"z","more":3}}'
    )
    kept = json.loads(line, object_pairs_hook=pairs)
    assert (kept["eventId"], kept["sourceId"]) == (EVENT, SOURCE)
    assert kept["metadata"] == {"receivedAt": NOW, "more": 3}
