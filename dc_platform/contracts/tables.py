"""The tables: their columns, partitioning and statistics, fixed from the first commit.

Names are `layer.table`, as in SQL. Times are UTC microseconds. `COLUMN_DOCS` describes every column
once; docs/tables.md and Dagster's column schemas come from it.
"""

from __future__ import annotations

import pyarrow as pa

from dc_platform.contracts.gold import GOLD_TABLES
from dc_platform.contracts.ops_tables import (
    ACKS,
    DELETIONS,
    GAPS,
    LANDING_BORDER,
    LEDGER,
    REPLAYS,
    TOMBSTONES,
)
from dc_platform.contracts.spec import ADDRESS
from dc_platform.contracts.spec import TIMESTAMP as TIMESTAMP
from dc_platform.contracts.spec import TableSpec as TableSpec

TAGS = pa.map_(pa.string(), pa.string())
FLAGS = pa.list_(pa.string())

COLUMN_DOCS: dict[str, str] = {
    "tenant_id": "Tenant of the source.",
    "source_id": "Source that sent the event (UUID; null only when a stranger's record names none).",
    "event_id": "Identity within the source, for ever: a UUID (see docs/architecture.md).",
    "client_event_id": "The client's own id, when it is not a UUID.",
    "event_type": "What happened, in the source's words.",
    "event_time": "The client's timestamp; received_at when it gave none.",
    "received_at": "When the gateway received the event; a stranger's: the Kafka timestamp.",
    "processed_at": "When the landing run wrote the batch.",
    "payload": "The event's payload: a JSON object, byte for byte as it was sent.",
    "tags": "metadata.tags of the event.",
    "schema_version": "metadata.version of the event; else the version of the schema that judged it;"
    " else 1.",
    "judged_by": "Schema and version that judged the event, schemaId/version; null where none"
    " applied.",
    "flags": "What is to be known of an accepted event (docs/schemas.md): late, warn:FIELD:RULE,"
    " anomaly:FIELD; null where nothing is.",
    "dedup_scope": "Epoch hour of the client's timestamp, or 2^30 + bucket when it gave none.",
    "sample_rate": "Share of such events that sampling keeps, so one stands for 1/sample_rate; 1.0"
    " without sampling.",
    "topic_id": "Id of the Kafka topic (a recreated topic has another).",
    "kafka_partition": "Partition of the record that held the event.",
    "kafka_offset": "Offset of the record that held the event.",
    "kafka_index": "Position of the event within its record, from 0.",
    "kafka_timestamp": "Kafka's append time of the record.",
    "content_type": "Format of the record.",
    "verdict": "valid or rejected; sampled: accepted, and left out by sampling; deleted: the event was"
    " deleted, and its row only keeps the address.",
    "reason": "Typed reason of a rejection (docs/api.md).",
    "message": "What exactly was wrong.",
    "block_id": "gateway/boot/number of the block; null for a stranger's record.",
    "block_events": "Events that the gateway put into the block.",
    "batch_id": "batchId of POST /api/v1/events/batch.",
    "raw": "The event's bytes as the record held them (a rejected event: as they were sent).",
    "raw_length": "Length in bytes of what was sent.",
    "raw_sha256": "SHA-256 of what was sent, in hex.",
    "request_hash": "SHA-256 of the request that held the rejected event.",
    "request_index": "Position of the rejected event in its request, from 0.",
    "quarantine_id": "Identity of the rejected bytes: (source, request hash, index).",
    "ingest_date": "UTC date of processed_at: the partition.",
    "next_offset": "First offset of the partition that has not landed.",
    "silver_version": "Version of silver.events that this border belongs to.",
    "from_offset": "First offset that is missing.",
    "to_offset": "First offset after it that is not.",
    "why": "expired: Kafka deleted it before it landed; before the first landing: Kafka no longer"
    " had it when landing met the partition; topic deleted: the topic was deleted with it.",
    "hour": "Hour (UTC) in which the gateway received the events; a stranger's: of Kafka's timestamp.",
    "hour_date": "UTC date of hour: the partition.",
    "events": "Events of the source and hour in the block.",
    "acked_at": "When Kafka's acknowledgement reached the gateway.",
    "received": "Events acknowledged (ops.acks); of blocks without such a line, and of strangers'"
    " records, those in bronze.",
    "landed": "Rows of silver.events.",
    "duplicates": "Accepted events whose identity silver.events has from another address.",
    "rejected": "Events with a row in silver.quarantine, those rejected again included.",
    "sampled_out": "Events left out by sampling.",
    "deleted": "Events that were deleted (retention, by person), and those that came again afterwards.",
    "gap": "Acknowledged events that Kafka lost before they landed: they are lost.",
    "in_flight": "Acknowledged events that landing has not reached.",
    "in_flight_since": "The oldest acknowledgement of them: of a replay long after the hour.",
    "missing": "received less all of these: 0, or events are lost; below 0: there are too many. Where"
    " both are, `examples` tells.",
    "quarantine_date": "Ingest date of the row in silver.quarantine: the partition.",
    "event_index": "Position of the event in the quarantined bytes, from 0: a body may hold several.",
    "result": "replayed: Kafka has it, it lands as any event; known: silver.events had it already;"
    " rejected: it still does not pass.",
    "reason_now": "Typed reason for which it still does not pass.",
    "replayed_at": "When the replay recorded it.",
    "run": "The replay: a run of Dagster, or dcp quarantine replay.",
    "cause": "Deletion (ops.deletions) that made it.",
    "deleted_at": "When the rows were no longer in the table's newest version.",
    "deletion_id": "Identity of the deletion.",
    "kind": "retention or person.",
    "who": "Who asked for it.",
    "predicate": "JSON: what was deleted; of a person only a hash of the value.",
    "table_name": "Table that rows were deleted from.",
    "rows": "Rows deleted.",
    "files": "Files replaced or removed.",
    "bytes": "Bytes of those files.",
    "table_version": "Version of the table without the rows.",
    "requested_at": "When it was asked for.",
    "vacuumed_at": "When the replaced files had been deleted from the disk.",
    "proof": "JSON: the scan of every file below the lake that found nothing of it.",
    "examples": "JSON: some of what is missing or lost, by address; with negative events what is there"
    " too often.",
}


