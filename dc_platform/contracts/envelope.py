"""The envelope of an event (design 3.2) and the judgement of one event, which is a pure function.

`judge_event` is the specification of what is accepted: the gateway calls it for every event of a
request, landing for every record that a stranger wrote. It looks at bytes, a limit and a reference
time, never at a clock.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from dc_platform.contracts.reasons import Reason

MAX_EVENT_TYPE_LENGTH = 256
MAX_ID_LENGTH = 128
MAX_VERSION_LENGTH = 64
# msgspec stops at the interpreter's recursion limit (about 1,000 less the frames of whoever calls),
# so without a limit of our own the same bytes would be judged differently by gateway and landing.
MAX_DEPTH = 256
# The years 1 to 9999, the range of every engine that reads the tables.
MIN_TIMESTAMP_MS = -62_135_596_800_000
MAX_TIMESTAMP_MS = 253_402_300_799_999

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
Version = Annotated[str, Meta(max_length=MAX_VERSION_LENGTH)]
EventType = Annotated[str, Meta(min_length=1, max_length=MAX_EVENT_TYPE_LENGTH)]
TimestampMs = Annotated[int, Meta(ge=MIN_TIMESTAMP_MS, le=MAX_TIMESTAMP_MS)]


class Metadata(msgspec.Struct):
    """The part of `metadata` that a client may set; other members stay in bronze."""

    version: Version | None = None
    tags: dict[str, str] | None = None


class Envelope(msgspec.Struct):
    """One event as a client sends it. `payload` keeps its bytes."""

    eventType: EventType  # noqa: N815
    payload: msgspec.Raw
    eventId: Id | None = None  # noqa: N815
    sourceId: Id | None = None  # noqa: N815
    timestamp: TimestampMs | None = None
    metadata: Metadata | None = None


class _KnownMetadata(Metadata, forbid_unknown_fields=True):
    pass


class KnownEnvelope(Envelope, forbid_unknown_fields=True):
    """An event with nothing but the envelope's own members: the usual case, and the fast one."""

    metadata: _KnownMetadata | None = None


class Rejected(NamedTuple):
    """Why an event is not accepted. `message` names the field; `judged_by` the version of a schema
    (schemaId/version) that refuses it.
    """

    reason: Reason
    message: str
    judged_by: str | None = None


class Passed(NamedTuple):
    """An event that a schema accepts: the version that judged it (schemaId/version), and its flags."""

    judged_by: str
    flags: tuple[str, ...] = ()


_known_decoder = msgspec.json.Decoder(KnownEnvelope)
_decoder = msgspec.json.Decoder(Envelope)
_any_decoder = msgspec.json.Decoder(msgspec.Raw)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def judge_event(
    line: bytes, *, reference_ms: int, future_limit_ms: int, max_bytes: int
) -> Envelope | Rejected:
    """The verdict on one event.

    `reference_ms` is the time against which "in the future" is measured: when the gateway received
    the event, or the Kafka timestamp of a stranger's record.
    """
    if len(line) > max_bytes:
        return Rejected(
            Reason.EVENT_TOO_LARGE, f"event has {len(line)} bytes, the limit is {max_bytes}"
        )
    try:
        # msgspec leaves the bytes inside Raw and in skipped members unchecked
        line.decode()
        if is_too_deep(line):
            return Rejected(Reason.TOO_DEEP, f"JSON is nested more than {MAX_DEPTH} levels deep")
        event = _decode(line)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        return rejection_of(error)
    if not bytes(event.payload).startswith(b"{"):
        return Rejected(Reason.WRONG_TYPE, "Expected `object` - at `$.payload`")
    if event.timestamp is not None and event.timestamp > reference_ms + future_limit_ms:
        ahead = (event.timestamp - reference_ms) // 1000
        return Rejected(
            Reason.TIMESTAMP_IN_FUTURE,
            f"timestamp is {ahead} s ahead, the limit is {future_limit_ms // 1000} s",
        )
    return event


def _decode(line: bytes) -> Envelope:
    try:
        return _known_decoder.decode(line)
    except msgspec.ValidationError:
        # an unknown member, or a real fault, which the second decoder then names
        return _decoder.decode(line)


def rejection_of(error: Exception) -> Rejected:
    """The typed reason behind an error of the decoder."""
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        return Rejected(Reason.NOT_UTF8, f"not UTF-8: {error.reason} at byte {error.start}")
    if isinstance(error, RecursionError):
        return Rejected(Reason.TOO_DEEP, f"JSON is nested more than {MAX_DEPTH} levels deep")
    if not isinstance(error, msgspec.ValidationError):
        return Rejected(Reason.MALFORMED_JSON, text)
    if "missing required field" in text:
        return Rejected(Reason.MISSING_FIELD, text)
    if text.startswith("Expected `object`") and " at `$." not in text:
        return Rejected(Reason.NOT_AN_OBJECT, text)
    if (
        " of length " in text
        or "`int` <= " in text
        or "`int` >= " in text
        or "out of range" in text
    ):
        return Rejected(Reason.VALUE_OUT_OF_RANGE, text)
    return Rejected(Reason.WRONG_TYPE, text)


def is_json(value: bytes, *, max_depth: int = MAX_DEPTH) -> bool:
    """Whether `value` is exactly one JSON value (strictly: no NaN, no trailing comma), nested no
    deeper than `max_depth`.
    """
    try:
        _any_decoder.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return False
    return not is_too_deep(value, max_depth)


def is_payload(value: bytes) -> bool:
    """Whether `value` is JSON that an event can have as its payload (if it is an object)."""
    return is_json(value, max_depth=MAX_DEPTH - 1)


def is_too_deep(value: bytes, max_depth: int = MAX_DEPTH) -> bool:
    """Whether the brackets of `value` that are not in strings are nested beyond `max_depth`."""
    # What is nested so deeply and closed again has twice as many bytes.
    if len(value) <= 2 * max_depth or value.count(b"{") + value.count(b"[") <= max_depth:
        return False
    brackets = np.frombuffer(_STRING.sub(b"", value).translate(None, _NO_BRACKET), np.uint8)
    steps = np.where((brackets == ord("{")) | (brackets == ord("[")), 1, -1)
    return bool(len(steps)) and int(steps.cumsum().max()) > max_depth
