"""What landing relies on of Kafka, of a real broker and of the simulator's: the same tests."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewPartitions

from dc_platform.broker.client import describe_topic, ensure_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import Record, RecordReader, TopicInfo
from dc_platform.errors import (
    OffsetsExpiredError,
    PlatformError,
    RetriableError,
    TopicChangedError,
)
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.simulator.broker import SimBroker, SimReader

_PATIENCE_SECONDS = 30


class Topic(Protocol):
    """A topic with two partitions, and what can be done to it."""

    @property
    def info(self) -> TopicInfo: ...
    def write(self, partition: int, *values: bytes) -> None: ...
    def begin(self, partition: int, *values: bytes) -> None: ...
    def end(self, partition: int, *, commit: bool) -> None: ...
    def delete_before(self, partition: int, offset: int) -> None: ...
    def recreate(self) -> None: ...
    def add_partition(self) -> None: ...
    def reader(self, max_records: int = 100) -> Any: ...


class SimTopic:
    """The simulator's."""

    def __init__(self) -> None:
        self._broker = SimBroker(TopicInfo("events", "c", some_uuid(1), 2))
        self.info = self._broker.info

    def write(self, partition: int, *values: bytes) -> None:
        for value in values:
            self._broker.append(partition, Record(partition, 0, 0, {}, value))

    def begin(self, partition: int, *values: bytes) -> None:
        self._broker.begin_transaction(partition)
        self.write(partition, *values)

    def end(self, partition: int, *, commit: bool) -> None:
        self._broker.end_transaction(partition, commit=commit)

    def delete_before(self, partition: int, offset: int) -> None:
        self._broker.delete_before(partition, offset)

    def recreate(self) -> None:
        self._broker.recreate(some_uuid(2))

    def add_partition(self) -> None:
        self._broker.add_partition()

    def reader(self, max_records: int = 100) -> SimReader:
        return SimReader(self._broker, self.info, max_records=max_records)


class KafkaTopic:
    """A real one."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._name = f"t-{uuid.uuid4().hex[:8]}"
        self.info = ensure_topic(bootstrap, self._name, partitions=2, replication=1)
        self._plain = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self._open: KafkaProducer | None = None

    def write(self, partition: int, *values: bytes) -> None:
        for value in values:
            self._plain.send(self._name, value, partition=partition)
        self._plain.flush()

    def begin(self, partition: int, *values: bytes) -> None:
        self._open = KafkaProducer(
            bootstrap_servers=self._bootstrap, transactional_id=uuid.uuid4().hex, acks="all"
        )
        self._open.init_transactions()
        self._open.begin_transaction()
        for value in values:
            self._open.send(self._name, value, partition=partition)
        self._open.flush()

    def end(self, partition: int, *, commit: bool) -> None:
        assert self._open is not None
        if commit:
            self._open.commit_transaction()
        else:
            self._open.abort_transaction()
        self._open.close()

    def _admin(self, work: Callable[[KafkaAdminClient], Any]) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self._bootstrap)
        work(admin)
        admin.close()

    def delete_before(self, partition: int, offset: int) -> None:
        where = {TopicPartition(self._name, partition): offset}
        self._admin(lambda admin: admin.delete_records(where))

    def recreate(self) -> None:
        self._admin(lambda admin: admin.delete_topics([self._name]))
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while describe_topic(self._bootstrap, self._name) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        ensure_topic(self._bootstrap, self._name, partitions=2, replication=1)

    def add_partition(self) -> None:
        more = {self._name: NewPartitions(total_count=3)}
        self._admin(lambda admin: admin.create_partitions(more))

    def reader(self, max_records: int = 100) -> RecordReader:
        return reader_for(self._bootstrap, self.info, max_records=max_records)


@pytest.fixture(
    params=[
        "simulated",
        pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.crash]),
    ]
)
def topic(request: pytest.FixtureRequest) -> Topic:
    """Either."""
    if request.param == "simulated":
        return SimTopic()
    return KafkaTopic(request.getfixturevalue("kafka").bootstrap)


def polled(reader: Any, count: int, *, enough: bool = True) -> list[Record]:
    """So many records; after them polls are empty."""
    records: list[Record] = []
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(records) < count:
        assert time.monotonic() < deadline, records
        poll = reader.poll(200)
        for record in poll.records:
            assert poll.next_offsets[record.partition] > record.offset
        records += poll.records
    assert not enough or not reader.poll(300).records
    return records


def failure(reader: Any) -> PlatformError:
    """What a poll raises in the end: Kafka's client may need a few to notice."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            assert not reader.poll(200).records
        except PlatformError as error:
            return error
    raise AssertionError("every poll was well")


