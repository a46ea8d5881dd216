"""Reading, writing and administering Kafka, with kafka-python.

Partitions are assigned by hand: there is no consumer group, so no rebalance can move a partition,
and no committed offset can contradict the Delta log.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import (
    CorruptRecordError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
)
from kafka.partitioner.default import murmur2

from dc_platform.broker.records import (
    MAX_RECORD_BYTES,
    NO_HEADERS,
    Acknowledged,
    Poll,
    Record,
    Records,
    TopicInfo,
    check_topic,
)
from dc_platform.errors import BrokerUnavailableError, ConfigurationError, OffsetsExpiredError

_FETCH_BYTES = 4 * 2**20
_CONNECT_MS = 5000
TOPIC_CONFIG = {
    # The broker's clock, not the producer's: verdicts on strangers' records depend on it.
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": str(MAX_RECORD_BYTES),
}


@contextmanager
def _translated(what: str, bootstrap: str) -> Iterator[None]:
    try:
        yield
    except (NoOffsetForPartitionError, OffsetOutOfRangeError) as error:
        raise OffsetsExpiredError(f"{what}: {error}") from error
    except CorruptRecordError as error:
        raise BrokerUnavailableError(
            f"{what}: a record of Kafka at {bootstrap} cannot be read ({error}): librdkafka may read"
            " it: pip install 'dc-platform[librdkafka]'"
        ) from error
    except (KafkaError, OSError) as error:
        raise BrokerUnavailableError(
            f"{what}: Kafka at {bootstrap} failed ({type(error).__name__}: {error});"
            " is the broker up? (dcp status)"
        ) from error


@contextmanager
def _admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=_CONNECT_MS)
    try:
        yield client
    finally:
        client.close()


def cluster_id(bootstrap: str) -> str:
    """The id of the cluster that answers there."""
    with _translated("describe cluster", bootstrap), _admin(bootstrap) as admin:
        return str(admin.describe_cluster()["cluster_id"])


def describe_topic(bootstrap: str, topic: str) -> TopicInfo | None:
    """The topic as the broker knows it now, or None when there is none of that name."""
    with _translated("describe topic", bootstrap), _admin(bootstrap) as admin:
        cluster_id = admin.describe_cluster()["cluster_id"]
        found = admin.describe_topics([topic])[0]
    if found["error_code"] != 0:
        return None
    return TopicInfo(topic, cluster_id, str(found["topic_id"]), len(found["partitions"]))


def ensure_topic(bootstrap: str, topic: str, *, partitions: int, replication: int) -> TopicInfo:
    """The topic, created when missing."""
    info = describe_topic(bootstrap, topic)
    if info:
        return info
    with _translated("create topic", bootstrap), _admin(bootstrap) as admin:
        with suppress(TopicAlreadyExistsError):
            admin.create_topics(
                [NewTopic(topic, partitions, replication, topic_configs=TOPIC_CONFIG)]
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            info = describe_topic(bootstrap, topic)
            if info:
                return info
            time.sleep(0.1)
    raise BrokerUnavailableError(f"topic {topic!r} did not appear within 10 s of its creation")


def partition_of(source_id: str, partitions: int) -> int:
    """The partition of a source: Kafka's default partitioner on the source id as key."""
    return int((murmur2(source_id.encode()) & 0x7FFFFFFF) % partitions)


