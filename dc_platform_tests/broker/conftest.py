"""A topic on a real broker, what writes to it, and readers of both clients."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient

from dc_platform.broker.client import describe_topic, ensure_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import KafkaClient, RecordReader, TopicInfo
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.stack.harness import free_ports, wait_for


class Topic:
    """A topic of its own, with two partitions."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.name = f"events-{uuid.uuid4().hex[:8]}"
        self.info = self.create()
        self.writer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
        self._readers: list[RecordReader] = []

    def create(self) -> TopicInfo:
        """The topic, created when missing."""
        return ensure_topic(self.bootstrap, self.name, partitions=2, replication=1)

    def delete(self) -> None:
        """Delete the topic; returns when the broker has forgotten it."""
        with_admin(self.bootstrap, lambda admin: admin.delete_topics([self.name]))
        wait_for(lambda: describe_topic(self.bootstrap, self.name) is None)

    def write(self, *values: bytes | None, partition: int = 0, **more: Any) -> None:
        """Write records; returns when Kafka has them."""
        self.write_records([(value, more) for value in values], partition)

    def write_records(self, records: Iterable[tuple[bytes | None, Any]], partition: int) -> None:
        """The same, each with its key and headers."""
        self._produce(self.writer, records, partition)

    @contextmanager
    def transaction(
        self, records: Iterable[tuple[bytes | None, Any]], partition: int, *, commit: bool = True
    ) -> Iterator[None]:
        """Write records in a transaction that is open for the length of the block."""
        producer = self._transactional
        producer.begin_transaction()
        self._produce(producer, records, partition)
        yield
        (producer.commit_transaction if commit else producer.abort_transaction)(30)

    @cached_property
    def _transactional(self) -> Producer:
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": uuid.uuid4().hex,
                "log_level": 0,
            }
        )
        producer.init_transactions(30)
        return producer

    def _produce(
        self, producer: Producer, records: Iterable[tuple[bytes | None, Any]], partition: int
    ) -> None:
        def delivered(error: Any, _: Any) -> None:
            assert error is None, error

        for value, more in records:
            producer.produce(self.name, value, partition=partition, on_delivery=delivered, **more)
        assert producer.flush(30) == 0

    def reader(self, client: KafkaClient, **more: Any) -> RecordReader:
        """A reader that is closed at the end of the test."""
        self._readers.append(reader_for(self.bootstrap, self.info, client, **more))
        return self._readers[-1]

    def close(self) -> None:
        """Close the readers."""
        for reader in self._readers:
            reader.close()


def with_admin(bootstrap: str, action: Callable[[KafkaAdminClient], Any]) -> None:
    """Administer the broker."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        action(admin)
    finally:
        admin.close()


@pytest.fixture(scope="package")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker for all files of this folder: each test has a topic of its own."""
    port, controller = free_ports(2)
    with LocalKafka(tmp_path_factory.mktemp("kafka"), port, controller) as broker:
        yield broker
        # Nobody needs what it has; some take 30 s for an orderly end.
        broker.kill()


@pytest.fixture
def topic(kafka: LocalKafka) -> Iterator[Topic]:
    made = Topic(kafka.bootstrap)
    yield made
    made.close()


@pytest.fixture(params=["kafka-python", "librdkafka"])
def client(request: pytest.FixtureRequest) -> KafkaClient:
    """Each client in turn."""
    chosen: KafkaClient = request.param
    return chosen
