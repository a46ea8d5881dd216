"""The union in Trino: silver below the landing border, the gateways' records from it on.

Both branches take the same border (`ops.landing_border`, one row per partition, read first), so each
event is in one of them whatever is committed meanwhile. The tail keeps NDJSON blocks that a gateway
marked valid, and of these what is neither a duplicate within the tail nor of silver, nor was deleted:
the look-ups in silver and in `ops.tombstones` are by identity within the event's scope, as landing's.
What sampling leaves out is left out here, too. Records of other producers, and lines with more than 15
members of tags or unknown members that are named `payload`, appear when they have landed.
Stock connectors, plain SQL.

Measured on Trino 476: a view is analysed from top to bottom and each table is pinned to the version
it had when it was first named, so the border has to be named before silver. A query that names
`silver.events` before the view would pin silver too early. The look-ups are right joins because Trino
keeps the right side in memory, the tail, and reads of silver only the files with its scopes; NOT EXISTS
kept every identity of silver (0.9 GB for five million).
"""

from __future__ import annotations

from dc_platform.contracts import blocks, identity
from dc_platform.contracts.sampling import OTHERS, SCALE
from dc_platform.contracts.tables import SILVER_EVENTS

_COLUMNS = [name for name in SILVER_EVENTS.file_schema.names if name != "tags"]
# It is last in a line; tags and members that the envelope does not know may have one of their own. The
# first before which the line is JSON is the event's.
_PAYLOAD = "',\"payload\":'"
_MOST_CUTS = 16


