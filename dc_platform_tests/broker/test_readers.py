"""What a reader gives, whichever Kafka client it reads with."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition

from dc_platform.broker import reader as reader_module
from dc_platform.broker.client import KafkaPythonReader, RecordWriter
from dc_platform.broker.librdkafka import LibrdkafkaReader
from dc_platform.broker.records import NO_HEADERS, KafkaClient
from dc_platform.errors import BrokerUnavailableError, ConfigurationError, OffsetsExpiredError
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.broker.conftest import Topic, with_admin
from dc_platform_tests.broker.reading import read_all, read_to, values
from dc_platform_tests.stack.harness import wait_for

pytestmark = pytest.mark.kafka


def test_a_record_is_what_was_written(topic: Topic, client: KafkaClient) -> None:
    before = time.time_ns() // 1_000_000
    topic.write(b"plain", b"", None)
    topic.write(b"keyed", key=b"k", headers=[("a", b"1"), ("b", None), ("a", b"2"), ("ä", b"\xff")])
    topic.write(None, b"", key=b"")
    records = read_all(topic.reader(client), {0: 0, 1: 0})
    assert [record.offset for record in records] == list(range(6))
    assert values(records) == [b"plain", b"", b"", b"keyed", b"", b""]
    assert records[3].headers == {"a": b"1", "b": b"", "ä": b"\xff"}
    assert all(record.headers is NO_HEADERS for record in records if record.offset != 3)
    assert before <= records[0].timestamp_ms <= records[-1].timestamp_ms
    assert records[-1].timestamp_ms <= time.time_ns() // 1_000_000


def test_order_and_offsets(topic: Topic, client: KafkaClient) -> None:
    for partition in (0, 1):
        topic.write(*(b"%d %d" % (partition, n) for n in range(5_000)), partition=partition)
    reader = topic.reader(client, max_records=700)
    assert reader.beginning_offsets() == {0: 0, 1: 0}
    assert reader.end_offsets() == {0: 5_000, 1: 5_000}
    records = read_all(reader, {0: 10, 1: 4_000})
    assert values(records) == [b"0 %d" % n for n in range(10, 5_000)] + [
        b"1 %d" % n for n in range(4_000, 5_000)
    ]
    # Back, and one partition alone.
    reader.assign({1: 4_998})
    assert values(read_to(reader, {1: 5_000})) == [b"1 4998", b"1 4999"]
    reader.assign({0: 0, 1: 0})
    sizes = [len(reader.poll(1_000).records) for _ in range(10)]
    assert max(sizes) == 700


def test_only_committed_records_and_positions_behind_the_markers(
    topic: Topic, client: KafkaClient
) -> None:
    reader = topic.reader(client)
    for number, commit in enumerate([True, False, False, True, False]):
        with topic.transaction([(b"%d" % number, {})] * 3, number % 2, commit=commit):
            pass
    # Five markers, and what was aborted. Markers are written soon after the end of a transaction.
    wait_for(lambda: reader.end_offsets() == {0: 12, 1: 8})
    records = read_all(reader, {0: 0, 1: 0})
    assert [record[:2] for record in records] == [(0, 0), (0, 1), (0, 2), (1, 4), (1, 5), (1, 6)]
    # From the middle of an aborted one.
    assert values(read_all(reader, {0: 5, 1: 1})) == [b"3"] * 3
    assert not reader.poll(50).records
    assert reader.positions([0, 1]) == {0: 12, 1: 8}


def test_what_stands_behind_an_open_transaction_waits(topic: Topic, client: KafkaClient) -> None:
    reader = topic.reader(client)
    with topic.transaction([(b"open", {})], 0):
        topic.write(b"behind it")
        assert reader.end_offsets() == {0: 0, 1: 0}
        reader.assign({0: 0, 1: 0})
        assert not any(reader.poll(100).records for _ in range(3))
    assert values(read_to(reader, {0: 3, 1: 0})) == [b"open", b"behind it"]


def test_what_kafka_deleted_is_an_error_until_it_is_assigned_anew(
    topic: Topic, client: KafkaClient
) -> None:
    topic.write(*(b"%d" % number for number in range(10)))
    reader = topic.reader(client)
    reader.assign({0: 2, 1: 0})
    with_admin(
        topic.bootstrap, lambda admin: admin.delete_records({TopicPartition(topic.name, 0): 7})
    )
    assert reader.beginning_offsets() == {0: 7, 1: 0}
    found: list[bytes] = []
    reader.assign({0: 3, 1: 0})
    for _ in range(2):
        with pytest.raises(OffsetsExpiredError):
            wait_for(lambda: found.extend(values(reader.poll(100).records)) or False)
    assert found == []
    assert values(read_all(reader, {0: 7, 1: 0})) == [b"7", b"8", b"9"]


def test_a_late_answer_for_a_deleted_offset_is_none_for_where_reading_stands(topic: Topic) -> None:
    """librdkafka gives it after another assignment, and it would be taken for that one's."""
    topic.write(*(b"%d" % n for n in range(20)))
    with_admin(topic.bootstrap, lambda a: a.delete_records({TopicPartition(topic.name, 0): 10}))
    reader = topic.reader("librdkafka")
    reader.assign({0: 3, 1: 0})
    with pytest.raises(OffsetsExpiredError):
        wait_for(lambda: reader.poll(100).records)
    # The reader has begun at 3 again, as it must; the broker answers before reading goes on at 10.
    time.sleep(0.5)
    assert values(read_all(reader, {0: 10, 1: 0})) == [b"%d" % n for n in range(10, 20)]