def last_failure(topic: Topic, offsets: dict[int, int]) -> PlatformError:
    """As `failure`; after an error that may pass one connects anew, as landing does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            reader = topic.reader()
        except TopicChangedError as changed:
            # librdkafka's looks at the topic before it reads.
            return changed
        reader.assign(offsets)
        error = failure(reader)
        reader.close()
        if not isinstance(error, RetriableError) or time.monotonic() > deadline:
            return error


def positions(reader: Any, wanted: dict[int, int]) -> dict[int, int]:
    """The positions when they are as wanted, or after a while."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        reader.poll(200)
        found: dict[int, int] = reader.positions(list(wanted))
        if found == wanted or time.monotonic() > deadline:
            return found


def addresses(records: Sequence[Record]) -> list[tuple[int, int, bytes]]:
    return sorted((r.partition, r.offset, r.value) for r in records)


def test_each_partition_is_read_in_order_from_where_one_says(topic: Topic) -> None:
    topic.write(0, b"a", b"b", b"c")
    topic.write(1, b"d")
    reader = topic.reader()
    reader.assign({0: 1, 1: 0})
    assert addresses(polled(reader, 3)) == [(0, 1, b"b"), (0, 2, b"c"), (1, 0, b"d")]
    assert reader.positions([0, 1]) == {0: 3, 1: 1}
    assert (reader.beginning_offsets(), reader.end_offsets()) == ({0: 0, 1: 0}, {0: 3, 1: 1})
    topic.write(0, b"e")
    assert addresses(polled(reader, 1)) == [(0, 3, b"e")]
    reader.close()


def test_a_poll_gives_no_more_than_one_wants(topic: Topic) -> None:
    topic.write(0, *[b"%d" % n for n in range(7)])
    reader = topic.reader(max_records=3)
    reader.assign({0: 0})
    sizes = []
    while sum(sizes) < 7:
        poll = reader.poll(200)
        sizes.append(len(poll.records))
        assert poll.next_offsets.get(0, sum(sizes)) == sum(sizes)
    assert max(sizes) == 3
    reader.close()


def test_what_was_aborted_and_the_markers_are_offsets_without_a_record(topic: Topic) -> None:
    topic.begin(0, b"never")
    topic.end(0, commit=False)
    topic.begin(0, b"a")
    topic.end(0, commit=True)
    reader = topic.reader()
    reader.assign({0: 0})
    assert addresses(polled(reader, 1)) == [(0, 2, b"a")]
    assert positions(reader, {0: 4}) == {0: 4}
    assert reader.end_offsets()[0] == 4
    reader.close()


def test_behind_an_open_transaction_nothing_is_seen(topic: Topic) -> None:
    topic.write(0, b"a")
    topic.begin(0, b"b")
    topic.write(0, b"c")
    reader = topic.reader()
    reader.assign({0: 0})
    assert addresses(polled(reader, 1)) == [(0, 0, b"a")]
    assert (reader.positions([0]), reader.end_offsets()[0]) == ({0: 1}, 1)
    topic.end(0, commit=True)
    assert addresses(polled(reader, 2)) == [(0, 1, b"b"), (0, 2, b"c")]
    reader.close()


def test_what_retention_took_is_an_error_and_the_rest_is_there(topic: Topic) -> None:
    topic.write(0, b"a", b"b", b"c")
    topic.delete_before(0, 2)
    reader = topic.reader()
    assert reader.beginning_offsets() == {0: 2, 1: 0}
    reader.assign({0: 1})
    assert isinstance(failure(reader), OffsetsExpiredError)
    reader.assign({0: 2})
    assert addresses(polled(reader, 1)) == [(0, 2, b"c")]
    reader.close()


def test_an_offset_beyond_the_end_is_an_error(topic: Topic) -> None:
    topic.write(0, b"a")
    reader = topic.reader()
    reader.assign({0: 5})
    assert isinstance(failure(reader), OffsetsExpiredError)
    reader.close()


def test_a_topic_that_was_made_anew_is_never_read_on(topic: Topic) -> None:
    topic.write(0, b"a")
    reader = topic.reader()
    reader.assign({0: 0})
    polled(reader, 1)
    topic.recreate()
    # Kafka's client may call it a truncated log, or an offset that is out of range, before it has
    # heard of the other id.
    error = failure(reader)
    assert isinstance(error, TopicChangedError | RetriableError | OffsetsExpiredError)
    reader.close()
    topic.write(0, b"x", b"y")
    assert isinstance(last_failure(topic, {0: 1}), TopicChangedError)


def test_more_partitions_end_a_reader(topic: Topic) -> None:
    topic.write(0, b"a")
    reader = topic.reader()
    reader.assign({0: 0})
    polled(reader, 1)
    topic.add_partition()
    assert isinstance(failure(reader), TopicChangedError)
    reader.close()
