"""Strict reader of single lines: records that anyone wrote, and gateway lines that look odd.

A stranger's record is JSON text: one event of design 3.2, or several as NDJSON. Each is judged by
`contracts.envelope.judge_event` against the record's Kafka timestamp, and its source has to be
registered at that time. What is not accepted becomes a rejected row with all of its bytes. At 7 µs an
event it is the specification; `decode.json_columns` reads what is plainly acceptable, three times as
fast and alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from dc_platform.broker.records import Record, Records
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import (
    Envelope,
    Passed,
    Rejected,
    TimestampMs,
    is_json,
    judge_event,
)
from dc_platform.contracts.floors import NO_FLOORS, KnownFloors, too_old
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.tables import JUDGED
from dc_platform.decode.columns import (
    KnownSources,
    constant,
    header,
    judged_table,
    plain,
    record_columns,
)

_NO_LIMIT = 1 << 62
# White space of JSON: what else Python strips would change whether a text is JSON.
JSON_SPACE = b" \t\r\n"


@dataclass(frozen=True)
class Policy:
    """The limits that a verdict and its flags depend on, beside the record itself."""

    future_limit_ms: int = 3_600_000
    max_event_bytes: int = 2**20
    # What came longer than this after its own time has the flag `late`.
    late_ms: int = 3_600_000
    floors: KnownFloors = NO_FLOORS


class GatewayMetadata(msgspec.Struct):
    """What a gateway adds to `metadata` of a canonical line."""

    receivedAt: TimestampMs | None = None  # noqa: N815
    clientEventId: str | None = None  # noqa: N815
    judgedBy: str | None = None  # noqa: N815
    flagged: list[str] | None = None


class _GatewayLine(msgspec.Struct):
    metadata: GatewayMetadata | None = None


_gateway_line = msgspec.json.Decoder(_GatewayLine)


class Line(NamedTuple):
    """One candidate event: its record's number in the batch, its position in it, its bytes."""

    row: int
    position: int
    raw: bytes


def split_record(value: bytes) -> Iterator[bytes]:
    """The events of a stranger's record: the one JSON value that it is, or its non-empty lines."""
    text = value.strip(JSON_SPACE)
    if b"\n" not in text or is_json(text):
        if text:
            yield text
        return
    for line in text.split(b"\n"):
        stripped = line.strip(JSON_SPACE)
        if stripped:
            yield stripped


def lines_of(records: Sequence[Record]) -> Iterator[Line]:
    """Every candidate event of strangers' records."""
    for row, record in enumerate(records):
        for index, raw in enumerate(split_record(record.value)):
            yield Line(row, index, raw)


def read_lines(
    lines: Iterable[Line],
    records: Sequence[Record],
    *,
    topic_id: str,
    sources: KnownSources,
    policy: Policy,
) -> pa.Table:
    """The judged table of `lines`, in their order."""
    judge = _Judge(records, topic_id, sources, policy)
    accepted: list[Accepted] = []
    rejected: list[dict[str, Any]] = []
    # Lines of the accepted, then of the rejected, each with its place in the order.
    places: tuple[list[int], list[int]] = ([], [])
    kept: tuple[list[Line], list[Line]] = ([], [])
    for place, line in enumerate(lines):
        verdict = judge.verdict(line)
        side = 0
        if isinstance(verdict, Accepted):
            accepted.append(verdict)
        else:
            rejected.append(verdict)
            side = 1
        places[side].append(place)
        kept[side].append(line)
    tables = []
    if accepted:
        columns = _accepted_columns(accepted, kept[0])
        tables.append(_table(columns, kept[0], records, topic_id))
    if rejected:
        tables.append(_table(rejected_columns(rejected), kept[1], records, topic_id))
    if len(tables) == 2:
        order = np.argsort(places[0] + places[1])
        return pa.concat_tables(tables).take(pa.array(order))
    return tables[0] if tables else JUDGED.empty_table()


