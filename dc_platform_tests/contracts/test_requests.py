"""The shapes in which events come, and that every body is either events or a named rejection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.contracts.envelope import Envelope, Rejected, judge_event
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.requests import events_of
from dc_platform_tests.helpers.events import NOW, events, json_values

JSON = "application/json"
NDJSON = "application/x-ndjson"
A = b'{"eventType":"a","payload":{"n":1.10}}'
B = b'{"eventType": "b", "payload": {"deep": [{"}": "]"}]}}'
BROKEN = b'{"eventType":"a"'
content_types = st.sampled_from([JSON, NDJSON, "", "text/plain; charset=utf-8", ";", "\xff"])


@pytest.mark.parametrize(
    ("content", "content_type", "expected"),
    [
        (b'{"events": [%s, %s]}' % (A, B), JSON, [A, B]),
        (b' \n{"other": 1, "events":[%s]}\r\n' % A, JSON, [A]),
        (b'{"events": []}', JSON, []),
        (b'{"events": [1, null, "x", [%s]]}' % A, JSON, [b"1", b"null", b'"x"', b"[%s]" % A]),
        (b"[%s,\n%s]" % (A, B), JSON, [A, B]),
        (b"[]", JSON, []),
        (A, JSON, [A]),
        (b"\t" + A + b"\n", JSON, [A]),
        (b"{}", JSON, [b"{}"]),
        (A + b"\n" + B + b"\n", NDJSON, [A, B]),
        (b"\n\r\n" + A + b"\r\n\n " + B, NDJSON, [A, B]),
        (A, "application/jsonl; charset=utf-8", [A]),
        (A, "APPLICATION/X-NDJSON", [A]),
        (b"", NDJSON, []),
        # NDJSON is taken as it is: what is no JSON is one rejected event, not a rejected body.
        (A + b"\n" + BROKEN + b"\n\xff", NDJSON, [A, BROKEN, b"\xff"]),
        (b"[%s]" % A, NDJSON, [b"[%s]" % A]),
        # `curl --data-binary @file` says that it sends a form.
        (A + b"\n" + B, "application/x-www-form-urlencoded", [A, B]),
        (A + b"\n" + BROKEN, JSON, [A, BROKEN]),
    ],
)
def test_the_events_of_a_body(content: bytes, content_type: str, expected: list[bytes]) -> None:
    assert events_of(content, content_type) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.MALFORMED_JSON),
        (b" \n ", Reason.MALFORMED_JSON),
        (BROKEN, Reason.MALFORMED_JSON),
        (b'{"events": [%s]' % A, Reason.MALFORMED_JSON),
        (b'{"events": [%s,]}' % A, Reason.MALFORMED_JSON),
        (b"[%s" % A, Reason.MALFORMED_JSON),
        (b"[NaN]", Reason.MALFORMED_JSON),
        (b"{\n" + BROKEN + b"\n}", Reason.MALFORMED_JSON),
        (A + b" trailing", Reason.MALFORMED_JSON),
        (b'{"events": {}}', Reason.WRONG_TYPE),
        (b'{"events": null}', Reason.WRONG_TYPE),
        (b'"text"', Reason.NOT_AN_OBJECT),
        (b"7", Reason.NOT_AN_OBJECT),
        (b"\xff\xfe{}", Reason.NOT_UTF8),
        (b'{"events": [\xff]}', Reason.NOT_UTF8),
        (A.decode().encode("utf-16"), Reason.NOT_UTF8),
        (b"[" * 100_000 + b"]" * 100_000, Reason.TOO_DEEP),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, Reason.TOO_DEEP),
        (b"[" * 100_000, Reason.TOO_DEEP),
    ],
)
def test_a_body_without_events_is_refused_for_a_named_reason(
    content: bytes, reason: Reason
) -> None:
    found = events_of(content, JSON)
    assert isinstance(found, Rejected)
    assert found.reason is reason
    assert found.message


@given(st.lists(events(), min_size=1, max_size=4))
def test_every_shape_gives_the_same_events_byte_for_byte(sent: list[bytes]) -> None:
    assert events_of(b'{"events":[' + b",".join(sent) + b"]}", JSON) == sent
    assert events_of(b" [" + b" , ".join(sent) + b"\n]", "") == sent
    on_lines = [event.replace(b"\n", b" ").replace(b"\r", b" ") for event in sent]
    assert events_of(b"\r\n".join(on_lines), NDJSON) == on_lines


@given(st.lists(json_values.map(str.encode), max_size=5))
def test_any_values_stay_apart_and_in_order(values: list[bytes]) -> None:
    found = events_of(b'{"events":[' + b",".join(values) + b"]}", JSON)
    assert found == [value.strip() for value in values]


def judged(found: list[bytes]) -> None:
    for raw in found:
        verdict = judge_event(raw, reference_ms=NOW, future_limit_ms=3_600_000, max_bytes=100_000)
        assert isinstance(verdict, Envelope | Rejected)


@given(st.binary(max_size=200), content_types)
def test_any_bytes_are_events_or_a_rejection(content: bytes, content_type: str) -> None:
    found = events_of(content, content_type)
    if not isinstance(found, Rejected):
        judged(found)


@given(events(), st.data(), content_types)
def test_damaged_events_are_events_or_a_rejection(
    event: bytes, data: st.DataObject, content_type: str
) -> None:
    """Near misses: a byte changed, cut out or put in somewhere, in any shape."""
    shape = data.draw(st.sampled_from([b"%s", b"[%s]", b'{"events":[%s]}', b"%s\n%s"]))
    content = bytearray(shape.replace(b"%s", event))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        width = data.draw(st.integers(0, 1))
        content[at : at + width] = data.draw(st.binary(max_size=2))
        if not content:
            break
    found = events_of(bytes(content), content_type)
    if not isinstance(found, Rejected):
        judged(found)


@given(st.integers(1, 400), st.sampled_from([b"[", b'{"a":', b'[{"events":']))
def test_depth_is_judged_and_never_raised(depth: int, bracket: bytes) -> None:
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"events":': b"}]"}[bracket]
    for whole in (bracket * depth + b"0" + closing * depth, bracket * depth):
        found = events_of(b'{"eventType":"a","payload":{"x":' + whole + b"}}", JSON)
        if not isinstance(found, Rejected):
            judged(found)
