"""The Arrow block in which a gateway sends rejected events to the topic, with their verdict.

Arrow, not NDJSON: rejected bytes may be anything, and there are few of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.tables import TIMESTAMP

# Of a body above the limit only so much is kept, with its length and SHA-256.
OVERSIZE_KEPT_BYTES = 64 * 1024
# And of an event or a body that could not be in a Kafka record (16 MiB) whole.
WHOLE_KEPT_BYTES = 10 * 2**20

REJECTS = pa.schema(
    [
        ("source_id", pa.string()),
        ("request_hash", pa.string()),
        ("request_index", pa.int32()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("raw", pa.binary()),
        ("raw_length", pa.int64()),
        ("raw_sha256", pa.string()),
        ("received_at", TIMESTAMP),
    ]
)


class Reject(NamedTuple):
    """One rejected event, or one rejected body (position 0). `judged_by`: a schema that refused it."""

    position: int
    reason: Reason
    message: str
    raw: bytes
    raw_length: int
    raw_sha256: str
    judged_by: str | None = None

    @classmethod
    def of(
        cls, position: int, reason: Reason, message: str, raw: bytes, judged_by: str | None = None
    ) -> Reject:
        """A reject that keeps its bytes, as many as a record can hold."""
        sha256 = hashlib.sha256(raw).hexdigest()
        return cls(position, reason, message, kept(raw), len(raw), sha256, judged_by)


def kept(raw: bytes) -> bytes:
    """What is kept of rejected bytes."""
    return raw if len(raw) <= WHOLE_KEPT_BYTES else raw[:OVERSIZE_KEPT_BYTES]


def encode_rejects(
    rejects: Sequence[Reject], *, source_id: str, request_hash: str, received_at_ms: int
) -> bytes:
    """The value of the Kafka record for the rejects of one request."""
    size = len(rejects)
    batch = pa.record_batch(
        [
            pa.array([source_id] * size, pa.string()),
            pa.array([request_hash] * size, pa.string()),
            pa.array([r.position for r in rejects], pa.int32()),
            pa.array([r.reason.value for r in rejects], pa.string()),
            pa.array([r.message for r in rejects], pa.string()),
            pa.array([r.raw for r in rejects], pa.binary()),
            pa.array([r.raw_length for r in rejects], pa.int64()),
            pa.array([r.raw_sha256 for r in rejects], pa.string()),
            pa.array([received_at_ms * 1000] * size, TIMESTAMP),
        ],
        schema=REJECTS,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, REJECTS) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