BRONZE_EVENTS = TableSpec(
    name="bronze.events",
    description="Every event as received: one row per event address, duplicates and rejects too.",
    columns=pa.schema(
        [
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("event_id", pa.string()),
            ("event_type", pa.string()),
            ("event_time", TIMESTAMP),
            ("received_at", TIMESTAMP),
            ("processed_at", TIMESTAMP),
            *ADDRESS,
            ("kafka_timestamp", TIMESTAMP),
            ("content_type", pa.string()),
            ("schema_version", pa.string()),
            ("verdict", pa.string()),
            ("sample_rate", pa.float64()),
            ("reason", pa.string()),
            ("message", pa.string()),
            ("block_id", pa.string()),
            ("block_events", pa.int32()),
            ("batch_id", pa.string()),
            ("raw", pa.binary()),
            ("raw_length", pa.int64()),
            ("raw_sha256", pa.string()),
            ("request_hash", pa.string()),
            ("request_index", pa.int32()),
            ("judged_by", pa.string()),
            ("flags", FLAGS),
            ("ingest_date", pa.date32()),
        ]
    ),
    statistics=("received_at", "event_time", "processed_at", "kafka_partition", "kafka_offset"),
    added=("judged_by", "flags", "sample_rate"),
)

# What stays in bronze of an event that was deleted: where it was, so that nobody misses it. Its source
# and times are asked for by the ledger.
STUB_COLUMNS = (
    *("tenant_id", "source_id", "received_at", "processed_at"),
    *("topic_id", "kafka_partition", "kafka_offset", "kafka_index", "kafka_timestamp"),
    *("content_type", "block_id", "block_events"),
)

SILVER_EVENTS = TableSpec(
    name="silver.events",
    description="Every accepted event exactly once: valid, deduplicated for ever, typed.",
    columns=pa.schema(
        [
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("event_id", pa.string()),
            ("client_event_id", pa.string()),
            ("event_type", pa.string()),
            ("event_time", TIMESTAMP),
            ("received_at", TIMESTAMP),
            ("processed_at", TIMESTAMP),
            ("payload", pa.string()),
            ("tags", TAGS),
            ("schema_version", pa.string()),
            ("dedup_scope", pa.int32()),
            ("sample_rate", pa.float64()),
            *ADDRESS,
            ("judged_by", pa.string()),
            ("flags", FLAGS),
            ("ingest_date", pa.date32()),
        ]
    ),
    statistics=(
        "tenant_id",
        "event_time",
        "received_at",
        "processed_at",
        "source_id",
        "dedup_scope",
        "sample_rate",
        "kafka_partition",
        "kafka_offset",
    ),
    added=("judged_by", "flags"),
)

SILVER_QUARANTINE = TableSpec(
    name="silver.quarantine",
    description="Every rejected event once, with its bytes and a typed reason.",
    columns=pa.schema(
        [
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("quarantine_id", pa.string()),
            ("reason", pa.string()),
            ("message", pa.string()),
            ("raw", pa.binary()),
            ("raw_length", pa.int64()),
            ("raw_sha256", pa.string()),
            ("request_hash", pa.string()),
            ("request_index", pa.int32()),
            ("received_at", TIMESTAMP),
            ("processed_at", TIMESTAMP),
            ("content_type", pa.string()),
            ("schema_version", pa.string()),
            ("dedup_scope", pa.int32()),
            *ADDRESS,
            ("judged_by", pa.string()),
            ("ingest_date", pa.date32()),
        ]
    ),
    added=("judged_by",),
    statistics=(
        "received_at",
        "processed_at",
        "source_id",
        "dedup_scope",
        "kafka_partition",
        "kafka_offset",
    ),
)

TABLES: tuple[TableSpec, ...] = (
    BRONZE_EVENTS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    LANDING_BORDER,
    GAPS,
    ACKS,
    LEDGER,
    REPLAYS,
    TOMBSTONES,
    DELETIONS,
    *GOLD_TABLES,
)


def column_doc(spec: TableSpec, column: str) -> str:
    """What a column of a table means."""
    return spec.docs.get(column) or COLUMN_DOCS[column]


# What decoding gives: every column that bronze, silver or quarantine needs, one row per event.
JUDGED = pa.schema(
    [
        ("tenant_id", pa.string()),
        ("source_id", pa.string()),
        ("event_id", pa.string()),
        ("client_event_id", pa.string()),
        ("event_type", pa.string()),
        ("event_time", TIMESTAMP),
        ("received_at", TIMESTAMP),
        ("payload", pa.string()),
        ("tags", TAGS),
        ("schema_version", pa.string()),
        ("dedup_scope", pa.int32()),
        ("sample_rate", pa.float64()),
        *ADDRESS,
        ("kafka_timestamp", TIMESTAMP),
        ("content_type", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("block_id", pa.string()),
        ("block_events", pa.int32()),
        ("batch_id", pa.string()),
        ("raw", pa.binary()),
        ("raw_length", pa.int64()),
        ("raw_sha256", pa.string()),
        ("request_hash", pa.string()),
        ("request_index", pa.int32()),
        ("quarantine_id", pa.string()),
        ("judged_by", pa.string()),
        ("flags", FLAGS),
    ]
)