class KafkaPythonReader:
    """A `RecordReader`."""

    def __init__(self, bootstrap: str, info: TopicInfo, *, max_records: int = 2_000) -> None:
        self.info = info
        self._bootstrap = bootstrap
        with _translated("connect", bootstrap):
            self._consumer = KafkaConsumer(
                bootstrap_servers=bootstrap,
                client_id="dcp-reader",
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                fetch_max_wait_ms=100,
                # Compressed: four partitions fill about 140,000 events of 320 bytes per poll. A
                # record that is larger comes alone.
                fetch_max_bytes=4 * _FETCH_BYTES,
                max_partition_fetch_bytes=_FETCH_BYTES,
                max_poll_records=max_records,
                receive_message_max_bytes=8 * MAX_RECORD_BYTES,
                reconnect_backoff_max_ms=1000,
                # How soon more partitions, or another topic of this name, are noticed.
                metadata_max_age_ms=5000,
                bootstrap_timeout_ms=_CONNECT_MS,
                metrics_enabled=False,
            )

    def _partitions(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self.info.name, number) for number in numbers]

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read from these offsets on, partition → next offset."""
        with _translated("assign", self._bootstrap):
            self._consumer.assign(self._partitions(offsets))
            for number, offset in offsets.items():
                self._consumer.seek(TopicPartition(self.info.name, number), offset)

    def poll(self, timeout_ms: int) -> Poll:
        """The records that arrive within `timeout_ms`; returns as soon as there are any."""
        try:
            with _translated("poll", self._bootstrap):
                polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=timeout_ms)
                positions = {
                    tp.partition: int(self._consumer.position(tp, timeout_ms=5000)) for tp in polled
                }
        except OffsetsExpiredError:
            # The offset may be another topic's, which the consumer does not know yet.
            now = describe_topic(self._bootstrap, self.info.name)
            if now is not None:
                check_topic(self.info, now.topic_id, now.partitions)
            raise
        self._check_topic()
        records = [_record(raw) for batch in polled.values() for raw in batch]
        return Poll(Records.of(records), positions)

    def positions(self, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → the offset that the next poll reads from."""
        with _translated("position", self._bootstrap):
            return {
                number: int(
                    self._consumer.position(TopicPartition(self.info.name, number), timeout_ms=5000)
                )
                for number in partitions
            }

    def end_offsets(self, timeout_ms: int | None = None) -> dict[int, int]:
        """Partition → the offset after the last committed record, as the broker says now."""
        with _translated("end offsets", self._bootstrap):
            ends = self._consumer.end_offsets(
                self._partitions(range(self.info.partitions)), timeout_ms
            )
        self._check_topic()
        return {tp.partition: int(offset) for tp, offset in ends.items()}

    def beginning_offsets(self) -> dict[int, int]:
        """Partition → the oldest offset that Kafka still has."""
        with _translated("beginning offsets", self._bootstrap):
            begins = self._consumer.beginning_offsets(self._partitions(range(self.info.partitions)))
        return {tp.partition: int(offset) for tp, offset in begins.items()}

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _check_topic(self) -> None:
        # The consumer goes by the name alone, and has no public way to the id. It asks for metadata
        # when a fetch finds no topic; one that was made anew between two fetches shows up later.
        cluster = self._consumer._cluster
        topic_id = str(cluster.topic_id(self.info.name) or self.info.topic_id)
        partitions = len(cluster.partitions_for_topic(self.info.name) or ())
        check_topic(self.info, topic_id, partitions)


def _record(raw: Any) -> Record:
    # Of several headers with one name the first counts, as in Trino's view of them.
    headers = NO_HEADERS
    if raw.headers:
        headers = {name: value or b"" for name, value in reversed(raw.headers)}
    return Record(raw.partition, raw.offset, raw.timestamp, headers, raw.value or b"")


class RecordWriter:
    """A plain idempotent producer for tools, tests and benches (the gateway has its own)."""

    def __init__(self, bootstrap: str, topic: str, *, compression: str | None = "lz4") -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        with _translated("connect", bootstrap):
            self._producer = KafkaProducer(
                bootstrap_servers=bootstrap,
                acks="all",
                enable_idempotence=True,
                compression_type=compression,
                max_request_size=MAX_RECORD_BYTES,
                batch_size=2**19,
                linger_ms=5,
                bootstrap_timeout_ms=_CONNECT_MS,
                metrics_enabled=False,
            )

    def write(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> Any:
        """Queue one record; the future that is returned has its offset."""
        if value is not None and len(value) > MAX_RECORD_BYTES:
            raise ConfigurationError(f"record of {len(value)} bytes, limit {MAX_RECORD_BYTES}")
        with _translated("write", self._bootstrap):
            return self._producer.send(
                self._topic, value=value, key=key, partition=partition, headers=list(headers)
            )

    def written(self, queued: Sequence[Any]) -> list[Acknowledged]:
        """Where Kafka put the records that these futures stand for; waits until it has them."""
        with _translated("write", self._bootstrap):
            done = [future.get(timeout=60) for future in queued]
        return [Acknowledged(record.partition, record.offset) for record in done]

    def flush(self) -> None:
        """Wait until Kafka has everything."""
        with _translated("flush", self._bootstrap):
            self._producer.flush(timeout=60)

    def close(self) -> None:
        """Flush and disconnect."""
        self._producer.close()
