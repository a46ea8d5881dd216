"""What Kafka will delete, and how old and how large that is which nobody has landed yet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from dc_platform.broker.client import _admin, _translated
from dc_platform.broker.records import TopicInfo

_PATIENCE_SECONDS = 10.0


class Retention(NamedTuple):
    """How long the topic keeps records: milliseconds, and bytes of each partition; None: no limit.

    A topic that is `compacted` also deletes records with the same key, whenever it likes.
    """

    ms: int | None
    bytes: int | None
    compacted: bool


class Held(NamedTuple):
    """What Kafka has of a partition: offsets [begin, end), the bytes of all of it, and the broker's
    append time (epoch milliseconds) of the first record that has not landed; None when there is none,
    or when the partition did not say (`answered`).
    """

    begin: int
    end: int
    bytes: int
    oldest_ms: int | None
    answered: bool = True


def retention_of(bootstrap: str, topic: str) -> Retention:
    """The retention that is in force, be it the topic's own or the broker's default."""
    names = dict.fromkeys(("retention.ms", "retention.bytes", "cleanup.policy"))
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, names)
    with _translated("describe configs", bootstrap), _admin(bootstrap) as admin:
        found = admin.describe_configs([resource], config_filter="all")["topic"][topic]
    values = {name: found[name]["value"] for name in names}
    return Retention(
        _limit(values["retention.ms"]),
        _limit(values["retention.bytes"]),
        "compact" in values["cleanup.policy"],
    )


def _limit(value: str) -> int | None:
    return int(value) if int(value) >= 0 else None


def held(bootstrap: str, info: TopicInfo, borders: Mapping[int, int]) -> dict[int, Held]:
    """Partition → what Kafka has of it. `borders`: partition → next offset to land.

    Reads at most one fetch of each partition that has not landed wholly, and stops asking after 10 s.
    """
    partitions = [TopicPartition(info.name, number) for number in range(info.partitions)]
    with _translated("look at retention", bootstrap), _admin(bootstrap) as admin:
        sizes = _sizes(admin, info)
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            client_id="dcp-retention",
            enable_auto_commit=False,
            auto_offset_reset="none",
            # What an open transaction holds back grows old as well.
            isolation_level="read_uncommitted",
            max_partition_fetch_bytes=2**16,
            max_poll_records=1,
            bootstrap_timeout_ms=5000,
            metrics_enabled=False,
        )
        try:
            begins = consumer.beginning_offsets(partitions)
            ends = consumer.end_offsets(partitions)
            starts = {p: max(borders.get(p.partition, 0), begins[p]) for p in partitions}
            behind = {p: s for p, s in starts.items() if s < ends[p]}
            oldest, silent = _oldest(consumer, behind, ends)
        finally:
            consumer.close()
    return {
        p.partition: Held(
            begins[p], ends[p], sizes.get(p.partition, 0), oldest.get(p), p not in silent
        )
        for p in partitions
    }


def _sizes(admin: KafkaAdminClient, info: TopicInfo) -> dict[int, int]:
    """Partition → bytes of its largest replica."""
    sizes: dict[int, int] = {}
    brokers = admin.describe_log_dirs({info.name: list(range(info.partitions))})
    for part in _parts(brokers):
        number = part["partition_index"]
        sizes[number] = max(sizes.get(number, 0), part["partition_size"])
    return sizes


def _parts(brokers: Iterable[Any]) -> Iterable[Any]:
    for broker in brokers:
        for directory in broker["log_dirs"]:
            for topic in directory["topics"]:
                yield from topic["partitions"]


def _oldest(
    consumer: KafkaConsumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> tuple[dict[TopicPartition, int], set[TopicPartition]]:
    """Append time of the first record at or after each start, where there is one; and the partitions
    that did not answer in time, of which nobody can tell.
    """
    found: dict[TopicPartition, int] = {}
    waiting = dict(starts)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while waiting and time.monotonic() < deadline:
        # Assigned anew: a partition that has answered must not fill the next poll.
        consumer.assign(list(waiting))
        for partition, offset in waiting.items():
            consumer.seek(partition, offset)
        for partition, records in consumer.poll(timeout_ms=1000).items():
            found[partition] = records[0].timestamp
            del waiting[partition]
        for partition in list(waiting):
            # Markers of transactions, and nothing behind them.
            waiting[partition] = int(consumer.position(partition, timeout_ms=1000))
            if waiting[partition] >= ends[partition]:
                del waiting[partition]
    return found, set(waiting)