def union_sql(
    topic_id: str, kafka_table: str, *, late_ms: int = 3_600_000, lake: str = "lake"
) -> str:
    """A SELECT of the union. `kafka_table` is the topic's table with the connector's own columns."""
    names = ", ".join(_COLUMNS)
    fresh_names = ", ".join(f"f.{name}" for name in _COLUMNS)
    silver_names = ", ".join(f"s.{name}" for name in _COLUMNS)
    return f"""
WITH border AS (
    SELECT kafka_partition, next_offset FROM {lake}.ops.landing_border
    WHERE topic_id = '{topic_id}'
),
landed AS (
    SELECT {silver_names} FROM {lake}.silver.events s
    LEFT JOIN border b ON b.kafka_partition = s.kafka_partition
    WHERE s.topic_id <> '{topic_id}' OR s.kafka_offset < coalesce(b.next_offset, 0)
),
lines AS (
    SELECT CAST(k._partition_id AS integer) AS kafka_partition, k._partition_offset AS kafka_offset,
        CAST(l.position AS integer) - 1 AS kafka_index, l.line,
        strpos(l.line, {_PAYLOAD}) AS first_cut,
        {_header("dcp-tenant", "default")} AS tenant_id,
        {_header("dcp-schema-version", "1")} AS block_version,
        TRY(CAST(json_parse({_header(blocks.SAMPLING, "{}")})
            AS map(varchar, map(varchar, double)))) AS rates
    FROM {kafka_table} k
    LEFT JOIN border b ON b.kafka_partition = k._partition_id
    CROSS JOIN UNNEST(split(k._message, chr(10))) WITH ORDINALITY AS l (line, position)
    WHERE k._partition_offset >= coalesce(b.next_offset, 0)
      AND {_header("dcp-block", "")} <> '' AND {_header("dcp-verdict", "")} = 'valid'
      AND {_header("content-type", "")} = 'application/x-ndjson'
),
tried AS (
    SELECT *, {_prefix("first_cut")} AS first_envelope FROM lines WHERE first_cut > 0
),
cuts AS (
    SELECT *, IF(first_envelope IS NOT NULL, first_cut,
        element_at(filter(transform(sequence(2, {_MOST_CUTS}), n -> strpos(line, {_PAYLOAD}, n)),
            at -> at > 0 AND {_prefix("at")} IS NOT NULL), 1)) AS cut
    FROM tried
),
parsed AS (
    SELECT *, coalesce(first_envelope, {_prefix("cut")}) AS envelope FROM cuts
    WHERE cut IS NOT NULL
),
events AS (
    SELECT *, json_extract_scalar(envelope, '$.sourceId') AS source_id,
        json_extract_scalar(envelope, '$.eventId') AS event_id,
        CAST(json_extract_scalar(envelope, '$.timestamp') AS bigint) AS timestamp_ms,
        CAST(json_extract_scalar(envelope, '$.metadata.receivedAt') AS bigint) AS received_ms,
        json_extract_scalar(envelope, '$.metadata.judgedBy') AS judged_by,
        coalesce(TRY_CAST(json_extract(envelope, '$.metadata.flagged') AS array(varchar)),
                 CAST(ARRAY[] AS array(varchar))) AS flagged
    FROM parsed
),
rated AS (
    SELECT *, coalesce(element_at(element_at(rates, source_id),
                                  json_extract_scalar(envelope, '$.eventType')),
                       element_at(element_at(rates, source_id), '{OTHERS}'), 1e0) AS rate
    FROM events
),
kept AS (
    SELECT * FROM rated
    WHERE from_base(substr(to_hex(md5(to_utf8(event_id))), 1, 8), 16) < rate * {SCALE}e0
),
scoped AS (
    SELECT *, CAST(CASE WHEN timestamp_ms IS NULL
        THEN {identity.BUCKET_BASE}
            + from_base(substr(to_hex(md5(to_utf8(source_id || event_id))), 1, 2), 16)
        ELSE floor(timestamp_ms / {identity.HOUR_MS}e0) END AS integer) AS dedup_scope
    FROM kept
),
tail AS (
    SELECT tenant_id, source_id, event_id,
        json_extract_scalar(envelope, '$.metadata.clientEventId') AS client_event_id,
        json_extract_scalar(envelope, '$.eventType') AS event_type,
        {_time("coalesce(timestamp_ms, received_ms)")} AS event_time,
        {_time("received_ms")} AS received_at,
        CAST(NULL AS timestamp(6) with time zone) AS processed_at,
        substr(line, cut + 11, length(line) - cut - 11) AS payload,
        coalesce(json_extract_scalar(envelope, '$.metadata.version'),
                 element_at(split(judged_by, '/'), -1), block_version) AS schema_version,
        dedup_scope, rate AS sample_rate, '{topic_id}' AS topic_id,
        kafka_partition, kafka_offset, kafka_index, judged_by,
        nullif(IF(received_ms - timestamp_ms > {late_ms}, ARRAY[CAST('late' AS varchar)],
                  CAST(ARRAY[] AS array(varchar))) || flagged,
               CAST(ARRAY[] AS array(varchar))) AS flags,
        row_number() OVER (PARTITION BY source_id, event_id
                           ORDER BY kafka_partition, kafka_offset, kafka_index) AS occurrence
    FROM scoped
),
fresh AS (
    SELECT t.* FROM landed s RIGHT JOIN tail t ON s.dedup_scope = t.dedup_scope
        AND s.source_id = t.source_id AND s.event_id = t.event_id
    WHERE t.occurrence = 1 AND s.event_id IS NULL
)
SELECT {names} FROM landed
UNION ALL
SELECT {fresh_names} FROM {lake}.ops.tombstones d RIGHT JOIN fresh f
    ON d.dedup_scope = f.dedup_scope AND d.source_id = f.source_id AND d.event_id = f.event_id
WHERE d.event_id IS NULL
"""


def _prefix(cut: str) -> str:
    """The line up to a cut as JSON; null when it is none."""
    return f"TRY(json_parse(substr(line, 1, {cut} - 1) || '}}'))"


def _header(name: str, default: str) -> str:
    first = f"element_at(element_at(k._headers, '{name}'), 1)"
    return f"coalesce(from_utf8({first}), '{default}')"


def _time(milliseconds: str) -> str:
    return (
        f"CAST(from_unixtime_nanos(CAST({milliseconds} AS decimal(38,0)) * 1000000)"
        " AS timestamp(6) with time zone)"
    )
