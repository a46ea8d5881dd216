"""Blocks: who waits for which, what they say, and what bounds them."""

from __future__ import annotations

import asyncio

import pytest

from dc_platform.broker.client import partition_of
from dc_platform.contracts import blocks
from dc_platform.gateway.batcher import BLOCK_BYTES
from dc_platform_tests.gateway.batching import EVENTS, WAIT, Requests, lines, now
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.virtual_time import run, settle


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
            asyncio.create_task(
                add(tenant, source, [f"{tenant} {source}".encode()], received_ms=NOW)
            )
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


def test_rejects_are_a_block_of_their_own() -> None:
    async def scenario() -> None:
        requests = Requests(held=False)
        await requests.batcher.add_rejects(
            "t", "s", b"arrow\nbytes", 3, received_ms=NOW, batch_id="batch-1"
        )
        (record,) = requests.records
        assert (record.value, record.key, record.counts) == (b"arrow\nbytes", b"s", {"s": 3})
        assert record.headers[blocks.CONTENT_TYPE] == blocks.ARROW.encode()
        assert record.headers[blocks.VERDICT] == b"rejected"
        assert record.headers[blocks.BATCH] == b"batch-1"

    run(scenario())
