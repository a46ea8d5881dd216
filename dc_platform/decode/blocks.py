"""Reader of the gateway's NDJSON blocks: canonical lines (`contracts.lines`), a million per second.

All lines of a batch of records are one buffer. The payload, which stands last, is cut off by its
position, unparsed and byte for byte (DuckDB's JSON functions would write `1.10` as `1.1`); what is
left of each line is small, and DuckDB types it in columns. A line that is not as the gateway writes
them (a forged or damaged block) goes to the strict judge, alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import (
    MAX_EVENT_TYPE_LENGTH,
    MAX_TIMESTAMP_MS,
    MIN_TIMESTAMP_MS,
    is_payload,
)
from dc_platform.decode.columns import (
    Indices,
    constant,
    header,
    is_utf8,
    judged_table,
    milliseconds,
    per_record,
    record_columns,
    schema_versions,
)

_NEWLINE = 10
_PAYLOAD = b',"payload":'
# Bytes of records that are judged at once. Buffers of this size are reused by the allocator; joining
# 75 MB at once cost 1.2 µs an event in page faults alone.
GROUP_BYTES = 6 * 2**20

_TYPES = (
    '{"eventId":"VARCHAR","sourceId":"VARCHAR","timestamp":"BIGINT","eventType":"VARCHAR",'
    '"metadata":{"receivedAt":"BIGINT","version":"VARCHAR","clientEventId":"VARCHAR",'
    '"tags":"MAP(VARCHAR,VARCHAR)"}}'
)
_QUERY = f"""
    select
        e.eventId as event_id, e.sourceId as source_id, e.timestamp as timestamp_ms,
        e.eventType as event_type, e.metadata.receivedAt as received_ms,
        e.metadata.version as version, e.metadata.clientEventId as client_event_id,
        e.metadata.tags as tags,
        coalesce(
            length(e.eventId) = 36 and try_cast(e.eventId as uuid)::varchar = e.eventId
            and length(e.sourceId) between 1 and 128
            and length(e.eventType) between 1 and {MAX_EVENT_TYPE_LENGTH}
            and e.metadata.receivedAt between {MIN_TIMESTAMP_MS} and {MAX_TIMESTAMP_MS}
            and (e.timestamp is null
                 or e.timestamp between {MIN_TIMESTAMP_MS} and {MAX_TIMESTAMP_MS}),
            false) as ok,
        case when e.timestamp is null then md5(e.sourceId || e.eventId)[1:2] end as bucket
    from (select json_transform(prefix, '{_TYPES}') as e from chunk)
