"""Kafka records as gateways and strangers write them, without Kafka."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import Envelope, Passed, judge_event
from dc_platform.contracts.lines import canonical_line
from dc_platform.contracts.rejects import Reject, encode_rejects
from dc_platform.contracts.schema_check import Rules
from dc_platform_tests.helpers.events import HOUR, NOW

TOPIC_ID = "7f6c2f6e-6b0e-4a9b-8c64-3f1f3a1f6d10"
# For tests that compare readers: lateness is added to what each of them gives.
NEVER = 1 << 50
SOURCE = "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01"


def gateway_line(
    event: bytes,
    *,
    source_id: str = SOURCE,
    key: str | None = None,
    judged: Passed | None = None,
) -> bytes:
    """An accepted event as `gateway.ingest` writes it."""
    verdict = judge_event(event, reference_ms=NOW, future_limit_ms=HOUR, max_bytes=1 << 20)
    assert isinstance(verdict, Envelope), verdict
    if verdict.eventId is not None:
        event_id, client_id = identity.event_id_from_text(source_id, verdict.eventId)
    elif key is not None:
        event_id, client_id = identity.event_id_from_key(source_id, key, 0), None
    else:
        event_id, client_id = str(uuid.uuid5(uuid.UUID(TOPIC_ID), repr(event))), None
    return canonical_line(
        verdict,
        event,
        source_id=source_id,
        event_id=event_id,
        client_event_id=client_id,
        received_at_ms=NOW,
        judged=judged,
    )


def block(
    lines: Sequence[bytes],
    offset: int = 0,
    *,
    partition: int = 0,
    timestamp_ms: int = NOW,
    tenant: str = "default",
    batch_id: str | None = None,
    counts: Mapping[str, int] | None = None,
) -> Record:
    """A gateway's block of accepted events."""
    headers = blocks.block_headers(
        blocks.BlockId("gateway-1", "b00t", offset),
        content_type=blocks.NDJSON,
        verdict=blocks.VALID,
        tenant=tenant,
        counts=dict(counts or {SOURCE: len(lines)}),
        batch_id=batch_id,
    )
    return Record(partition, offset, timestamp_ms, dict(headers), b"\n".join(lines))


def rejects_block(
    rejects: Sequence[Reject],
    offset: int = 0,
    *,
    partition: int = 0,
    source_id: str = SOURCE,
    request_hash: str = "ab" * 32,
    timestamp_ms: int = NOW,
) -> Record:
    """A gateway's block of rejected events."""
    headers = blocks.block_headers(
        blocks.BlockId("gateway-1", "b00t", offset),
        content_type=blocks.ARROW,
        verdict=blocks.REJECTED,
        tenant="default",
        counts={source_id: len(rejects)},
    )
    value = encode_rejects(
        rejects, source_id=source_id, request_hash=request_hash, received_at_ms=NOW
    )
    return Record(partition, offset, timestamp_ms, dict(headers), value)


def strange(
    value: bytes,
    offset: int = 0,
    *,
    partition: int = 0,
    timestamp_ms: int = NOW,
    content_type: str | None = None,
    headers: Mapping[str, bytes] | None = None,
) -> Record:
    """A record that anyone may have written."""
    all_headers = dict(headers or {})
    if content_type is not None:
        all_headers[blocks.CONTENT_TYPE] = content_type.encode()
    return Record(partition, offset, timestamp_ms, all_headers, value)


def arrow(columns: Mapping[str, Any] | pa.Table, offset: int = 0, **more: Any) -> Record:
    """A stranger's record of Arrow columns."""
    return strange(arrow_bytes(columns), offset, content_type=blocks.ARROW, **more)


def arrow_bytes(columns: Mapping[str, Any] | pa.Table) -> bytes:
    """An Arrow IPC stream."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a judged table, whatever reader made it."""
    found: list[dict[str, Any]] = table.to_pylist()
    return found


class Registered:
    """Sources with a history: source → (tenant, from, until); `rules` are the same at any time."""

    def __init__(
        self,
        history: Mapping[str, tuple[str, int, int | None]],
        rules: Mapping[str, Rules] | None = None,
    ) -> None:
        self.history = dict(history)
        self.rules = dict(rules or {})

    def tenant_of(self, source_id: str, at_ms: int) -> str | None:
        """The tenant of a source that was registered at `at_ms`, else None."""
        found = self.history.get(source_id)
        if found is None:
            return None
        tenant, begun, ended = found
        return tenant if begun <= at_ms and (ended is None or at_ms < ended) else None

    def rules_of(self, source_id: str, at_ms: int) -> Rules | None:
        """What is asked of the source's events."""
        return self.rules.get(source_id)
