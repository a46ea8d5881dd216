"""A real broker: what it acknowledged it has after `kill -9`, after a move, after a half start."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer

from dc_platform.broker.client import (
    RecordWriter,
    cluster_id,
    describe_topic,
    ensure_topic,
)
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import MAX_RECORD_BYTES, TopicInfo
from dc_platform.errors import FatalError
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.stack.harness import free_ports, wait_for

pytestmark = pytest.mark.kafka
RECORDS = [b"record %d" % number for number in range(500)]


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    port, controller = free_ports(2)
    # A path as people have them.
    broker = LocalKafka(tmp_path / "Müllers data" / "kafka", port, controller)
    yield broker
    broker.kill()


def write(kafka: LocalKafka, records: list[bytes]) -> TopicInfo:
    info = ensure_topic(kafka.bootstrap, "events", partitions=2, replication=1)
    writer = RecordWriter(kafka.bootstrap, "events")
    for record in records:
        writer.write(record, partition=0)
    writer.flush()
    writer.close()
    return info


def read(kafka: LocalKafka, info: TopicInfo, count: int) -> list[bytes]:
    reader = reader_for(kafka.bootstrap, info)
    reader.assign({0: 0})
    found: list[bytes] = []
    wait_for(lambda: len(found.extend(r.value for r in reader.poll(500).records) or found) >= count)
    reader.close()
    return found


def test_kill_9_loses_no_acknowledged_record(kafka: LocalKafka) -> None:
    kafka.start()
    kafka.wait_ready()
    first_pid, first_cluster = kafka.pid, cluster_id(kafka.bootstrap)
    info = write(kafka, RECORDS)
    kafka.kill()
    assert kafka.pid is None
    kafka.start()
    kafka.wait_ready()
    assert kafka.pid != first_pid
    assert cluster_id(kafka.bootstrap) == first_cluster
    assert ensure_topic(kafka.bootstrap, "events", partitions=2, replication=1) == info
    assert read(kafka, info, len(RECORDS)) == RECORDS
    # It takes further records.
    write(kafka, [b"one more"])
    assert read(kafka, info, len(RECORDS) + 1)[-1] == b"one more"


def test_the_same_directory_on_other_ports_is_the_same_cluster(kafka: LocalKafka) -> None:
    with kafka:
        info = write(kafka, RECORDS)
    assert kafka.pid is None
    port, controller = free_ports(2)
    with LocalKafka(kafka.directory, port, controller) as moved:
        assert describe_topic(moved.bootstrap, "events") == info
        assert read(moved, info, len(RECORDS)) == RECORDS


def test_configuration(kafka: LocalKafka) -> None:
    with kafka:
        # No topic comes into being by being read: a misspelt name is an error, not an empty topic.
        consumer = KafkaConsumer("misspelt", bootstrap_servers=kafka.bootstrap)
        consumer.poll(timeout_ms=3000)
        consumer.close()
        assert describe_topic(kafka.bootstrap, "misspelt") is None
        # Random, so that compression does not make it small.
        largest = os.urandom(MAX_RECORD_BYTES - 1024)
        assert read(kafka, write(kafka, [largest]), 1) == [largest]
        with pytest.raises(OSError), socket.create_connection((own_address(), kafka.port), 2):
            pass
        assert "Kafka Server started" in kafka.log.read_text()
        assert (kafka.directory / "data" / "events-0").is_dir()


def test_an_id_that_looks_like_an_option_is_an_id(
    kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashes = uuid.UUID(bytes=b"\xfb\xef\xbe" * 5 + b"\x00")
    monkeypatch.setattr(uuid, "uuid4", lambda: dashes)
    with kafka:
        assert cluster_id(kafka.bootstrap).startswith("-")


def test_a_format_that_was_interrupted_is_done_again(kafka: LocalKafka) -> None:
    leftover = kafka.directory / "data" / "meta.properties"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half writ")
    with kafka:
        marker = (kafka.directory / "cluster-id").read_text().strip()
        assert cluster_id(kafka.bootstrap) == marker


def test_a_broker_that_ends_at_once_is_an_error_not_a_wait(kafka: LocalKafka) -> None:
    with socket.create_server(("127.0.0.1", kafka.port)):
        kafka.start()
        # Something accepts connections on the port, and yet it is no broker.
        with pytest.raises(FatalError, match=r"ended while it started: see .*kafka\.log"):
            kafka.wait_ready()


def own_address() -> str:
    """An address of this machine that is not the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing: a datagram socket only looks up the route.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("no other address than the loopback's")
        address: str = probe.getsockname()[0]
        return address
