"""The canonical line: one accepted event as the gateway writes it into an NDJSON block.

It is an event of design 3.2 with the gateway's own fields in `metadata` and with `payload` last and
byte for byte as the client sent it (a line break between tokens becomes a space, so that a line
stays a line). Because the payload is last, a reader can cut it off without parsing it; because every
member is known, the rest is small.
"""

from __future__ import annotations

import msgspec

from dc_platform.contracts.envelope import Envelope, KnownEnvelope, Passed

_string = msgspec.json.Encoder().encode
_KNOWN = frozenset(Envelope.__struct_encode_fields__)
_KNOWN_METADATA = frozenset(
    {"version", "tags", "receivedAt", "processedAt", "clientEventId", "judgedBy", "flagged"}
)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def canonical_line(
    event: Envelope,
    original: bytes,
    *,
    source_id: str,
    event_id: str,
    client_event_id: str | None,
    received_at_ms: int,
    judged: Passed | None = None,
) -> bytes:
    """The line for `event`, which was decoded from `original`. `judged` is the verdict of a schema."""
    parts = [
        b'{"eventId":"',
        event_id.encode(),
        b'","sourceId":',
        _string(source_id),
    ]
    if event.timestamp is not None:
        parts += (b',"timestamp":', str(event.timestamp).encode())
    parts += (b',"eventType":', _string(event.eventType))
    extras, metadata_extras = _unknown_members(event, original)
    for name, value in extras:
        parts += (b",", _string(name), b":", value)
    parts += (b',"metadata":{"receivedAt":', str(received_at_ms).encode())
    if client_event_id is not None:
        parts += (b',"clientEventId":', _string(client_event_id))
    if event.metadata is not None:
        if event.metadata.version is not None:
            parts += (b',"version":', _string(event.metadata.version))
        if event.metadata.tags:
            parts += (b',"tags":', _string(event.metadata.tags))
    if judged is not None:
        parts += (b',"judgedBy":', _string(judged.judged_by))
        if judged.flags:
            parts += (b',"flagged":', _string(judged.flags))
    for name, value in metadata_extras:
        parts += (b",", _string(name), b":", value)
    parts += (b'},"payload":', bytes(event.payload), b"}")
    line = b"".join(parts)
    if b"\n" in line or b"\r" in line:
        # Outside of strings these are white space; inside a string JSON allows them only escaped.
        line = line.replace(b"\n", b" ").replace(b"\r", b" ")
    return line


Members = list[tuple[str, bytes]]


def _unknown_members(event: Envelope, original: bytes) -> tuple[Members, Members]:
    """Members that the envelope does not know: kept in the line, so that bronze loses nothing."""
    if isinstance(event, KnownEnvelope):
        return [], []
    members = _members.decode(original)
    extras = [(k, bytes(v)) for k, v in members.items() if k not in _KNOWN]
    if event.metadata is None:
        return extras, []
    metadata = _members.decode(members["metadata"])
    return extras, [(k, bytes(v)) for k, v in metadata.items() if k not in _KNOWN_METADATA]
