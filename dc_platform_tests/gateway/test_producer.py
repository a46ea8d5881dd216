"""What the batcher relies on, asked of the real producer on a real broker and of the tests' fake."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from dc_platform.broker.client import ensure_topic
from dc_platform.broker.producer import BlockProducer
from dc_platform.broker.records import MAX_RECORD_BYTES, Acknowledged
from dc_platform.errors import BrokerUnavailableError
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.gateway.producers import FakeProducer, Sent
from dc_platform_tests.stack.harness import free_ports, wait_for

PARTITIONS = 3
Producer = BlockProducer | FakeProducer


class FakeBroker:
    """The fake, as if it were a broker and a producer."""

    def __init__(self) -> None:
        self._producer = FakeProducer(partitions=PARTITIONS)

    def connect(self) -> FakeProducer:
        return self._producer

    def read(self, count: int) -> list[Sent]:
        assert len(self._producer.records) >= count
        return self._producer.records


class RealBroker:
    """A topic of its own on a real broker."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self.topic = bootstrap, topic
        ensure_topic(bootstrap, topic, partitions=PARTITIONS, replication=1)

    def connect(self) -> BlockProducer:
        return BlockProducer(self._bootstrap, self.topic)

    def read(self, count: int) -> list[Sent]:
        """What a consumer sees, in the order of each partition; waits for so many records."""
        # Any consumer, not landing's reader: landing has no use for keys, and does not read them.
        consumer = KafkaConsumer(bootstrap_servers=self._bootstrap, group_id=None)
        partitions = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        found: list[Sent] = []

        def enough() -> bool:
            for records in consumer.poll(timeout_ms=300).values():
                found.extend(Sent(r.value, r.partition, r.key, dict(r.headers)) for r in records)
            return len(found) >= count

        wait_for(enough)
        consumer.close()
        return found


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    port, controller = free_ports(2)
    with LocalKafka(tmp_path_factory.mktemp("kafka") / "data", port, controller) as broker:
        yield broker


@pytest.fixture(params=["fake", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> FakeBroker | RealBroker:
    if request.param == "fake":
        return FakeBroker()
    kafka: LocalKafka = request.getfixturevalue("kafka")
    return RealBroker(kafka.bootstrap, f"topic-{uuid.uuid4()}")


async def connected(producer: Producer) -> None:
    if isinstance(producer, BlockProducer):
        await producer.start()
    while not producer.connected:
        await asyncio.sleep(0.02)


def with_producer(
    broker: FakeBroker | RealBroker, work: Callable[[Producer], Any], *, connect: bool = True
) -> None:
    async def run() -> None:
        producer = broker.connect()
        if connect:
            await connected(producer)
        try:
            await work(producer)
        finally:
            if isinstance(producer, BlockProducer):
                await producer.stop()

    asyncio.run(run())


def test_what_is_acknowledged_is_there_as_it_was_sent(broker: FakeBroker | RealBroker) -> None:
    sent = [
        Sent(b"value\n\x00\xff", 2, b"key", {"a": b"1", "b": b"\xff"}),
        Sent(b"", 0, None, {}),
        Sent(bytes(1_000_000), 1, None, {"dcp-counts": b'{"s":1}'}),
    ]

    async def work(producer: Producer) -> None:
        assert producer.partitions == PARTITIONS
        for number, record in enumerate(sent, 1):
            await producer.send(
                record.value,
                partition=record.partition,
                key=record.key,
                headers=list(record.headers.items()),
            )
            assert len(await asyncio.to_thread(broker.read, number)) == number

    with_producer(broker, work)
    assert sorted(broker.read(3)) == sorted(sent)


@pytest.mark.kafka
def test_partitions_that_are_added_are_used(kafka: LocalKafka) -> None:
    broker = RealBroker(kafka.bootstrap, f"topic-{uuid.uuid4()}")

    async def work(producer: Producer) -> None:
        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        admin.create_partitions({broker.topic: PARTITIONS + 1})
        admin.close()
        async with asyncio.timeout(60):
            while producer.partitions == PARTITIONS:
                # As by itself every half a minute, and when a send fails.
                assert isinstance(producer, BlockProducer)
                await producer._living().client.force_metadata_update()
        await producer.send(b"x", partition=producer.partitions - 1, key=None, headers=[])

    with_producer(broker, work)


def test_sends_to_a_partition_arrive_in_their_order(broker: FakeBroker | RealBroker) -> None:
    values = [f"{number}".encode().ljust(3000, b".") for number in range(500)]

    async def work(producer: Producer) -> None:
        tasks = [
            asyncio.create_task(producer.send(value, partition=1, key=None, headers=()))
            for value in values
        ]
        assert await asyncio.gather(*tasks) == [Acknowledged(1, n) for n in range(len(values))]

    with_producer(broker, work)
    assert [record.value for record in broker.read(len(values))] == values


def test_a_record_that_is_too_large_fails_alone_and_typed(
    broker: FakeBroker | RealBroker,
) -> None:
    async def work(producer: Producer) -> None:
        async def send(size: int) -> None:
            await producer.send(bytes(size), partition=0, key=None, headers=())

        results = await asyncio.gather(
            *(send(size) for size in (1, MAX_RECORD_BYTES + 1, MAX_RECORD_BYTES - 1000)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [
            type(None),
            BrokerUnavailableError,
            type(None),
        ]

    with_producer(broker, work)
    assert [len(record.value) for record in broker.read(2)] == [1, MAX_RECORD_BYTES - 1000]


def test_a_sender_that_is_cancelled_takes_nobody_with_it(
    broker: FakeBroker | RealBroker,
) -> None:
    async def work(producer: Producer) -> None:
        tasks = [
            asyncio.create_task(producer.send(b"%d" % number, partition=0, key=None, headers=()))
            for number in range(30)
        ]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        for number, task in enumerate(tasks):
            if number % 3:
                await task
            else:
                with suppress(asyncio.CancelledError):
                    await task

    with_producer(broker, work)
    found = [int(record.value) for record in broker.read(20)]
    assert found == sorted(set(found))
    assert {number for number in range(30) if number % 3} <= set(found)


def test_before_there_was_a_broker_it_fails_typed_and_at_once() -> None:
    (port,) = free_ports(1)
    real = BlockProducer(f"127.0.0.1:{port}", "topic")

    async def work() -> None:
        await real.start()
        for producer in (real, FakeProducer(partitions=None)):
            assert not producer.connected
            with pytest.raises(BrokerUnavailableError):
                _ = producer.partitions
            with pytest.raises(BrokerUnavailableError):
                await producer.send(b"", partition=0, key=None, headers=())
        assert not await real.probe()
        await real.stop()

    asyncio.run(work())


@pytest.mark.kafka
def test_a_broker_that_hangs_is_noticed_by_the_probe_and_waited_for(kafka: LocalKafka) -> None:
    broker = RealBroker(kafka.bootstrap, "hanging")
    assert kafka.pid is not None
    process = psutil.Process(kafka.pid)

    async def work(producer: Producer) -> None:
        assert isinstance(producer, BlockProducer)
        assert await producer.probe()
        process.suspend()
        try:
            assert not await producer.probe()
            waiting = asyncio.create_task(producer.send(b"x", partition=0, key=None, headers=()))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        finally:
            process.resume()
        await waiting
        assert await producer.probe()

    with_producer(broker, work)
    assert [record.value for record in broker.read(1)] == [b"x"]
