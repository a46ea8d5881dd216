"""The verdict on one event: every reason, every bound, and nothing but the bytes decides."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from dc_platform.contracts.envelope import (
    MAX_DEPTH,
    MAX_TIMESTAMP_MS,
    MIN_TIMESTAMP_MS,
    Envelope,
    KnownEnvelope,
    Rejected,
    is_json,
    is_too_deep,
    judge_event,
)
from dc_platform.contracts.reasons import REMEDIES, Reason
from dc_platform_tests.helpers.events import HOUR, NOW, events

MAX_BYTES = 4096


def judge(
    line: bytes, *, max_bytes: int = MAX_BYTES, reference_ms: int = NOW
) -> Envelope | Rejected:
    return judge_event(line, reference_ms=reference_ms, future_limit_ms=HOUR, max_bytes=max_bytes)


def event(rest: str = "", *, payload: str = "{}", event_type: str = '"t"') -> bytes:
    return f'{{"eventType":{event_type},"payload":{payload}{rest}}}'.encode()


REJECTED = {
    # no JSON
    "empty": (b"", Reason.MALFORMED_JSON),
    "a word": (b"hello", Reason.MALFORMED_JSON),
    "cut off": (b'{"eventType":"t","payload":{', Reason.MALFORMED_JSON),
    "trailing comma": (event(","), Reason.MALFORMED_JSON),
    "trailing bytes": (event() + b"x", Reason.MALFORMED_JSON),
    "two events": (event() + event(), Reason.MALFORMED_JSON),
    "single quotes": (b"{'eventType':'t','payload':{}}", Reason.MALFORMED_JSON),
    "byte order mark": (b"\xef\xbb\xbf" + event(), Reason.MALFORMED_JSON),
    "NaN": (event(payload='{"a":NaN}'), Reason.MALFORMED_JSON),
    "Infinity": (event(payload='{"a":-Infinity}'), Reason.MALFORMED_JSON),
    "comment": (event(payload="{/* */}"), Reason.MALFORMED_JSON),
    "leading zero": (event(payload='{"a":01}'), Reason.MALFORMED_JSON),
    "bare point": (event(payload='{"a":1.}'), Reason.MALFORMED_JSON),
    "unknown escape": (event(payload='{"a":"\\q"}'), Reason.MALFORMED_JSON),
    "lone surrogate": (event(payload='{"a":"\\ud800"}'), Reason.MALFORMED_JSON),
    "lone surrogate in a key": (event(payload='{"\\udc00x":1}'), Reason.MALFORMED_JSON),
    "lone surrogate in an id": (event(',"eventId":"\\ud800"'), Reason.MALFORMED_JSON),
    "line break in a string": (event(payload='{"a":"x\ny"}'), Reason.MALFORMED_JSON),
    "NUL in a string": (event(payload='{"a":"x\x00y"}'), Reason.MALFORMED_JSON),
    "malformed unknown member": (event(',"x":[1,]'), Reason.MALFORMED_JSON),
    # not UTF-8
    "latin-1": ('{"eventType":"é","payload":{}}'.encode("latin-1"), Reason.NOT_UTF8),
    "not UTF-8 in the payload": (b'{"eventType":"t","payload":{"a":"\xff"}}', Reason.NOT_UTF8),
    "surrogate in UTF-8": (b'{"eventType":"t","payload":{"a":"\xed\xa0\x80"}}', Reason.NOT_UTF8),
    "overlong": (b'{"eventType":"t","payload":{},"x":"\xc0\xaf"}', Reason.NOT_UTF8),
    "UTF-16": (event().decode().encode("utf-16"), Reason.NOT_UTF8),
    # not an object
    "array": (b"[]", Reason.NOT_AN_OBJECT),
    "string": (b'"event"', Reason.NOT_AN_OBJECT),
    "number": (b"5", Reason.NOT_AN_OBJECT),
    "null": (b"null", Reason.NOT_AN_OBJECT),
    "event in an array": (b"[" + event() + b"]", Reason.NOT_AN_OBJECT),
    # missing
    "no members": (b"{}", Reason.MISSING_FIELD),
    "no eventType": (b'{"payload":{}}', Reason.MISSING_FIELD),
    "no payload": (b'{"eventType":"t"}', Reason.MISSING_FIELD),
    "wrong case": (b'{"eventtype":"t","payload":{}}', Reason.MISSING_FIELD),
    # wrong type
    "eventType null": (event(event_type="null"), Reason.WRONG_TYPE),
    "eventType number": (event(event_type="5"), Reason.WRONG_TYPE),
    "payload null": (event(payload="null"), Reason.WRONG_TYPE),
    "payload array": (event(payload="[{}]"), Reason.WRONG_TYPE),
    "payload string": (event(payload='"{}"'), Reason.WRONG_TYPE),
    "timestamp string": (event(f',"timestamp":"{NOW}"'), Reason.WRONG_TYPE),
    "timestamp float": (event(',"timestamp":1.5'), Reason.WRONG_TYPE),
    "timestamp whole float": (event(',"timestamp":1e3'), Reason.WRONG_TYPE),
    "timestamp bool": (event(',"timestamp":true'), Reason.WRONG_TYPE),
    "eventId number": (event(',"eventId":5'), Reason.WRONG_TYPE),
    "sourceId object": (event(',"sourceId":{}'), Reason.WRONG_TYPE),
    "metadata array": (event(',"metadata":[]'), Reason.WRONG_TYPE),
    "version number": (event(',"metadata":{"version":1}'), Reason.WRONG_TYPE),
    "tag number": (event(',"metadata":{"tags":{"a":1}}'), Reason.WRONG_TYPE),
    "tag null": (event(',"metadata":{"tags":{"a":null}}'), Reason.WRONG_TYPE),
    # out of range
    "empty eventType": (event(event_type='""'), Reason.VALUE_OUT_OF_RANGE),
    "long eventType": (event(event_type=f'"{"t" * 257}"'), Reason.VALUE_OUT_OF_RANGE),
    "empty eventId": (event(',"eventId":""'), Reason.VALUE_OUT_OF_RANGE),
    "long eventId": (event(f',"eventId":"{"i" * 129}"'), Reason.VALUE_OUT_OF_RANGE),
    "long sourceId": (event(f',"sourceId":"{"i" * 129}"'), Reason.VALUE_OUT_OF_RANGE),
    "long version": (
        event(f',"metadata":{{"version":"{"v" * 65}"}}'),
        Reason.VALUE_OUT_OF_RANGE,
    ),
    "before year 1": (event(f',"timestamp":{MIN_TIMESTAMP_MS - 1}'), Reason.VALUE_OUT_OF_RANGE),
    "after year 9999": (event(f',"timestamp":{MAX_TIMESTAMP_MS + 1}'), Reason.VALUE_OUT_OF_RANGE),
    "timestamp beyond 64 bits": (event(',"timestamp":' + "9" * 30), Reason.VALUE_OUT_OF_RANGE),
    # the rest
    "future": (event(f',"timestamp":{NOW + HOUR + 1}'), Reason.TIMESTAMP_IN_FUTURE),
    "too large": (event(payload='{"a":"' + "x" * MAX_BYTES + '"}'), Reason.EVENT_TOO_LARGE),
    "too deep": (
        event(payload='{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH),
        Reason.TOO_DEEP,
    ),
    "too deep in an unknown member": (
        event(',"x":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH),
        Reason.TOO_DEEP,
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_rejected_with_its_reason(name: str) -> None:
    line, reason = REJECTED[name]
    verdict = judge(line)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is reason, verdict.message
    assert verdict.message


def test_the_table_has_every_reason_that_an_event_alone_can_have() -> None:
    of_more_than_one_event = {
        Reason.BODY_TOO_LARGE,
        Reason.BAD_COMPRESSION,
        Reason.UNKNOWN_SOURCE,
        Reason.SOURCE_MISMATCH,
        Reason.UNSUPPORTED_CONTENT_TYPE,
        Reason.UNDECODABLE_BLOCK,
        # Policies decide it.
        Reason.TOO_OLD,
    }
    of_a_schema = {
        Reason.NOT_IN_ENUM,
        Reason.PATTERN_MISMATCH,
        Reason.WRONG_LENGTH,
        Reason.DROPPED_BY_RULE,
        Reason.FAILED_BY_RULE,
        Reason.SOURCE_FAILED,
    }
    found = {reason for _, reason in REJECTED.values()}
    assert found == set(Reason) - of_more_than_one_event - of_a_schema
    assert set(REMEDIES) == set(Reason)


ACCEPTED = {
    "least": event(),
    "white space": b' \n{ "eventType" : "t" ,\r\n "payload" : { } }\t',
    "nulls": event(',"eventId":null,"sourceId":null,"timestamp":null,"metadata":null'),
    "first moment": event(f',"timestamp":{MIN_TIMESTAMP_MS}'),
    "minus zero": event(',"timestamp":-0'),
    "as far ahead as may be": event(f',"timestamp":{NOW + HOUR}'),
    "longest names": event(
        f',"eventId":"{"é" * 128}","metadata":{{"version":"{"v" * 64}"}}',
        event_type='"' + "\U0001f600" * 256 + '"',
    ),
    "unknown members": event(',"x":1,"metadata":{"y":[1],"version":"2"}'),
    "huge numbers": event(payload='{"a":1e999,"b":' + "9" * 400 + "}"),
    "duplicate keys": event(',"payload":{"a":1},"payload":{"a":2}'),
    "escaped key": b'{"\\u0065ventType":"t","payload":{}}',
    "deepest": event(payload='{"a":' * (MAX_DEPTH - 1) + "1" + "}" * (MAX_DEPTH - 1)),
    "brackets in strings": event(payload='{"a":"' + '[{\\"' * 400 + '"}'),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    verdict = judge(ACCEPTED[name])
    assert isinstance(verdict, Envelope), verdict


def test_the_last_of_two_members_counts() -> None:
    verdict = judge(ACCEPTED["duplicate keys"])
    assert isinstance(verdict, Envelope)
    assert bytes(verdict.payload) == b'{"a":2}'


def test_an_event_of_exactly_the_limit_is_accepted() -> None:
    line = event(payload='{"a":"xyz"}')
    assert isinstance(judge(line, max_bytes=len(line)), Envelope)
    verdict = judge(line, max_bytes=len(line) - 1)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.EVENT_TOO_LARGE


def test_the_usual_event_takes_the_fast_way() -> None:
    assert isinstance(judge(event(',"metadata":{"tags":{"a":"b"}}')), KnownEnvelope)
    assert not isinstance(judge(event(',"x":1')), KnownEnvelope)
    assert not isinstance(judge(event(',"metadata":{"x":1}')), KnownEnvelope)


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, 600, 990, 5_000])
def test_depth_is_judged_alike_however_deep_the_caller_is(depth: int) -> None:
    """The interpreter's recursion limit counts the caller's frames; a verdict must not."""
    line = event(payload='{"a":' * depth + "1" + "}" * depth)

    def judged_under(frames: int) -> object:
        if frames:
            return judged_under(frames - 1)
        verdict = judge(line, max_bytes=10**6)
        return verdict if isinstance(verdict, Rejected) else bytes(verdict.payload)

    # pytest itself stands on some 60 frames; Dagster's asset body on about as many.
    assert judged_under(0) == judged_under(450)
    assert is_json(line) == (depth < MAX_DEPTH)


def test_only_brackets_outside_of_strings_are_deep() -> None:
    flat = b'{"a":[' + b",".join([b"[]"] * 2000) + b"]}"
    assert not is_too_deep(flat)
    assert not is_too_deep(b'{"a":"' + b'[\\"' * 2000 + b'"}')
    assert is_too_deep(b'{"a":"]]]\\"]]]",' + b'"b":' + b"[" * 300 + b"]" * 300 + b"}")


@given(events())
def test_every_well_formed_event_is_accepted(line: bytes) -> None:
    verdict = judge(line, max_bytes=10**6)
    assert isinstance(verdict, Envelope), verdict
    assert is_json(bytes(verdict.payload))
    plain = msgspec.json.decode(line)
    assert plain["eventType"] == verdict.eventType
    assert msgspec.json.decode(verdict.payload) == plain["payload"]