def test_an_offset_beyond_the_end_is_an_error(topic: Topic, client: KafkaClient) -> None:
    topic.write(b"0")
    reader = topic.reader(client)
    reader.assign({0: 0, 1: 5})
    found: list[bytes] = []
    with pytest.raises(OffsetsExpiredError):
        wait_for(lambda: found.extend(values(reader.poll(100).records)) or False)
    # What the other partition gave before the error is not given again, and is not lost.
    assert found + values(read_all(reader, reader.positions([0]) | {1: 0})) == [b"0"]


def test_a_poll_ends_when_there_is_something(topic: Topic, client: KafkaClient) -> None:
    reader = topic.reader(client)
    reader.assign({0: 0, 1: 0})
    assert not reader.poll(0).records
    assert not reader.poll(20).records
    late = threading.Timer(0.3, lambda: topic.write(b"late", partition=1))
    late.start()
    # Longer than the test may take.
    assert values(reader.poll(3_600_000).records) == [b"late"]
    late.join()


def test_a_record_larger_than_an_answer(topic: Topic, client: KafkaClient) -> None:
    # Random, so that compression does not make it small.
    large = os.urandom(9 * 2**20)
    writer = RecordWriter(topic.bootstrap, topic.name)
    for value in (b"before", large, b"after"):
        writer.write(value, partition=0)
    writer.close()
    reader = topic.reader(client)
    assert values(read_all(reader, {0: 0, 1: 0})) == [b"before", large, b"after"]


def test_a_poll_of_large_records_is_bounded(topic: Topic, client: KafkaClient) -> None:
    """Whoever reads holds what a poll gives in memory, however fast the broker is."""
    writer = RecordWriter(topic.bootstrap, topic.name)
    block = os.urandom(300_000)
    for number in range(200):
        writer.write(block, partition=number % 2)
    writer.close()
    reader = topic.reader(client)
    reader.assign({0: 0, 1: 0})
    sizes: list[int] = []
    while sum(sizes) < 200 * len(block):
        sizes.append(sum(len(record.value) for record in reader.poll(5_000).records))
    assert max(sizes) <= 24 * 2**20


