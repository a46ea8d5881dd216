"""Kafka records as the platform sees them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

from dc_platform.errors import TopicChangedError

KafkaClient = Literal["auto", "kafka-python", "librdkafka"]

# A block of the gateway has at most 1,000 events or 1 MiB, a rejected body up to 10 MiB.
MAX_RECORD_BYTES = 16 * 2**20
# Of every record that has none: shared, and not to be changed.
NO_HEADERS: dict[str, bytes] = {}


class Record(NamedTuple):
    """One Kafka record. `timestamp_ms` is the broker's append time."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    headers: dict[str, bytes]
    value: bytes


class Acknowledged(NamedTuple):
    """Where Kafka put a record."""

    partition: int
    offset: int


class TopicInfo(NamedTuple):
    """A topic and the cluster that it is in. A recreated topic has another `topic_id`."""

    name: str
    cluster_id: str
    topic_id: str
    partitions: int


class Poll(NamedTuple):
    """What one poll gave: the records, and per partition read the offset to go on from.

    `next_offsets` can lie beyond the last record + 1: transactions leave markers in the log.
    """

    records: list[Record]
    next_offsets: dict[int, int]


class RecordReader(Protocol):
    """Reads assigned partitions of one topic from given offsets, in offset order.

    Records of open or aborted transactions are never seen. A topic that is no longer `info` is an
    error, never read on: offsets of another topic mean nothing. Not thread-safe.

    Every method but `positions` and `close` raises BrokerUnavailableError when Kafka does not
    answer, but a `poll` may be empty instead; the reader goes on when Kafka is back.
    """

    info: TopicInfo

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read from these offsets on, partition → next offset."""

    def poll(self, timeout_ms: int) -> Poll:
        """The records that arrive within `timeout_ms`; returns as soon as there are any.

        Raises OffsetsExpiredError when Kafka has not, or not yet, what is next, until it is
        assigned anew; TopicChangedError when the topic is another one or has more partitions.
        """

    def positions(self, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → the offset that the next poll reads from."""

    def end_offsets(self, timeout_ms: int | None = None) -> dict[int, int]:
        """Partition → the offset after the last committed record, as the broker says now.

        Raises TopicChangedError as `poll` does.
        """

    def beginning_offsets(self) -> dict[int, int]:
        """Partition → the oldest offset that Kafka still has."""

    def close(self) -> None:
        """Disconnect."""


def check_topic(info: TopicInfo, topic_id: str, partitions: int) -> None:
    """Raises TopicChangedError when that is not `info`, or `info` has more partitions now."""
    if topic_id != info.topic_id:
        raise TopicChangedError(
            f"topic {info.name!r} was deleted and created again: it was {info.topic_id}, now it is"
            f" {topic_id}"
        )
    if partitions > info.partitions:
        raise TopicChangedError(
            f"topic {info.name!r} has more than its {info.partitions} partitions"
        )
