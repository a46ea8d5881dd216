"""Blocks: who waits for which, what bounds them, and what a failure or a lost client touches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.broker.client import partition_of
from dc_platform.broker.producer import BlockProducer
from dc_platform.contracts import blocks
from dc_platform.errors import BrokerUnavailableError
from dc_platform.gateway.batcher import BLOCK_BYTES, Batcher
from dc_platform_tests.gateway.producers import FakeProducer, Sent
from dc_platform_tests.helpers.virtual_time import run, settle

EVENTS = 100
WAIT = 0.1


def batcher_of(producer: FakeProducer) -> Batcher:
    return Batcher(
        cast(BlockProducer, producer),
        gateway_id="g",
        boot_id="b",
        batch_events=EVENTS,
        batch_wait_ms=int(WAIT * 1000),
    )


def lines(name: str, count: int, size: int = 0) -> list[bytes]:
    return [f"{name}-{number}".encode().ljust(size, b".") for number in range(count)]


def now() -> float:
    return asyncio.get_running_loop().time()


class Requests:
    """Requests under way, on one partition unless there are more."""

    def __init__(self, *, partitions: int | None = 1, held: bool = True) -> None:
        self.producer = FakeProducer(partitions=partitions, held=held)
        self.batcher = batcher_of(self.producer)

    async def add(
        self, source: str, sent: Sequence[bytes], *, tenant: str = "t", batch: str | None = None
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(self.batcher.add(tenant, source, sent, batch_id=batch))
        await settle()
        return task

    @property
    def records(self) -> list[Sent]:
        return self.producer.records


def test_a_lone_event_goes_at_once_and_is_acknowledged_when_kafka_has_it() -> None:
    async def scenario() -> None:
        requests = Requests()
        began = now()
        task = await requests.add("s", [b"x"])
        assert now() == began
        (record,) = requests.records
        assert record.value == b"x"
        await asyncio.sleep(60)
        assert not task.done()
        requests.producer.acknowledge(0)
        await task

    run(scenario())


def test_a_block_says_what_it_is() -> None:
    async def scenario() -> None:
        requests = Requests(partitions=7, held=False)
        await requests.add("s", [b"x", b"y"])
        await requests.add("s", lines("l", EVENTS), batch="batch-1")
        small, large = requests.records
        assert small.value == b"x\ny"
        assert small.key == large.key == b"s"
        assert small.partition == large.partition == partition_of("s", 7)
        assert small.headers == {
            "content-type": b"application/x-ndjson",
            "dcp-verdict": b"valid",
            "dcp-tenant": b"t",
            "dcp-schema-version": b"1",
            "dcp-block": b"g/b/1",
            "dcp-counts": b'{"s":2}',
        }
        assert large.headers["dcp-batch"] == b"batch-1"
        assert large.headers["dcp-block"] == b"g/b/2"

    run(scenario())


def test_requests_at_once_share_a_block_per_tenant_and_partition() -> None:
    async def scenario() -> None:
        requests = Requests(partitions=2)
        on = [[s for s in map(str, range(20)) if partition_of(s, 2) == p][:2] for p in (0, 1)]
        add = requests.batcher.add
        tasks = [
            asyncio.create_task(add(tenant, source, [f"{tenant} {source}".encode()]))
            for tenant in ("t", "u")
            for source in (*on[0], *on[1])
        ]
        await settle()
        found = {
            (r.headers["dcp-tenant"].decode(), r.partition): (r.key, r.counts)
            for r in requests.records
        }
        # A mixed block has no key: its partition says where it belongs.
        assert found == {
            (tenant, p): (None, dict.fromkeys(on[p], 1)) for tenant in ("t", "u") for p in (0, 1)
        }
        requests.producer.acknowledge_all()
        await asyncio.gather(*tasks)

    run(scenario())


def test_while_a_block_is_under_way_the_next_one_gathers() -> None:
    async def scenario() -> None:
        requests = Requests()
        first = await requests.add("s", [b"0"])
        others = [await requests.add("s", [b"%d" % n]) for n in range(1, 5)]
        assert [r.value for r in requests.records] == [b"0"]
        began = now()
        requests.producer.acknowledge(0)
        await first
        await settle()
        assert [r.value for r in requests.records] == [b"0", b"1\n2\n3\n4"]
        assert now() == began
        assert not any(task.done() for task in others)
        requests.producer.acknowledge(1)
        await asyncio.gather(*others)

    run(scenario())


def test_a_block_waits_no_longer_than_its_oldest_event_may() -> None:
    async def scenario() -> None:
        requests = Requests()
        await requests.add("s", [b"0"])
        began = now()
        await requests.add("s", [b"1"])
        await asyncio.sleep(0.9 * WAIT)
        await requests.add("s", [b"2"])
        assert len(requests.records) == 1
        while len(requests.records) < 2:
            await asyncio.sleep(WAIT / 100)
        assert now() - began == pytest.approx(WAIT, abs=WAIT / 50)
        assert requests.records[1].value == b"1\n2"

    run(scenario())


@pytest.mark.parametrize(
    ("count", "size", "per_block"),
    [(24, 10, 4), (EVENTS // 4 - 1, 10, 4), (1, 200_000, 5), (2, 130_000, 4)],
)
def test_a_shared_block_is_bounded_in_events_and_bytes(
    count: int, size: int, per_block: int
) -> None:
    async def scenario() -> None:
        requests = Requests()
        await requests.add("s", [b"under way"])
        for number in range(20):
            await requests.add("s", lines(str(number), count, size))
        sizes = [len(record.lines) for record in requests.records[1:]]
        # They do not wait for an acknowledgement when they are full.
        assert set(sizes) == {per_block * count}
        assert all(len(r.value) < BLOCK_BYTES + EVENTS for r in requests.records)
        sent = [line for n in range(20) for line in lines(str(n), count, size)]
        assert requests.producer.lines()[1:] == sent[: sum(sizes)]

    run(scenario())


def test_a_full_block_waits_for_nobody() -> None:
    async def scenario() -> None:
        requests = Requests()
        await requests.add("s", [b"under way"])
        for number in range(EVENTS // 20):
            assert len(requests.records) == 1
            await requests.add("s", lines(str(number), 20))
        assert [len(record.lines) for record in requests.records] == [1, EVENTS]

    run(scenario())


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (EVENTS, 10, [EVENTS]),
        (250, 10, [100, 100, 50]),
        (25, 10, [25]),
        (7, 300_000, [3, 3, 1]),
        # Few in number, but more bytes than a record may have: they once made one record.
        (20, 2**20, [1] * 20),
    ],
)
def test_a_large_request_makes_blocks_of_its_own(
    count: int, size: int, expected: list[int]
) -> None:
    async def scenario() -> None:
        requests = Requests()
        small = await requests.add("s", [b"under way"])
        await requests.add("other", [b"gathering"])
        sent = lines("l", count, size)
        task = await requests.add("s", sent)
        own = requests.records[1:]
        assert [len(record.lines) for record in own] == expected
        assert [line for record in own for line in record.lines] == sent
        assert all(r.key == b"s" and r.counts == {"s": len(r.lines)} for r in own)
        # Acknowledged when Kafka has the last of its blocks, in whatever order.
        for number in range(len(own), 0, -1):
            assert not task.done()
            requests.producer.acknowledge(number)
            await settle()
        await task
        assert not small.done()

    run(scenario())


def test_a_failed_send_fails_exactly_the_requests_of_its_block() -> None:
    async def scenario() -> None:
        requests = Requests()
        first = await requests.add("a", [b"1"])
        second = [await requests.add(source, [source.encode()]) for source in "bcd"]
        await asyncio.sleep(2 * WAIT)
        third = await requests.add("e", [b"5"])
        await asyncio.sleep(2 * WAIT)
        assert [len(r.lines) for r in requests.records] == [1, 3, 1]
        requests.producer.fail(1)
        await settle()
        assert not first.done()
        assert not third.done()
        for task in second:
            with pytest.raises(BrokerUnavailableError):
                await task
        requests.producer.acknowledge_all()
        await asyncio.gather(first, third)
        # It goes on.
        again = await requests.add("b", [b"again"])
        requests.producer.acknowledge_all()
        await again

    run(scenario())


def test_a_failed_block_of_a_large_request_fails_it() -> None:
    async def scenario() -> None:
        requests = Requests()
        task = await requests.add("s", lines("l", 300))
        requests.producer.acknowledge(0)
        requests.producer.fail(1)
        await settle()
        with pytest.raises(BrokerUnavailableError):
            await task
        requests.producer.fail(2)
        await settle()

    run(scenario())


def test_a_client_that_goes_away_takes_nothing_with_it() -> None:
    async def scenario() -> None:
        requests = Requests()
        under_way = await requests.add("a", [b"0"])
        tasks = [await requests.add(source, [source.encode()]) for source in "abc"]
        large = await requests.add("s", lines("l", 300))
        for task in (under_way, tasks[1], large):
            task.cancel()
        await settle()
        requests.producer.acknowledge_all()
        await settle()
        requests.producer.acknowledge_all()
        await settle()
        assert [task.done() for task in tasks] == [True] * 3
        assert [task.cancelled() for task in tasks] == [False, True, False]
        sent = requests.producer.lines()
        assert Counter(sent) == Counter([b"0", b"a", b"b", b"c", *lines("l", 300)])

    run(scenario())


def test_nobody_complains_when_all_clients_of_a_failed_block_are_gone() -> None:
    async def scenario() -> None:
        requests = Requests()
        tasks = [await requests.add("a", [b"0"]), await requests.add("s", lines("l", 300))]
        for task in tasks:
            task.cancel()
        await settle()
        for number in range(len(requests.records)):
            requests.producer.fail(number)
        await settle()

    run(scenario())


def test_without_a_broker_it_fails_at_once_and_afterwards_it_works() -> None:
    async def scenario() -> None:
        requests = Requests(partitions=None, held=False)
        for count in (1, 300):
            with pytest.raises(BrokerUnavailableError):
                await requests.batcher.add("t", "s", lines("l", count))
        with pytest.raises(BrokerUnavailableError):
            await requests.batcher.add_rejects("t", "s", b"arrow", 1)
        requests.producer.partitions = 8
        await requests.batcher.add("t", "s", [b"x"])
        # The topic was made anew, with fewer partitions.
        requests.producer.partitions = 1
        await requests.batcher.add("t", "s", [b"y"])
        assert [r.partition for r in requests.records] == [partition_of("s", 8), 0]

    run(scenario())


def test_rejects_are_a_block_of_their_own() -> None:
    async def scenario() -> None:
        requests = Requests(held=False)
        await requests.batcher.add_rejects("t", "s", b"arrow\nbytes", 3, batch_id="batch-1")
        (record,) = requests.records
        assert (record.value, record.key, record.counts) == (b"arrow\nbytes", b"s", {"s": 3})
        assert record.headers[blocks.CONTENT_TYPE] == blocks.ARROW.encode()
        assert record.headers[blocks.VERDICT] == b"rejected"
        assert record.headers[blocks.BATCH] == b"batch-1"

    run(scenario())


one_request = st.tuples(
    st.sampled_from("abcde"),
    st.one_of(st.integers(1, 30), st.integers(1, 300)),
    st.sampled_from([0, 0, 100_000]),
    st.integers(0, 3),
)


@given(st.lists(one_request, max_size=25), st.integers(1, 3))
def test_whatever_comes_each_line_is_in_one_block_and_no_block_is_too_large(
    sent: list[tuple[str, int, int, int]], partitions: int
) -> None:
    async def scenario() -> None:
        requests = Requests(partitions=partitions)
        tasks = []
        expected: dict[str, list[bytes]] = {}
        for number, (source, count, size, acknowledged) in enumerate(sent):
            if size and count > 30:
                continue
            batch = lines(f"{source}{number}", count, size)
            expected.setdefault(source, []).extend(batch)
            tasks.append(await requests.add(source, batch))
            for one in range(min(acknowledged, len(requests.records))):
                requests.producer.acknowledge(one)
        while not all(task.done() for task in tasks):
            await asyncio.sleep(WAIT)
            requests.producer.acknowledge_all()
        await asyncio.gather(*tasks)
        found: dict[str, list[bytes]] = {}
        for record in requests.records:
            assert len(record.lines) <= EVENTS
            assert len(record.value) <= BLOCK_BYTES + EVENTS
            assert record.counts == dict(Counter(chr(line[0]) for line in record.lines))
            for line in record.lines:
                assert record.partition == partition_of(chr(line[0]), partitions)
                found.setdefault(chr(line[0]), []).append(line)
        assert {s: Counter(v) for s, v in found.items()} == {
            s: Counter(v) for s, v in expected.items()
        }
        numbers = [record.headers[blocks.BLOCK] for record in requests.records]
        assert numbers == [b"g/b/%d" % n for n in range(1, len(numbers) + 1)]

    run(scenario())


@given(st.lists(st.integers(1, 24), max_size=30), st.integers(0, 5))
def test_the_order_within_a_source_is_kept(counts: list[int], every: int) -> None:
    async def scenario() -> None:
        requests = Requests()
        tasks = []
        for number, count in enumerate(counts):
            tasks.append(await requests.add("s", lines(str(number), count)))
            if every and number % every == 0:
                requests.producer.acknowledge_all()
                await settle()
        while not all(task.done() for task in tasks):
            await asyncio.sleep(WAIT)
            requests.producer.acknowledge_all()
        expected = [line for n, count in enumerate(counts) for line in lines(str(n), count)]
        assert requests.producer.lines() == expected

    run(scenario())