def _table(
    columns: dict[str, Any], lines: Sequence[Line], records: Sequence[Record], topic_id: str
) -> pa.Table:
    rows = np.fromiter((line.row for line in lines), np.int64, len(lines))
    indexes = np.fromiter((line.position for line in lines), np.int64, len(lines))
    columns.update(record_columns(Records.of(records), rows, indexes, topic_id))
    return plain(judged_table(columns, len(lines)))


class Accepted(NamedTuple):
    """The columns of an accepted event that are its own; times in microseconds."""

    tenant_id: str
    source_id: str
    event_id: str
    client_event_id: str | None
    event_type: str
    event_time: int
    received_at: int
    payload: str
    tags: list[tuple[str, str]] | None
    schema_version: str
    dedup_scope: int
    judged_by: str | None
    flags: Sequence[str] | None


def _accepted_columns(events: Sequence[Accepted], lines: Sequence[Line]) -> dict[str, Any]:
    size = len(events)
    columns: dict[str, Any] = {
        name: pa.array(values, JUDGED.field(name).type)
        for name, values in zip(Accepted._fields, zip(*events, strict=True), strict=True)
    }
    columns["sample_rate"] = pa.array(np.ones(size))
    columns["verdict"] = constant(blocks.VALID, size)
    columns["raw"] = pa.array([line.raw for line in lines], pa.binary())
    return columns


def rejected_columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows of `rejected_row` as columns."""
    return {
        name: pa.array([row[name] for row in rows], JUDGED.field(name).type) for name in rows[0]
    }


class _Judge:
    def __init__(
        self, records: Sequence[Record], topic_id: str, sources: KnownSources, policy: Policy
    ) -> None:
        self._records = records
        self._topic_id = topic_id
        self._sources = sources
        self._policy = policy
        self._canonical_ids: dict[str, str] = {}

    def verdict(self, line: Line) -> Accepted | dict[str, Any]:
        record = self._records[line.row]
        trusted = blocks.holds_events(record.headers)
        verdict = judge_event(
            line.raw,
            reference_ms=record.timestamp_ms,
            future_limit_ms=_NO_LIMIT if trusted else self._policy.future_limit_ms,
            max_bytes=_NO_LIMIT if trusted else self._policy.max_event_bytes,
        )
        if isinstance(verdict, Rejected):
            return self._rejected(line, record, verdict, None)
        if verdict.sourceId is None:
            missing = Rejected(Reason.MISSING_FIELD, "Object missing required field `sourceId`")
            return self._rejected(line, record, missing, None)
        source_id = self._canonical(verdict.sourceId)
        tenant = (
            self._tenant_of_block(record)
            if trusted
            else self._sources.tenant_of(source_id, record.timestamp_ms)
        )
        if tenant is None:
            unknown = Rejected(Reason.UNKNOWN_SOURCE, f"source {source_id} is not registered")
            return self._rejected(line, record, unknown, source_id)
        passed: Passed | Rejected | None = None
        if not trusted:
            passed = self._by_history(verdict, record, source_id, tenant)
        if isinstance(passed, Rejected):
            return self._rejected(line, record, passed, source_id, tenant)
        return self._accepted(line, record, verdict, source_id, tenant, trusted, passed)

    def _by_history(
        self, event: Envelope, record: Record, source_id: str, tenant: str
    ) -> Passed | Rejected | None:
        """What floors and schemas said of a stranger's event when Kafka got it."""
        at_ms = record.timestamp_ms
        old = too_old(event, self._policy.floors, tenant_id=tenant, at_ms=at_ms)
        if old is not None:
            return old
        rules = self._sources.rules_of(source_id, at_ms)
        return None if rules is None else rules.judge(event.eventType, bytes(event.payload))

    def _accepted(
        self,
        line: Line,
        record: Record,
        event: Envelope,
        source_id: str,
        tenant: str,
        trusted: bool,
        passed: Passed | None,
    ) -> Accepted:
        client_event_id = None
        if event.eventId is not None:
            event_id, client_event_id = identity.event_id_from_text(source_id, event.eventId)
        else:
            event_id = identity.event_id_from_address(
                self._topic_id, record.partition, record.offset, line.position
            )
        received_ms = record.timestamp_ms
        if trusted:
            added = _gateway_metadata(line.raw)
            received_ms = added.receivedAt if added.receivedAt is not None else received_ms
            if added.clientEventId is not None:
                client_event_id = added.clientEventId
            if added.judgedBy is not None:
                passed = Passed(added.judgedBy, tuple(added.flagged or ()))
        time_ms = event.timestamp if event.timestamp is not None else received_ms
        metadata = event.metadata
        version = metadata.version if metadata else None
        return Accepted(
            tenant,
            source_id,
            event_id,
            client_event_id,
            event.eventType,
            time_ms * 1000,
            received_ms * 1000,
            bytes(event.payload).decode(),
            list(metadata.tags.items()) if metadata and metadata.tags else None,
            version if version is not None else self._schema_version(record, passed),
            identity.dedup_scope(source_id, event_id, event.timestamp),
            passed and passed.judged_by,
            (passed and passed.flags) or None,
        )

    def _canonical(self, source_id: str) -> str:
        found = self._canonical_ids.get(source_id)
        if found is None:
            found = identity.canonical_uuid(source_id) or source_id
            self._canonical_ids[source_id] = found
        return found

    def _rejected(
        self,
        line: Line,
        record: Record,
        verdict: Rejected,
        source_id: str | None,
        tenant: str | None = None,
    ) -> dict[str, Any]:
        return rejected_row(
            verdict,
            raw=line.raw,
            source_id=source_id,
            request_hash=record_hash(self._topic_id, record),
            request_index=line.position,
            received_us=record.timestamp_ms * 1000,
            schema_version=self._schema_version(record, verdict),
            tenant=tenant or self._tenant_of_block(record) or blocks.DEFAULT_TENANT,
        )

    @staticmethod
    def _tenant_of_block(record: Record) -> str | None:
        """The tenant that a gateway's block names; None for a stranger's record."""
        if not blocks.holds_events(record.headers):
            return None
        return header(blocks.TENANT)(record.headers) or blocks.DEFAULT_TENANT

    @staticmethod
    def _schema_version(record: Record, verdict: Passed | Rejected | None) -> str:
        if verdict is not None and verdict.judged_by is not None:
            return blocks.version_of(verdict.judged_by)
        return header(blocks.SCHEMA_VERSION)(record.headers) or blocks.DEFAULT_SCHEMA_VERSION


