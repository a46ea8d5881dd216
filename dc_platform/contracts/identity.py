"""An event's identity is (source_id, event_id), for ever.

An id that a client gives is kept when it is a UUID in its usual form (lower-cased); any other text
becomes a name-based UUID (version 5, RFC 9562) in the source's namespace, and the text is kept as
`client_event_id`. The rules are functions of what a retry repeats and of nothing else, so that the
same event sent again, tomorrow or to another gateway, has the same identity.

`dedup_scope` says where a duplicate has to be looked for: within the hour of the client's own
timestamp, or, when there is none, within one of 256 buckets of the identity.
"""

import hashlib
import re
import uuid

HOUR_MS = 3_600_000
BUCKETS = 256
# Bucket scopes stand above all hour scopes: the last hour of the year 9999 is 70,389,527.
BUCKET_BASE = 1 << 30

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SOURCE_NAMESPACE = uuid.UUID("5f0c2f6e-6b0e-5a9b-8c64-3f1f3a1f6d10")


def canonical_uuid(text: str) -> str | None:
    """`text` in lower case when it is a UUID in the 8-4-4-4-12 form, else None."""
    return text.lower() if _UUID.fullmatch(text) else None


def source_namespace(source_id: str) -> uuid.UUID:
    """The UUID namespace of a source; a source id that is no UUID gets a derived one."""
    canonical = canonical_uuid(source_id)
    return uuid.UUID(canonical) if canonical else uuid.uuid5(_SOURCE_NAMESPACE, source_id)


def event_id_from_text(source_id: str, text: str) -> tuple[str, str | None]:
    """(event_id, client_event_id) for an id given by the client."""
    canonical = canonical_uuid(text)
    if canonical:
        return canonical, None
    return str(uuid.uuid5(source_namespace(source_id), text)), text


def event_id_from_key(source_id: str, idempotency_key: str, index: int) -> str:
    """The id of event `index` of a request with an `Idempotency-Key`.

    The key has a namespace of its own, so that no client id can collide with it.
    """
    key = uuid.uuid5(source_namespace(source_id), "idempotency-key:" + idempotency_key)
    return str(uuid.uuid5(key, str(index)))


def event_id_from_address(topic_id: str, partition: int, offset: int, index: int) -> str:
    """The id of a stranger's event that came without one: its address in Kafka."""
    return str(uuid.uuid5(uuid.UUID(topic_id), f"{partition}/{offset}/{index}"))


def dedup_scope(source_id: str, event_id: str, timestamp_ms: int | None) -> int:
    """Epoch hour of the client's timestamp, or `BUCKET_BASE` + bucket when it gave none."""
    if timestamp_ms is not None:
        return timestamp_ms // HOUR_MS
    return BUCKET_BASE + bucket(source_id, event_id)


def bucket(source_id: str, event_id: str) -> int:
    """First byte of the MD5 of the identity: the same in Python, DuckDB and Trino."""
    return hashlib.md5((source_id + event_id).encode(), usedforsecurity=False).digest()[0]


def quarantine_id(source_id: str, request_hash: str, index: int) -> str:
    """The identity of a rejected event: the same bytes, rejected again, are the same row."""
    return str(uuid.uuid5(source_namespace(source_id), f"rejected:{request_hash}:{index}"))
