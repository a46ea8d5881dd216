"""Reader of the gateway's NDJSON blocks: canonical lines (`contracts.lines`), a million per second.

All lines of a batch of records are one buffer. The payload, which stands last, is cut off by its
position, unparsed and byte for byte (DuckDB's JSON functions would write `1.10` as `1.1`); what is
left of each line is small, and DuckDB types it in columns. A line that is not as the gateway writes
them (a forged or damaged block) goes to the strict judge, alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Records
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import (
    MAX_EVENT_TYPE_LENGTH,
    MAX_TIMESTAMP_MS,
    MIN_TIMESTAMP_MS,
)
from dc_platform.decode.columns import (
    Indices,
    as_dictionary,
    as_plain,
    constant,
    header,
    is_utf8,
    judged_table,
    judged_versions,
    milliseconds,
    per_record,
    record_columns,
    schema_versions,
)
from dc_platform.decode.prefixes import read_prefixes, slices
from dc_platform.decode.texts import are_payloads

_NEWLINE = 10
_PAYLOAD = b',"payload":'
# Bytes of records that are judged at once. Buffers of this size are reused by the allocator; joining
# 75 MB at once cost 1.2 µs an event in page faults alone.
GROUP_BYTES = 6 * 2**20

_TYPES = (
    '{"eventId":"VARCHAR","sourceId":"VARCHAR","timestamp":"BIGINT","eventType":"VARCHAR",'
    '"metadata":{"receivedAt":"BIGINT","version":"VARCHAR","clientEventId":"VARCHAR",'
    '"tags":"MAP(VARCHAR,VARCHAR)","judgedBy":"VARCHAR","flagged":["VARCHAR"]}}'
)
_QUERY = f"""
    select
        e.eventId as event_id, e.sourceId as source_id, e.timestamp as timestamp_ms,
        e.eventType as event_type, e.metadata.receivedAt as received_ms,
        e.metadata.version as version, e.metadata.clientEventId as client_event_id,
        e.metadata.tags as tags, e.metadata.judgedBy as judged_by, e.metadata.flagged as flags,
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

    def __init__(self, records: Records) -> None:
        buffer = b"\n".join(records.values) + b"\n"
        data = np.frombuffer(buffer, np.uint8)
        ends = np.flatnonzero(data == _NEWLINE)
        starts = np.concatenate([[0], ends[:-1] + 1])
        record_starts = np.concatenate([[0], np.cumsum(records.sizes + 1)[:-1]])
        rows = np.searchsorted(record_starts, starts, side="right") - 1
        keep = ends > starts
        if not keep.all():
            starts, ends, rows = starts[keep], ends[keep], rows[keep]
        self.buffer = buffer
        self._data = data
        self.starts, self._ends = starts, ends
        self.rows: Indices = rows.astype(np.int64)
        first = np.searchsorted(self.rows, np.arange(len(records)))
        self.indexes: Indices = np.arange(len(rows)) - first[self.rows]
        # Where the first line of each line's record starts.
        self.firsts: Indices = starts[first[self.rows]]
        self.raw = slices(data, starts, ends)

    def payloads(self) -> tuple[pa.Array, Any, Any]:
        """(payloads, where they are cut off, cut): what stands between the first `,"payload":` of a
        line and its last brace, and which lines could be cut at all.
        """
        at = _first_places(self.buffer, self.starts, self._ends)
        closed = self._data[self._ends - 1] == ord("}")
        fits = (at > self.starts) & closed & (self._ends >= at + len(_PAYLOAD) + 3)
        commas = np.where(fits, at, self.starts)
        begins = np.where(fits, at + len(_PAYLOAD), self.starts)
        payloads = slices(self._data, begins, np.where(fits, self._ends - 1, self.starts))
        fits &= self._data[np.minimum(begins, len(self._data) - 1)] == ord("{")
        return payloads, commas, fits

    def prefixes(self, rows: Any, commas: Any) -> pa.Array:
        """The lines of `rows` up to the payload, closed by a brace in place of the comma."""
        data = self._data.copy()
        starts, ends = self.starts[rows], commas[rows]
        cut = ends > starts
        data[ends[cut]] = ord("}")
        return slices(data, starts, np.where(cut, ends + 1, ends))


def _first_places(buffer: bytes, starts: Any, ends: Any) -> Any:
    """Where in each line `,"payload":` first stands; -1 where it does not."""
    commas = np.flatnonzero(np.frombuffer(buffer, np.uint8) == ord(","))
    commas = commas[commas <= len(buffer) - len(_PAYLOAD)]
    if not len(commas):
        return np.full(len(starts), -1)
    # Eight bytes from each byte on, and the three behind them.
    words = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    places = commas[words[commas] == np.frombuffer(_PAYLOAD[:8], "<u8")]
    places = places[words[places + 3] == np.frombuffer(_PAYLOAD[3:], "<u8")]
    if not len(places):
        return np.full(len(starts), -1)
    at = np.searchsorted(places, starts)
    found = places[np.minimum(at, len(places) - 1)]
    return np.where((at < len(places)) & (found < ends), found, -1)


