"""The workload of the landing benches: events of about 320 bytes, 1,000 sources, 4 partitions.

The same events in three formats: NDJSON blocks as a gateway writes them, Arrow blocks of a producer
that holds columns, and one plain JSON event per record.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from dc_platform.broker.client import RecordWriter, ensure_topic, partition_of
from dc_platform.contracts import blocks
from dc_platform.contracts.blocks import BlockId, block_headers
from dc_platform.contracts.identity import HOUR_MS

SOURCES = 1_000
PARTITIONS = 4
BLOCK_EVENTS = 1_000

_TYPES = ("page_view", "click", "purchase", "search", "signup")
_COUNTRIES = ("DE", "US", "FR", "IN", "BR", "JP", "NG", "SE")


@dataclass(frozen=True)
class Event:
    """One event before it has a format."""

    source_id: str
    event_id: str
    timestamp_ms: int
    event_type: str
    payload: bytes


def source_id(number: int) -> str:
    """Id of a source of the workload."""
    return str(uuid.UUID(int=0xBE7C_0000 + number))


def payload(rng: random.Random) -> bytes:
    """About 130 bytes of JSON, with numbers that a re-serialising reader would change."""
    return (
        b'{"userId":"user-%06d","page":"/products/%04d","country":"%s","duration":%d.%d0,'
        b'"session":"%016x","ok":true}'
        % (
            rng.randrange(200_000),
            rng.randrange(5_000),
            rng.choice(_COUNTRIES).encode(),
            rng.randrange(600),
            rng.randrange(10),
            rng.getrandbits(64),
        )
    )


def generate(
    count: int, *, now_ms: int, duplicates: Sequence[Event] = (), seed: int = 1
) -> Iterator[list[Event]]:
    """`count` events in blocks of one source each; `duplicates` are spread evenly among them.

    New events have timestamps within the hour before `now_ms`.
    """
    rng = random.Random(seed)
    by_source: dict[str, list[Event]] = {}
    for event in duplicates:
        by_source.setdefault(event.source_id, []).append(event)
    made = 0
    number = 0
    while made < count:
        source = source_id(number % SOURCES)
        number += 1
        block = by_source.get(source, [])[: BLOCK_EVENTS // 4]
        by_source[source] = by_source.get(source, [])[len(block) :]
        while len(block) < min(BLOCK_EVENTS, count - made):
            block.append(
                Event(
                    source,
                    str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                    now_ms - rng.randrange(HOUR_MS),
                    rng.choice(_TYPES),
                    payload(rng),
                )
            )
        rng.shuffle(block)
        made += len(block)
        yield block


def as_line(event: Event, received_ms: int) -> bytes:
    """The canonical line of an event (`contracts.lines`)."""
    return (
        b'{"eventId":"%s","sourceId":"%s","timestamp":%d,"eventType":"%s",'
        b'"metadata":{"receivedAt":%d},"payload":%s}'
        % (
            event.event_id.encode(),
            event.source_id.encode(),
            event.timestamp_ms,
            event.event_type.encode(),
            received_ms,
            event.payload,
        )
    )


def as_plain_json(event: Event) -> bytes:
    """An event of design 3.2, as anyone's producer writes it."""
    return msgspec.json.encode(
        {
            "eventId": event.event_id,
            "sourceId": event.source_id,
            "timestamp": event.timestamp_ms,
            "eventType": event.event_type,
            "payload": msgspec.Raw(event.payload),
        }
    )


def as_arrow(events: Sequence[Event]) -> bytes:
    """An Arrow IPC stream of events (docs/api.md)."""
    table = pa.table(
        {
            "eventId": [e.event_id for e in events],
            "sourceId": [e.source_id for e in events],
            "timestamp": pa.array([e.timestamp_ms for e in events], pa.int64()),
            "eventType": [e.event_type for e in events],
            "payload": [e.payload.decode() for e in events],
        }
    )
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def produce(
    bootstrap: str, topic: str, format_: str, event_blocks: Iterator[list[Event]], received_ms: int
) -> tuple[int, int]:
    """Write blocks to a new topic; gives (events, bytes of values)."""
    ensure_topic(bootstrap, topic, partitions=PARTITIONS, replication=1)
    writer = RecordWriter(bootstrap, topic, compression=None if format_ == "arrow" else "lz4")
    events = size = 0
    for number, block in enumerate(event_blocks):
        partition = partition_of(block[0].source_id, PARTITIONS)
        key = block[0].source_id.encode()
        for value, headers in _records(format_, block, number, received_ms):
            writer.write(value, key=key, partition=partition, headers=headers)
            size += len(value)
        events += len(block)
    writer.flush()
    writer.close()
    return events, size


def _records(
    format_: str, block: list[Event], number: int, received_ms: int
) -> Iterator[tuple[bytes, list[tuple[str, bytes]]]]:
    if format_ == "json":
        for event in block:
            yield as_plain_json(event), []
    elif format_ == "arrow":
        yield as_arrow(block), [(blocks.CONTENT_TYPE, blocks.ARROW.encode())]
    else:
        headers: Any = block_headers(
            BlockId("bench", "1", number),
            content_type=blocks.NDJSON,
            verdict=blocks.VALID,
            tenant=blocks.DEFAULT_TENANT,
            counts={block[0].source_id: len(block)},
        )
        yield b"\n".join(as_line(e, received_ms) for e in block), headers
