"""Reader of Arrow blocks of events, for producers that already hold columns (docs/api.md).

The columns are those of design 3.2, in either spelling (`eventType` or `event_type`): `sourceId`,
`eventType` and `payload` (JSON text) are required; `eventId`, `timestamp` (epoch milliseconds or a
timestamp type), `version` and `tags` (map) may be left out or null. Rows are judged by the same
rules as lines; bronze keeps each as the line that it would have been (a payload that is no JSON: as
a string in that line).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks
from dc_platform.contracts.envelope import (
    MAX_DEPTH,
    MAX_EVENT_TYPE_LENGTH,
    MAX_ID_LENGTH,
    MAX_TIMESTAMP_MS,
    MAX_VERSION_LENGTH,
    MIN_TIMESTAMP_MS,
    Rejected,
    is_payload,
    is_too_deep,
)
from dc_platform.contracts.identity import BUCKET_BASE, HOUR_MS
from dc_platform.contracts.reasons import Reason
from dc_platform.decode.blocks import CHUNK_ROWS
from dc_platform.decode.columns import KnownSources, header, judged_table, plain, record_columns
from dc_platform.decode.rejects import undecodable
from dc_platform.decode.strangers import Line, Policy, read_lines

ARROW_EVENTS = pa.schema(
    [
        ("sourceId", pa.string()),
        ("eventType", pa.string()),
        ("payload", pa.string()),
        ("eventId", pa.string()),
        ("timestamp", pa.int64()),
        ("version", pa.string()),
        ("tags", pa.map_(pa.string(), pa.string())),
    ]
)
_REQUIRED = ("sourceId", "eventType", "payload")
_ALIASES = {
    "source_id": "sourceId",
    "event_type": "eventType",
    "event_id": "eventId",
    "event_time": "timestamp",
    "schema_version": "version",
}
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_string = msgspec.json.Encoder().encode

# The line of a row up to its payload, which stands last; members that are null are left out.
_HEAD = """
    '{' || coalesce('"eventId":' || to_json("eventId")::varchar || ',', '')
    || coalesce('"sourceId":' || to_json("sourceId")::varchar || ',', '')
    || coalesce('"timestamp":' || "timestamp"::varchar || ',', '')
    || coalesce('"eventType":' || to_json("eventType")::varchar || ',', '')
    || case when "version" is null and tags is null then '' else
        '"metadata":{' || concat_ws(',', '"version":' || to_json("version")::varchar,
                                         '"tags":' || to_json(tags)::varchar) || '},' end
    || '"payload":'
"""
_QUERY = f"""
    select * exclude (tags), {_HEAD} as head,
        case when cardinality(tags) > 0 then tags end as tags,
        case when "timestamp" is null
             then {BUCKET_BASE} + ('0x' || md5(source_id || event_id)[1:2])::integer
             else try_cast(floor("timestamp" / {HOUR_MS}.0) as integer) end as dedup_scope,
        coalesce(
            length("sourceId") between 1 and {MAX_ID_LENGTH}
            and length("eventType") between 1 and {MAX_EVENT_TYPE_LENGTH}
            and regexp_full_match(event_id, '{_UUID}')
            and (tags is null or len(list_filter(map_values(tags), x -> x is null)) = 0)
            and length(coalesce("version", '')) <= {MAX_VERSION_LENGTH}
            and ("timestamp" is null or "timestamp" between {MIN_TIMESTAMP_MS} and least(
                 {MAX_TIMESTAMP_MS}, reference_ms + $future_ms))
            and strlen(head) + strlen(payload) + 1 <= $max_bytes
            and payload[1] = '{{' and payload[-1] = '}}', false) as ok
    from (select *, lower("eventId") as event_id,
                 case when regexp_full_match(lower("sourceId"), '{_UUID}')
                      then lower("sourceId") else "sourceId" end as source_id
          from chunk)
"""


def read_arrow(
    connection: duckdb.DuckDBPyConnection,
    records: Sequence[Record],
    *,
    topic_id: str,
    sources: KnownSources,
    policy: Policy,
) -> list[pa.Table]:
    """Judged tables of Arrow records; their rows are not in order."""
    tables: list[pa.Table] = []
    damaged: list[tuple[Record, str]] = []
    for record in records:
        try:
            events = _events(record)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            damaged.append((record, str(error)))
            continue
        for start in range(0, len(events), CHUNK_ROWS):
            chunk = events.slice(start, CHUNK_ROWS)
            tables += _judge(connection, record, chunk, start, topic_id, sources, policy)
    for record, message in damaged:
        verdict = Rejected(Reason.UNDECODABLE_BLOCK, message or "not an Arrow IPC stream")
        tables.append(undecodable([record], topic_id, verdict))
    return tables


def _events(record: Record) -> pa.Table:
    table = pa.ipc.open_stream(record.value).read_all()
    # Before anything else: a cast trusts the offsets and indices that the bytes claim.
    table.validate(full=True)
    table = table.rename_columns([_ALIASES.get(name, name) for name in table.column_names])
    missing = [name for name in _REQUIRED if name not in table.column_names]
    if missing:
        raise KeyError(f"column {missing[0]!r} is missing")
    arrays = []
    for field in ARROW_EVENTS:
        if field.name not in table.column_names:
            arrays.append(pa.nulls(len(table), field.type))
            continue
        column = table[field.name]
        if field.name == "timestamp" and pa.types.is_timestamp(column.type):
            column = _milliseconds(column)
        arrays.append(column.cast(field.type))
    return pa.table(arrays, schema=ARROW_EVENTS)


def _milliseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times of any unit and zone, rounded down."""
    utc = column.cast(pa.int64()).cast(pa.timestamp(column.type.unit))
    return pc.floor_temporal(utc, unit="millisecond").cast(pa.timestamp("ms"))