def read_blocks(
    connection: duckdb.DuckDBPyConnection, records: Records, topic_id: str
) -> tuple[pa.Table, Any, Lines]:
    """(judged table, ok, lines). Rows that are not `ok` must be judged strictly, line by line."""
    lines = Lines(records)
    payloads, commas, ok = lines.payloads()
    typed, typed_ok = _typed(connection, lines, commas, ok)
    payloads, ok = _text(payloads, ok & typed_ok)
    if not ok.all():
        payloads = pc.if_else(pa.array(ok), payloads, "{}")
    ok = ok & are_payloads(payloads)
    size = len(ok)
    timestamp = typed["timestamp_ms"]
    received = typed["received_ms"]
    versions = schema_versions(records, lines.rows)
    if typed["judged_by"].null_count < size:
        versions = judged_versions(typed["judged_by"], versions)
    if typed["version"].null_count < size:
        versions = pc.coalesce(as_plain(typed["version"]), as_plain(versions))
    columns = {
        **record_columns(records, lines.rows, lines.indexes, topic_id),
        "tenant_id": per_record(
            [header(blocks.TENANT)(h) or blocks.DEFAULT_TENANT for h in records.headers], lines.rows
        ),
        "source_id": as_dictionary(typed["source_id"]),
        "event_id": typed["event_id"],
        "client_event_id": typed["client_event_id"],
        "event_type": as_dictionary(typed["event_type"]),
        "event_time": milliseconds(pc.coalesce(timestamp, received)),
        "received_at": milliseconds(received),
        "payload": payloads,
        "tags": typed["tags"],
        "schema_version": versions,
        "dedup_scope": _scopes(timestamp, typed["bucket"]),
        "sample_rate": pa.array(np.ones(size)),
        "verdict": constant(blocks.VALID, size),
        "raw": lines.raw,
        "judged_by": as_dictionary(typed["judged_by"]),
        "flags": typed["flags"],
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


def groups(records: Records) -> Iterator[Records]:
    """`records` in order, in groups of about `GROUP_BYTES`."""
    for start, stop in cuts(records.sizes):
        yield records[start:stop]


def _typed(
    connection: duckdb.DuckDBPyConnection, lines: Lines, commas: Any, fits: Any
) -> tuple[dict[str, pa.Array], Any]:
    """(columns of the lines' prefixes, ok): by position where they are simple, by DuckDB elsewhere."""
    read = read_prefixes(
        lines.buffer, lines.starts, np.where(fits, commas, lines.starts), lines.firsts
    )
    if read is None:
        return _type_prefixes(connection, lines.prefixes(slice(None), commas), fits)
    simple = read.simple
    columns = {**read._asdict(), **_absent(int(simple.sum()))}
    columns.pop("simple")
    if simple.all():
        return columns, simple
    rest = np.flatnonzero(~simple)
    others, ok = _type_prefixes(connection, lines.prefixes(rest, commas), fits[rest])
    order = pa.array(np.argsort(np.concatenate([np.flatnonzero(simple), rest])))
    joined = {}
    for name, column in columns.items():
        both = [as_plain(column), as_plain(others[name]).cast(as_plain(column).type)]
        joined[name] = pa.concat_arrays(both).take(order)
    typed_ok = simple.copy()
    typed_ok[rest] = ok
    return joined, typed_ok


def _absent(size: int) -> dict[str, pa.Array]:
    """Columns that a simple prefix has not."""
    return {name: pa.nulls(size, pa.string()) for name in ("client_event_id", "bucket")}


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


def _text(payloads: pa.Array, ok: Any) -> tuple[pa.Array, Any]:
    """(payloads as texts, ok): those that are no UTF-8 are not ok, and `{}`."""
    try:
        texts = payloads.cast(pa.string())
    except pa.ArrowInvalid:
        are_texts = map(is_utf8, payloads.to_pylist())
        ok = ok & np.fromiter(are_texts, bool, len(payloads))
        texts = pc.if_else(pa.array(ok), payloads, b"{}").cast(pa.string())
    return texts, ok


def _scopes(timestamp: pa.Array, buckets: pa.Array) -> pa.Array:
    hours = pc.floor(pc.divide(timestamp.cast(pa.float64()), float(identity.HOUR_MS)))
    scopes = hours.cast(pa.int32())
    if buckets.null_count == len(buckets):
        return scopes
    numbers = [
        None if b is None else identity.BUCKET_BASE + int(b, 16) for b in buckets.to_pylist()
    ]
    return pc.coalesce(scopes, pa.array(numbers, pa.int32()))
