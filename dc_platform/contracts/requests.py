"""A body to the events in it: `{"events": […]}` (design 4.1), an array, one event, or NDJSON."""

from __future__ import annotations

import msgspec

from dc_platform.contracts.envelope import Rejected, is_json, rejection_of
from dc_platform.contracts.reasons import Reason

_NDJSON_TYPES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)


class _Events(msgspec.Struct):
    events: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


_events = msgspec.json.Decoder(_Events)
_array = msgspec.json.Decoder(list[msgspec.Raw])


def events_of(content: bytes, content_type: str) -> list[bytes] | Rejected:
    """The bytes of each event, unjudged; or why there are none."""
    if content_type.split(";")[0].strip().lower() in _NDJSON_TYPES:
        return _lines(content)
    text = content.strip()
    if not text:
        return Rejected(Reason.MALFORMED_JSON, "the body is empty")
    try:
        if text[:1] == b"[":
            return [bytes(raw) for raw in _array.decode(text)]
        request = _events.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        lines = _lines(text)
        if len(lines) > 1 and is_json(lines[0]):
            # NDJSON under another content type: `curl --data-binary` sends it as a form
            return lines
        return _with_utf8(content) or rejection_of(error)
    if isinstance(request.events, msgspec.UnsetType):
        return [text]
    return [bytes(raw) for raw in request.events]


def _lines(content: bytes) -> list[bytes]:
    return [line for line in (raw.strip() for raw in content.split(b"\n")) if line]


def _with_utf8(content: bytes) -> Rejected | None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return rejection_of(error)
    return None