def _gateway_metadata(raw: bytes) -> GatewayMetadata:
    try:
        line = _gateway_line.decode(raw)
    except msgspec.DecodeError:
        return GatewayMetadata()
    return line.metadata or GatewayMetadata()


def record_hash(topic_id: str, record: Record) -> str:
    """The request hash of a stranger's record: its address, so each record counts on its own."""
    address = f"{topic_id}/{record.partition}/{record.offset}"
    return hashlib.sha256(address.encode()).hexdigest()


def rejected_row(
    verdict: Rejected,
    *,
    raw: bytes,
    source_id: str | None,
    request_hash: str,
    request_index: int,
    received_us: int,
    schema_version: str,
    tenant: str = blocks.DEFAULT_TENANT,
) -> dict[str, Any]:
    """The judged columns of a rejected event, but for those of its record."""
    row_id = identity.quarantine_id(source_id or "", request_hash, request_index)
    return {
        "tenant_id": tenant,
        "source_id": source_id,
        "received_at": received_us,
        "schema_version": schema_version,
        "dedup_scope": identity.BUCKET_BASE + identity.bucket(source_id or "", row_id),
        "sample_rate": 1.0,
        "verdict": blocks.REJECTED,
        "reason": verdict.reason.value,
        "message": verdict.message,
        "raw": raw,
        "raw_length": len(raw),
        "raw_sha256": hashlib.sha256(raw).hexdigest(),
        "request_hash": request_hash,
        "request_index": request_index,
        "quarantine_id": row_id,
        "judged_by": verdict.judged_by,
    }