def test_librdkafka_ends_a_poll_although_the_broker_has_ever_more(topic: Topic) -> None:
    topic.write(*[bytes(300_000)] * 200)
    reader = LibrdkafkaReader(topic.bootstrap, topic.info)
    consumer = reader._consumer

    class Fast:
        """As librdkafka fetches while a poll goes on: there is always more."""

        def consume(self, count: int, _: float) -> Any:
            return consumer.consume(min(count, 10), 1)

    reader.assign({0: 0, 1: 0})
    reader._consumer = Fast()
    size = sum(len(record.value) for record in reader.poll(5_000).records)
    reader._consumer = consumer
    reader.close()
    assert 8 * 2**20 <= size <= 12 * 2**20


class NoText(str):
    """A name of a header that is no UTF-8, as producers in other languages can write it."""

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


def test_a_header_whose_name_is_no_text(topic: Topic) -> None:
    writer = RecordWriter(topic.bootstrap, topic.name, compression=None)
    for value, headers in ((b"0", []), (b"1", [(NoText("x"), b"")]), (b"2", [("a", b"")])):
        writer.write(value, headers=headers, partition=0)
    writer.close()
    records = read_all(topic.reader("librdkafka"), {0: 0, 1: 0})
    assert [(record.value, record.headers) for record in records] == [
        (b"0", {}),
        (b"1", {}),
        (b"2", {"a": b""}),
    ]
    with pytest.raises(BrokerUnavailableError, match=r"pip install 'dc-platform\[librdkafka\]'"):
        read_all(topic.reader("kafka-python"), {0: 0, 1: 0})


def test_the_client_is_what_was_chosen(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(topic.reader("auto"), LibrdkafkaReader)
    assert isinstance(topic.reader("kafka-python"), KafkaPythonReader)
    # As find_spec says of what is not installed.
    monkeypatch.setattr(reader_module, "find_spec", lambda _: None)
    assert isinstance(topic.reader("auto"), KafkaPythonReader)
    with pytest.raises(ConfigurationError, match="DCP_KAFKA_CLIENT=auto"):
        topic.reader("librdkafka")


# C ends a name at its first NUL.
_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_RECORD = st.tuples(
    st.one_of(st.none(), st.binary(max_size=40)),
    st.fixed_dictionaries(
        {
            "key": st.one_of(st.none(), st.binary(max_size=8)),
            "headers": st.lists(
                st.tuples(
                    st.text(_CHARACTERS, max_size=3),
                    st.one_of(st.none(), st.binary(max_size=4)),
                ),
                max_size=3,
            ),
        }
    ),
)
_WRITES = st.lists(
    st.tuples(
        st.sampled_from(["plain", "commit", "abort"]),
        st.integers(0, 1),
        st.lists(_RECORD, min_size=1, max_size=30),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=8)
@given(
    writes=_WRITES,
    starts=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    max_records=st.integers(1, 40),
)
def test_both_clients_give_the_same(
    kafka: LocalKafka, writes: Any, starts: tuple[int, int], max_records: int
) -> None:
    topic = Topic(kafka.bootstrap)
    expected: dict[int, list[tuple[Any, Any]]] = {0: [], 1: []}
    for how, partition, records in writes:
        if how == "plain":
            topic.write_records(records, partition)
        else:
            with topic.transaction(records, partition, commit=how == "commit"):
                pass
        if how != "abort":
            expected[partition] += [
                (value or b"", first_of_each(more["headers"])) for value, more in records
            ]
    streams = []
    for client in ("kafka-python", "librdkafka"):
        reader = topic.reader(client, max_records=max_records)
        everything = read_all(reader, {0: 0, 1: 0})
        for partition, wrote in expected.items():
            found = [r for r in everything if r.partition == partition]
            assert [(r.value, r.headers) for r in found] == wrote
        ends = reader.end_offsets()
        at = {p: min(start, ends[p]) for p, start in enumerate(starts)}
        streams.append((everything, read_all(reader, at), ends))
    topic.close()
    assert streams[0] == streams[1]


def first_of_each(headers: list[tuple[str, bytes | None]]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, value in headers:
        found.setdefault(name, value or b"")
    return found