def _judge(
    connection: duckdb.DuckDBPyConnection,
    record: Record,
    events: pa.Table,
    start: int,
    topic_id: str,
    sources: KnownSources,
    policy: Policy,
) -> list[pa.Table]:
    rows = np.arange(start, start + len(events))
    try:
        typed = _typed(connection, events, record.timestamp_ms, policy)
    except duckdb.Error:
        # A map with one key twice: DuckDB has no such thing, JSON has.
        lines = [Line(0, int(i), _line(r)) for i, r in zip(rows, events.to_pylist(), strict=True)]
        return [read_lines(lines, [record], topic_id=topic_id, sources=sources, policy=policy)]
    payloads = [(p or "").encode() for p in typed["payload"].to_pylist()]
    ok = typed["ok"].to_numpy().astype(bool)
    ok &= np.fromiter(map(is_payload, payloads), bool, len(payloads))
    encoded = typed["source_id"].combine_chunks().dictionary_encode()
    tenants = [sources.tenant_of(s, record.timestamp_ms) for s in encoded.dictionary.to_pylist()]
    tenant = pa.array(tenants, pa.string()).take(encoded.indices)
    ok &= tenant.is_valid().to_numpy(zero_copy_only=False)
    tables = []
    if ok.any():
        tables.append(_accepted(record, typed, tenant, encoded, rows, ok, topic_id))
    if not ok.all():
        bad = np.flatnonzero(~ok)
        odd = events.take(pa.array(bad)).to_pylist()
        lines = [Line(0, int(rows[i]), _line(row)) for i, row in zip(bad, odd, strict=True)]
        tables.append(
            read_lines(lines, [record], topic_id=topic_id, sources=sources, policy=policy)
        )
    return tables


def _typed(
    connection: duckdb.DuckDBPyConnection, events: pa.Table, reference_ms: int, policy: Policy
) -> pa.Table:
    reference = pa.array(np.full(len(events), reference_ms))
    connection.register("chunk", events.append_column("reference_ms", reference))
    try:
        return connection.execute(
            _QUERY,
            {"future_ms": policy.future_limit_ms, "max_bytes": policy.max_event_bytes},
        ).to_arrow_table()
    finally:
        connection.unregister("chunk")


def _line(row: dict[str, Any]) -> bytes:
    """The line of one row, as `_HEAD` writes it."""
    parts = [
        b'"%s":%s,' % (name.encode(), _string(row[name]))
        for name in ("eventId", "sourceId", "timestamp", "eventType")
        if row[name] is not None
    ]
    metadata = []
    if row["version"] is not None:
        metadata.append(b'"version":' + _string(row["version"]))
    if row["tags"] is not None:
        tags = b",".join(_string(k) + b":" + _string(v) for k, v in row["tags"])
        metadata.append(b'"tags":{' + tags + b"}")
    if metadata:
        parts.append(b'"metadata":{' + b",".join(metadata) + b"},")
    payload = b"null" if row["payload"] is None else row["payload"].encode()
    if not is_payload(payload) and not is_too_deep(payload, MAX_DEPTH - 1):
        payload = _string(row["payload"])
    return b"{" + b"".join(parts) + b'"payload":' + payload + b"}"


def _accepted(
    record: Record,
    typed: pa.Table,
    tenant: pa.Array,
    source: pa.Array,
    rows: Any,
    ok: Any,
    topic_id: str,
) -> pa.Table:
    size = len(typed)
    received = pa.array(np.full(size, record.timestamp_ms * 1000), pa.timestamp("us", tz="UTC"))
    version = header(blocks.SCHEMA_VERSION)(record) or blocks.DEFAULT_SCHEMA_VERSION
    # Out of range only in rows that are not ok.
    safe = pc.if_else(pa.array(ok), typed["timestamp"].combine_chunks(), pa.scalar(0, pa.int64()))
    time = pc.multiply(safe, 1000).cast(received.type)
    columns = {
        "tenant_id": tenant.dictionary_encode(),
        "source_id": source,
        "event_id": typed["event_id"],
        "event_type": typed["eventType"].combine_chunks().dictionary_encode(),
        "event_time": pc.coalesce(time, received),
        "received_at": received,
        "payload": typed["payload"],
        "tags": typed["tags"],
        "schema_version": pc.coalesce(typed["version"], version),
        "dedup_scope": typed["dedup_scope"],
        "sample_rate": pa.array(np.ones(size)),
        "verdict": pa.array([blocks.VALID] * size),
        "raw": pc.binary_join_element_wise(typed["head"], typed["payload"], "}", "").cast(
            pa.binary()
        ),
        **record_columns([record], np.zeros(size, np.int64), rows, topic_id),
    }
    table = judged_table(columns, size)
    return table if ok.all() else plain(table).filter(pa.array(ok))