"""


class Lines:
    """The lines of a batch of records: one buffer, cut into prefixes and payloads."""

    def __init__(self, records: Sequence[Record]) -> None:
        values = [r.value for r in records]
        buffer = b"\n".join(values) + b"\n"
        data = np.frombuffer(buffer, np.uint8)
        ends = np.flatnonzero(data == _NEWLINE)
        starts = np.concatenate([[0], ends[:-1] + 1])
        record_starts = np.concatenate([[0], np.cumsum([len(v) + 1 for v in values])[:-1]])
        rows = np.searchsorted(record_starts, starts, side="right") - 1
        keep = ends > starts
        if not keep.all():
            starts, ends, rows = starts[keep], ends[keep], rows[keep]
        self._data = data
        self._starts, self._ends = starts, ends
        self.rows: Indices = rows.astype(np.int64)
        first = np.searchsorted(self.rows, np.arange(len(records)))
        self.indexes: Indices = np.arange(len(rows)) - first[self.rows]
        self.raw = _slices(data, starts, ends)

    def cut(self) -> tuple[pa.Array, pa.Array, Any]:
        """(prefixes, payloads, cut): two string columns, and which lines could be cut at all.

        A prefix is the line up to the payload, closed by a brace in place of the comma.
        """
        at = pc.find_substring(self.raw, _PAYLOAD).to_numpy().astype(np.int64)
        closed = self._data[self._ends - 1] == ord("}")
        fits = (at > 0) & closed & (self._ends - self._starts >= at + len(_PAYLOAD) + 3)
        comma = np.where(fits, self._starts + at, self._starts)
        data = self._data.copy()
        data[comma[fits]] = ord("}")
        prefixes = _slices(data, self._starts, np.where(fits, comma + 1, self._starts))
        payload_starts = np.where(fits, comma + len(_PAYLOAD), self._starts)
        payloads = _slices(data, payload_starts, np.where(fits, self._ends - 1, self._starts))
        opens = self._data[np.minimum(payload_starts, len(self._data) - 1)] == ord("{")
        return prefixes, payloads, fits & opens


def _slices(data: Any, starts: Any, ends: Any) -> pa.Array:
    """The slices [start, end) of a buffer as a binary column; copies what it keeps."""
    cuts = np.empty(2 * len(starts) + 1, np.int32)
    cuts[0:-1:2], cuts[1::2], cuts[-1] = starts, ends, len(data)
    # Every second element is what lies between two slices; ends never pass the next start.
    cells = pa.Array.from_buffers(
        pa.binary(), len(cuts) - 1, [None, pa.py_buffer(cuts), pa.py_buffer(data)]
    )
    return cells.take(pa.array(np.arange(0, len(cuts) - 1, 2)))


def read_blocks(
    connection: duckdb.DuckDBPyConnection, records: Sequence[Record], topic_id: str
) -> tuple[pa.Table, Any, Lines]:
    """(judged table, ok, lines). Rows that are not `ok` must be judged strictly, line by line."""
    lines = Lines(records)
    prefixes, payloads, ok = lines.cut()
    typed, typed_ok = _type_prefixes(connection, prefixes, ok)
    ok = ok & typed_ok
    texts = payloads.to_pylist()
    ok = ok & np.fromiter((is_payload(text) for text in texts), bool, len(texts))
    payloads, ok = _text(payloads, texts, ok)
    size = len(ok)
    timestamp = typed["timestamp_ms"]
    received = typed["received_ms"]
    versions = schema_versions(records, lines.rows)
    if typed["version"].null_count < size:
        versions = pc.coalesce(typed["version"], versions.cast(pa.string()))
    columns = {
        **record_columns(records, lines.rows, lines.indexes, topic_id),
        "tenant_id": per_record(
            [header(blocks.TENANT)(r) or blocks.DEFAULT_TENANT for r in records], lines.rows
        ),
        "source_id": typed["source_id"].dictionary_encode(),
        "event_id": typed["event_id"],
        "client_event_id": typed["client_event_id"],
        "event_type": typed["event_type"].dictionary_encode(),
        "event_time": milliseconds(pc.coalesce(timestamp, received)),
        "received_at": milliseconds(received),
        "payload": payloads,
        "tags": typed["tags"],
        "schema_version": versions,
        "dedup_scope": _scopes(timestamp, typed["bucket"]),
        "sample_rate": pa.array(np.ones(size)),
        "verdict": constant(blocks.VALID, size),
        "raw": lines.raw,
    }
    return judged_table(columns, size), ok, lines


def cuts(sizes: Any) -> Iterator[tuple[int, int]]:
    """The borders (start, stop) of groups of about `GROUP_BYTES`, given the size of each member."""
    ends = np.cumsum(sizes, dtype=np.int64)
    start, done = 0, 0
    while start < len(ends):
        stop = min(int(np.searchsorted(ends, done + GROUP_BYTES)) + 1, len(ends))
        yield start, stop
        start, done = stop, int(ends[stop - 1])


def groups(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """`records` in order, in groups of about `GROUP_BYTES`."""
    sizes = np.fromiter([len(record.value) for record in records], np.int64, len(records))
    for start, stop in cuts(sizes):
        yield records[start:stop]


def _type_prefixes(
    connection: duckdb.DuckDBPyConnection, prefixes: pa.Array, ok: Any
) -> tuple[dict[str, pa.Array], Any]:
    if not ok.all():
        prefixes = pc.if_else(pa.array(ok), prefixes, b"{}")
    try:
        table = _query(connection, prefixes.cast(pa.string()))
    except (duckdb.Error, pa.ArrowInvalid):
        # A prefix that is no JSON: the first `,"payload":` of its line was a nested one, or no
        # gateway wrote it. The others of the group keep their speed, and their verdict.
        prefixes = _readable(connection, prefixes)
        try:
            table = _query(connection, prefixes)
        except duckdb.Error:
            table = _query(connection, pa.array(["{}"] * len(prefixes)))
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    valid = columns.pop("ok").to_numpy(zero_copy_only=False).astype(bool)
    if not valid.all():
        # A time out of range must not overflow below; the strict judge sees the row anyway.
        mask = pa.array(valid)
        for name in ("timestamp_ms", "received_ms"):
            columns[name] = pc.if_else(mask, columns[name], pa.scalar(0, pa.int64()))
    return columns, valid


def _readable(connection: duckdb.DuckDBPyConnection, prefixes: pa.Array) -> pa.Array:
    """The prefixes that DuckDB can read, by its own rules; empty objects in place of the others."""
    texts = pa.array([t if is_utf8(t) else b"" for t in prefixes.to_pylist()], pa.binary())
    connection.register("chunk", pa.table({"prefix": texts.cast(pa.string())}))
    try:
        rows = connection.execute(
            "select case when json_valid(prefix) then prefix else '{}' end as prefix from chunk"
        ).to_arrow_table()
    finally:
        connection.unregister("chunk")
    return rows["prefix"].combine_chunks()


def _query(connection: duckdb.DuckDBPyConnection, prefixes: pa.Array) -> pa.Table:
    connection.register("chunk", pa.table({"prefix": prefixes}))
    try:
        return connection.execute(_QUERY).to_arrow_table()
    finally:
        connection.unregister("chunk")


def _text(payloads: pa.Array, texts: list[bytes], ok: Any) -> tuple[pa.Array, Any]:
    try:
        if ok.all():
            return payloads.cast(pa.string()), ok
    except pa.ArrowInvalid:
        pass
    ok = ok & np.fromiter((is_utf8(text) for text in texts), bool, len(texts))
    return pc.if_else(pa.array(ok), payloads, b"").cast(pa.string()), ok


def _scopes(timestamp: pa.Array, buckets: pa.Array) -> pa.Array:
    hours = pc.floor(pc.divide(timestamp.cast(pa.float64()), float(identity.HOUR_MS)))
    scopes = hours.cast(pa.int32())
    if buckets.null_count == len(buckets):
        return scopes
    numbers = [
        None if b is None else identity.BUCKET_BASE + int(b, 16) for b in buckets.to_pylist()
    ]
    return pc.coalesce(scopes, pa.array(numbers, pa.int32()))
