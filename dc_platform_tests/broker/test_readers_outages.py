"""Readers of both clients while the topic, or the broker, is not what it was."""

from __future__ import annotations

import pytest

from dc_platform.broker import client as kafka_python
from dc_platform.broker import librdkafka
from dc_platform.broker.client import describe_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import KafkaClient, Poll, RecordReader
from dc_platform.errors import BrokerUnavailableError, TopicChangedError
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.broker.conftest import Topic, with_admin
from dc_platform_tests.broker.reading import read_all, read_to, values
from dc_platform_tests.stack.harness import wait_for

pytestmark = pytest.mark.kafka


def test_a_topic_that_was_created_again_is_not_read_on(topic: Topic, client: KafkaClient) -> None:
    topic.write(*[b"old"] * 3)
    reader = topic.reader(client)
    assert values(read_all(reader, {0: 0, 1: 0})) == [b"old"] * 3
    topic.delete()
    # As readers do that live on: kafka-python learns of it only when a fetch finds no topic.
    assert quiet(reader) == []
    topic.create()
    # The new topic has records at the old one's offsets.
    topic.write(*[b"new"] * 10)
    found: list[bytes] = []
    with pytest.raises(TopicChangedError, match="created again"):
        wait_for(lambda: found.extend(quiet(reader)) or False)
    assert found == []
    with pytest.raises(TopicChangedError, match="created again"):
        reader.end_offsets()


def test_librdkafka_gives_no_record_of_a_topic_that_was_created_again_unseen(topic: Topic) -> None:
    topic.write(*[b"old"] * 3)
    reader = topic.reader("librdkafka")
    assert values(read_all(reader, {0: 0, 1: 0})) == [b"old"] * 3
    topic.delete()
    topic.create()
    topic.write(*[b"new"] * 10)
    found: list[bytes] = []
    with pytest.raises(TopicChangedError, match="created again"):
        wait_for(lambda: found.extend(quiet(reader)) or False)
    assert found == []
    assert reader.positions([0, 1]) == {0: 3, 1: 0}
    with pytest.raises(TopicChangedError, match="created again"):
        reader_for(topic.bootstrap, topic.info, "librdkafka")


def test_an_offset_of_a_topic_that_was_created_again_is_not_one_that_expired(
    topic: Topic, client: KafkaClient
) -> None:
    topic.write(*[b"old"] * 3)
    reader = topic.reader(client)
    assert values(read_all(reader, {0: 0, 1: 0})) == [b"old"] * 3
    topic.delete()
    topic.create()
    with pytest.raises(TopicChangedError, match="created again"):
        wait_for(lambda: quiet(reader) and False)


def test_added_partitions_are_noticed(topic: Topic, client: KafkaClient) -> None:
    reader = topic.reader(client)
    reader.assign({0: 0, 1: 0})
    reader.poll(50)
    with_admin(topic.bootstrap, lambda admin: admin.create_partitions({topic.name: 3}))
    wait_for(
        lambda: describe_topic(topic.bootstrap, topic.name) == topic.info._replace(partitions=3)
    )
    with pytest.raises(TopicChangedError, match="more than its 2 partitions"):
        wait_for(lambda: reader.poll(50) and False)
    with pytest.raises(TopicChangedError, match="more than its 2 partitions"):
        wait_for(lambda: reader.end_offsets() and False)


def test_a_reader_goes_on_when_the_broker_is_back(
    kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_python, "_CONNECT_MS", 500)
    monkeypatch.setattr(librdkafka, "_CONNECT_SECONDS", 0.5)
    topic = Topic(kafka.bootstrap)
    topic.write(*(b"%d" % number for number in range(5)))
    clients: tuple[KafkaClient, ...] = ("kafka-python", "librdkafka")
    readers = [topic.reader(client) for client in clients]
    assert [values(read_all(reader, {0: 2, 1: 0})) for reader in readers] == [
        [b"2", b"3", b"4"]
    ] * 2
    kafka.kill()
    for reader in readers:
        assert quiet(reader) == []
        with pytest.raises(BrokerUnavailableError, match="is the broker up"):
            reader.end_offsets(500)
        assert reader.positions([0, 1]) == {0: 5, 1: 0}
    for client in clients:
        with pytest.raises(BrokerUnavailableError, match="is the broker up"):
            reader_for(kafka.bootstrap, topic.info, client)
    monkeypatch.undo()
    kafka.start()
    kafka.wait_ready()
    topic.write(b"5", b"6")
    for reader in readers:
        assert values(read_to(reader, {0: 7, 1: 0})) == [b"5", b"6"]
        assert reader.end_offsets() == {0: 7, 1: 0}
    topic.close()


def quiet(reader: RecordReader) -> list[bytes]:
    """The values of a poll; that Kafka is away is none."""
    try:
        poll = reader.poll(200)
    except BrokerUnavailableError:
        poll = Poll([], {})
    return values(poll.records)
