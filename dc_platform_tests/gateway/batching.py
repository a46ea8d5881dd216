"""Requests to a batcher over a producer in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, cast

from dc_platform.broker.producer import BlockProducer
from dc_platform.broker.records import Acknowledged
from dc_platform.contracts.acks import Counts
from dc_platform.contracts.blocks import BlockId
from dc_platform.gateway.batcher import Batcher
from dc_platform_tests.gateway.producers import FakeProducer, Sent
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.virtual_time import settle

EVENTS = 100
WAIT = 0.1


class Seen(NamedTuple):
    """What the batcher says of a block that was acknowledged."""

    block: BlockId
    at: Acknowledged
    tenant: str
    verdict: str
    counts: dict[tuple[str, int], int]


def batcher_of(producer: FakeProducer, seen: list[Seen] | None = None) -> Batcher:
    def acknowledged(
        block: BlockId, at: Acknowledged, *, tenant: str, verdict: str, counts: Counts
    ) -> None:
        if seen is not None:
            seen.append(Seen(block, at, tenant, verdict, dict(counts)))

    return Batcher(
        cast(BlockProducer, producer),
        gateway_id="g",
        boot_id="b",
        batch_events=EVENTS,
        batch_wait_ms=int(WAIT * 1000),
        acknowledged=acknowledged,
    )


def lines(name: str, count: int, size: int = 0) -> list[bytes]:
    return [f"{name}-{number}".encode().ljust(size, b".") for number in range(count)]


def now() -> float:
    return asyncio.get_running_loop().time()


class Requests:
    """Requests under way, on one partition unless there are more."""

    def __init__(self, *, partitions: int | None = 1, held: bool = True) -> None:
        self.producer = FakeProducer(partitions=partitions, held=held)
        self.seen: list[Seen] = []
        self.batcher = batcher_of(self.producer, self.seen)

    async def add(
        self,
        source: str,
        sent: Sequence[bytes],
        *,
        tenant: str = "t",
        batch: str | None = None,
        received_ms: int = NOW,
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(
            self.batcher.add(tenant, source, sent, received_ms=received_ms, batch_id=batch)
        )
        await settle()
        return task

    @property
    def records(self) -> list[Sent]:
        return self.producer.records
