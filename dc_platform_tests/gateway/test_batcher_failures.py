"""Blocks when sends fail and clients go away, and what holds of them whatever comes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.broker.client import partition_of
from dc_platform.contracts import blocks
from dc_platform.errors import BrokerUnavailableError
from dc_platform.gateway.batcher import BLOCK_BYTES
from dc_platform_tests.gateway.batching import EVENTS, WAIT, Requests, lines
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.virtual_time import run, settle


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
                await requests.batcher.add("t", "s", lines("l", count), received_ms=NOW)
        with pytest.raises(BrokerUnavailableError):
            await requests.batcher.add_rejects("t", "s", b"arrow", 1, received_ms=NOW)
        requests.producer.partitions = 8
        await requests.batcher.add("t", "s", [b"x"], received_ms=NOW)
        # The topic was made anew, with fewer partitions.
        requests.producer.partitions = 1
        await requests.batcher.add("t", "s", [b"y"], received_ms=NOW)
        assert [r.partition for r in requests.records] == [partition_of("s", 8), 0]

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
