"""The tables about the tables: how far landing is, what was acknowledged, replayed, deleted."""

from __future__ import annotations

import pyarrow as pa

from dc_platform.contracts.spec import ADDRESS, TIMESTAMP, TableSpec

LANDING_BORDER = TableSpec(
    name="ops.landing_border",
    description="Up to where each Kafka partition has landed: the border of Trino's union view.",
    columns=pa.schema(
        [
            ("topic_id", pa.string()),
            ("kafka_partition", pa.int32()),
            ("next_offset", pa.int64()),
            ("silver_version", pa.int64()),
            ("processed_at", TIMESTAMP),
        ]
    ),
    statistics=("silver_version",),
    partition_by=None,
)

GAPS = TableSpec(
    name="ops.gaps",
    description="Offsets that Kafka deleted before they landed, each range once.",
    columns=pa.schema(
        [
            ("topic_id", pa.string()),
            ("kafka_partition", pa.int32()),
            ("from_offset", pa.int64()),
            ("to_offset", pa.int64()),
            ("why", pa.string()),
            ("processed_at", TIMESTAMP),
        ]
    ),
    statistics=("kafka_partition", "from_offset"),
    partition_by=None,
)

ACKS = TableSpec(
    name="ops.acks",
    description="What Kafka acknowledged to the gateways: one row per block, source and hour, kept for"
    " 90 days.",
    columns=pa.schema(
        [
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("hour", TIMESTAMP),
            ("block_id", pa.string()),
            ("verdict", pa.string()),
            ("events", pa.int64()),
            ("topic_id", pa.string()),
            ("kafka_partition", pa.int32()),
            ("kafka_offset", pa.int64()),
            ("acked_at", TIMESTAMP),
            ("processed_at", TIMESTAMP),
            ("ingest_date", pa.date32()),
        ]
    ),
    statistics=("hour", "acked_at", "kafka_partition", "kafka_offset"),
)

LEDGER = TableSpec(
    name="ops.ledger",
    description="received = landed + duplicates + rejected + sampled_out + deleted + gap + in_flight,"
    " per source, hour and topic; what does not balance is missing.",
    columns=pa.schema(
        [
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("hour", TIMESTAMP),
            ("topic_id", pa.string()),
            ("received", pa.int64()),
            ("landed", pa.int64()),
            ("duplicates", pa.int64()),
            ("rejected", pa.int64()),
            ("sampled_out", pa.int64()),
            ("deleted", pa.int64()),
            ("gap", pa.int64()),
            ("in_flight", pa.int64()),
            ("in_flight_since", TIMESTAMP),
            ("missing", pa.int64()),
            ("examples", pa.string()),
            ("processed_at", TIMESTAMP),
            ("hour_date", pa.date32()),
        ]
    ),
    statistics=("hour", "source_id", "missing", "gap", "in_flight"),
    partition_by="hour_date",
)

REPLAYS = TableSpec(
    name="ops.replays",
    description="What became of quarantined events that were judged again: one row per event and"
    " replay. Beside `result` the address that Kafka gave a replayed event.",
    columns=pa.schema(
        [
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("quarantine_id", pa.string()),
            ("event_index", pa.int32()),
            ("event_id", pa.string()),
            ("reason", pa.string()),
            ("result", pa.string()),
            ("reason_now", pa.string()),
            ("message", pa.string()),
            ("replayed_at", TIMESTAMP),
            ("run", pa.string()),
            ("block_id", pa.string()),
            *ADDRESS,
            ("quarantine_date", pa.date32()),
        ]
    ),
    statistics=("replayed_at", "source_id"),
    partition_by="quarantine_date",
)

TOMBSTONES = TableSpec(
    name="ops.tombstones",
    description="Identities of deleted events that could come again: they are not landed again. Of a"
    " rejected event event_id is its quarantine_id.",
    columns=pa.schema(
        [
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("event_id", pa.string()),
            ("dedup_scope", pa.int32()),
            ("cause", pa.string()),
            ("deleted_at", TIMESTAMP),
        ]
    ),
    statistics=("dedup_scope",),
    partition_by=None,
)

DELETIONS = TableSpec(
    name="ops.deletions",
    description="What was deleted, from which table, and the proof that no file has it any more.",
    columns=pa.schema(
        [
            ("deletion_id", pa.string()),
            ("kind", pa.string()),
            ("tenant_id", pa.string()),
            ("who", pa.string()),
            ("predicate", pa.string()),
            ("table_name", pa.string()),
            ("rows", pa.int64()),
            ("files", pa.int64()),
            ("bytes", pa.int64()),
            ("table_version", pa.int64()),
            ("requested_at", TIMESTAMP),
            ("deleted_at", TIMESTAMP),
            ("vacuumed_at", TIMESTAMP),
            ("proof", pa.string()),
        ]
    ),
    statistics=("requested_at",),
    partition_by=None,
)
