"""Kafka records as the platform sees them. Pure."""

from __future__ import annotations

from typing import NamedTuple


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
