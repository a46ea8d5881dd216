"""Arrow records as typed columns (docs/api.md), gathered into chunks of many records.

Each record is read, validated and cast on its own, so that a damaged one spoils no neighbour. Only
what is sound is joined with others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Record
from dc_platform.decode.columns import Indices

# Rows that are judged at once. With 10,000 the calls themselves cost a third more.
CHUNK_ROWS = 50_000
# What is compressed well (or maliciously) must not become much memory in one chunk.
CHUNK_BYTES = 32 * 2**20

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
# Handing the few columns of a record to other threads costs more than decompressing them.
_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)


class Chunk(NamedTuple):
    """The events of some records, each with its record's number and its position in it."""

    records: list[Record]
    rows: Indices
    indexes: Indices
    events: pa.Table


class _Part(NamedTuple):
    record: Record
    start: int
    events: pa.Table


def events_of(record: Record) -> pa.Table:
    """The events of a record, with the columns of `ARROW_EVENTS`."""
    table = pa.ipc.open_stream(record.value, options=_OPTIONS).read_all()
    # Before anything else: a cast trusts the offsets and indices that the bytes claim.
    table.validate(full=True)
    names = table.column_names
    if not _ALIASES.keys().isdisjoint(names):
        names = [_ALIASES.get(name, name) for name in names]
        table = table.rename_columns(names)
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise KeyError(f"column {missing[0]!r} is missing")
    arrays = []
    for field in ARROW_EVENTS:
        if field.name not in names:
            arrays.append(pa.chunked_array([pa.nulls(len(table), field.type)]))
            continue
        column = table[field.name]
        if field.name == "timestamp" and pa.types.is_timestamp(column.type):
            column = _milliseconds(column)
        arrays.append(column if column.type == field.type else column.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=ARROW_EVENTS)


def _milliseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times of any unit and zone, rounded down."""
    utc = column.cast(pa.int64()).cast(pa.timestamp(column.type.unit))
    return pc.floor_temporal(utc, unit="millisecond").cast(pa.timestamp("ms"))


def chunks(found: Iterable[tuple[Record, pa.Table]]) -> Iterator[Chunk]:
    """The events of records in order, in chunks of bounded size."""
    held: list[_Part] = []
    rows = size = 0
    for record, events in found:
        for part in _parts(record, events, 0):
            more = _size(part.events)
            if held and (rows + len(part.events) > CHUNK_ROWS or size + more > CHUNK_BYTES):
                yield _joined(held)
                held, rows, size = [], 0, 0
            held.append(part)
            rows += len(part.events)
            size += more
    if held:
        yield _joined(held)


def _parts(record: Record, events: pa.Table, start: int) -> Iterator[_Part]:
    """The events of one record, halved until each part fits into a chunk."""
    rows = len(events)
    if rows <= 1 or (rows <= CHUNK_ROWS and _size(events) <= CHUNK_BYTES):
        if rows:
            yield _Part(record, start, events)
        return
    yield from _parts(record, events.slice(0, rows // 2), start)
    yield from _parts(record, events.slice(rows // 2), start + rows // 2)


def _size(events: pa.Table) -> int:
    # The exact size of what may be a slice takes longer to find.
    size: int = events.get_total_buffer_size()
    return size if size <= CHUNK_BYTES else int(events.nbytes)


def _joined(parts: list[_Part]) -> Chunk:
    sizes = [len(part.events) for part in parts]
    ends = np.cumsum(sizes)
    first = np.array([part.start for part in parts]) - ends + sizes
    return Chunk(
        [part.record for part in parts],
        np.repeat(np.arange(len(parts)), sizes),
        np.arange(ends[-1]) + np.repeat(first, sizes),
        pa.concat_tables([part.events for part in parts]).combine_chunks(),
    )
