"""Replayed events into Kafka: blocks as the gateway writes them, and the lines that acknowledge them.

The ledger counts a replayed event as received once more, in the hour of its first receipt, by a line in
the acks topic as it does a gateway's. A replay that is killed before that line is counted by the
block's own header, and one that sends again sends the same block under the same name.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dc_platform.broker.client import RecordWriter, describe_topic, ensure_topic, partition_of
from dc_platform.broker.records import Acknowledged, TopicInfo
from dc_platform.contracts import blocks
from dc_platform.contracts.acks import Ack, Count, ack_line, hour_of
from dc_platform.contracts.blocks import BlockId, block_headers
from dc_platform.errors import ConfigurationError
from dc_platform.landing.replay_judge import Passed
from dc_platform.points import Point, Reached
from dc_platform.registry.database import now_ms
from dc_platform.settings import Settings

_BLOCK_EVENTS = 1_000
_BLOCK_BYTES = 2**20


class Block(NamedTuple):
    """Events of one source that are one record."""

    id: BlockId
    events: list[Passed]

    @property
    def value(self) -> bytes:
        """The record's value."""
        return b"\n".join(event.line for event in self.events)


class Sent(NamedTuple):
    """A block that Kafka has, and where."""

    block: Block
    topic_id: str
    at: Acknowledged


def blocks_of(events: Sequence[Passed]) -> Iterator[Block]:
    """The events of each source in blocks, in their order. A block's name comes from its bytes."""
    number = 0
    for mine in _by_source(events).values():
        for part in _parts(mine):
            digest = hashlib.sha256(b"\n".join(event.line for event in part)).hexdigest()
            yield Block(BlockId("replay", digest[:16], number), part)
            number += 1


def _by_source(events: Sequence[Passed]) -> dict[tuple[str, str], list[Passed]]:
    found: dict[tuple[str, str], list[Passed]] = {}
    for event in events:
        found.setdefault((event.tenant_id, event.source_id), []).append(event)
    return found


def _parts(events: Sequence[Passed]) -> Iterator[list[Passed]]:
    part: list[Passed] = []
    size = 0
    for event in events:
        if part and (len(part) >= _BLOCK_EVENTS or size + len(event.line) > _BLOCK_BYTES):
            yield part
            part, size = [], 0
        part.append(event)
        size += len(event.line)
    if part:
        yield part


class BlockSender:
    """Sends blocks to the topic and their acknowledgements to the acks topic; connects when there is
    something to send.
    """

    def __init__(self, settings: Settings, *, reached: Reached) -> None:
        self._settings = settings
        self._reached = reached
        self._writers: tuple[RecordWriter, RecordWriter] | None = None

    def send(self, events: Sequence[Passed]) -> list[Sent]:
        """Returns when Kafka has the events and the acknowledgements; raises
        BrokerUnavailableError, and then some of them may be there.
        """
        info = self._topic()
        events_to, acks_to = self._connected()
        sending = list(blocks_of(events))
        queued = [self._queue(events_to, block, info) for block in sending]
        sent = [
            Sent(block, info.topic_id, at)
            for block, at in zip(sending, events_to.written(queued), strict=True)
        ]
        self._reached(Point.REPLAY_SENT)
        lines = b"".join(ack_line(_ack(one)) for one in sent)
        acks_to.written([acks_to.write(lines, key=b"replay", partition=0, headers=_ACKS_HEADERS)])
        self._reached(Point.REPLAY_ACKED)
        return sent

    def _topic(self) -> TopicInfo:
        info = describe_topic(self._settings.kafka_bootstrap, self._settings.topic)
        if info is None:
            raise ConfigurationError(
                f"the topic {self._settings.topic} is gone: a gateway or a landing run makes it anew"
            )
        return info

    def _connected(self) -> tuple[RecordWriter, RecordWriter]:
        if self._writers is None:
            bootstrap, acks = self._settings.kafka_bootstrap, self._settings.acks_topic
            replicas = self._settings.topic_replication
            ensure_topic(bootstrap, acks, partitions=1, replication=replicas)
            self._writers = (
                RecordWriter(bootstrap, self._settings.topic),
                RecordWriter(bootstrap, acks),
            )
        return self._writers

    @staticmethod
    def _queue(writer: RecordWriter, block: Block, info: TopicInfo) -> object:
        first = block.events[0]
        headers = block_headers(
            block.id,
            content_type=blocks.NDJSON,
            verdict=blocks.VALID,
            tenant=first.tenant_id,
            counts={first.source_id: len(block.events)},
        )
        return writer.write(
            block.value,
            key=first.source_id.encode(),
            partition=partition_of(first.source_id, info.partitions),
            headers=headers,
        )

    def close(self) -> None:
        """Disconnect."""
        for writer in self._writers or ():
            writer.close()


_ACKS_HEADERS = [(blocks.CONTENT_TYPE, blocks.NDJSON.encode())]


def _ack(sent: Sent) -> Ack:
    hours = Counter(hour_of(event.row.received_ms) for event in sent.block.events)
    first = sent.block.events[0]
    return Ack(
        block=str(sent.block.id),
        tenant=first.tenant_id,
        topic_id=sent.topic_id,
        partition=sent.at.partition,
        offset=sent.at.offset,
        verdict=blocks.VALID,
        at_ms=now_ms(),
        counts=[Count(first.source_id, hour, n) for hour, n in hours.items()],
    )
