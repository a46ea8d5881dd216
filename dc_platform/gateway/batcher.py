"""Events of many requests to Kafka blocks (design 6.1: 1,000 events or 100 ms).

A large request (in events or in bytes) makes blocks of its own, keyed by its source. Small ones
share a block per tenant and partition: it is sent at once when nothing of that partition is under
way, otherwise when it is full, when the one under way is acknowledged, or when its oldest event has
waited long enough. So a lone event is not delayed, and a flood of single events makes few records.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field

from dc_platform.broker.client import partition_of
from dc_platform.broker.producer import BlockProducer
from dc_platform.contracts import blocks
from dc_platform.contracts.acks import Counts, hour_of
from dc_platform.contracts.blocks import BlockId, block_headers
from dc_platform.contracts.sampling import Rates
from dc_platform.points import Point, Reached, unarmed

BLOCK_BYTES = 2**20


@dataclass
class _Block:
    """A block that is being filled. `done` resolves when Kafka has it."""

    lines: list[bytes] = field(default_factory=list)
    # By source and epoch hour of receipt.
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    bytes: int = 0
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    timer: asyncio.TimerHandle | None = None


class Batcher:
    """Makes blocks and sends them. All calls on one event loop."""

    def __init__(
        self,
        producer: BlockProducer,
        *,
        gateway_id: str,
        boot_id: str,
        batch_events: int,
        batch_wait_ms: int,
        acknowledged: Callable[..., None],
        sampling: Callable[[Mapping[str, int]], Rates] = lambda counts: {},
        reached: Reached = unarmed,
    ) -> None:
        self._producer = producer
        self._acknowledged = acknowledged
        self._sampling = sampling
        self._gateway_id = gateway_id
        self._boot_id = boot_id
        self._events = batch_events
        self._wait = batch_wait_ms / 1000
        self._reached = reached
        self._number = 0
        self._open: dict[tuple[str, int], _Block] = {}
        self._under_way: Counter[tuple[str, int]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._partitions_of: dict[str, int] = {}

    async def add(
        self,
        tenant: str,
        source_id: str,
        lines: Sequence[bytes],
        *,
        received_ms: int,
        batch_id: str | None = None,
    ) -> None:
        """Returns when Kafka has all lines, and their acknowledgement is written down; raises
        BrokerUnavailableError.
        """
        partition = self._partition(source_id)
        hour = hour_of(received_ms)
        small = len(lines) < self._events // 4 and sum(map(len, lines)) < BLOCK_BYTES // 4
        if small and batch_id is None:
            # Shielded: a client that goes away must not take its neighbours' block with it.
            await asyncio.shield(self._share(tenant, partition, (source_id, hour), lines))
            return
        sends = [
            self._task(
                self._send(
                    b"\n".join(part),
                    content_type=blocks.NDJSON,
                    verdict=blocks.VALID,
                    tenant=tenant,
                    partition=partition,
                    key=source_id,
                    counts={(source_id, hour): len(part)},
                    batch_id=batch_id,
                )
            )
            for part in self._parts(lines)
        ]
        await asyncio.gather(*(asyncio.shield(send) for send in sends))

    async def add_rejects(
        self,
        tenant: str,
        source_id: str,
        value: bytes,
        count: int,
        *,
        received_ms: int,
        batch_id: str | None = None,
        judged_by: str | None = None,
    ) -> None:
        """Send an Arrow block of rejected events, all of one verdict's schema version or of none."""
        await self._send(
            value,
            content_type=blocks.ARROW,
            verdict=blocks.REJECTED,
            tenant=tenant,
            partition=self._partition(source_id),
            key=source_id,
            counts={(source_id, hour_of(received_ms)): count},
            batch_id=batch_id,
            judged_by=judged_by,
        )

    def _partition(self, source_id: str) -> int:
        partitions = self._producer.partitions
        cached = self._partitions_of.get(source_id)
        if cached is None or cached >= partitions:
            if len(self._partitions_of) > 1_000_000:
                self._partitions_of.clear()
            cached = self._partitions_of[source_id] = partition_of(source_id, partitions)
        return cached

    def _parts(self, lines: Sequence[bytes]) -> list[list[bytes]]:
        parts: list[list[bytes]] = [[]]
        size = 0
        for line in lines:
            if parts[-1] and (len(parts[-1]) >= self._events or size + len(line) > BLOCK_BYTES):
                parts.append([])
                size = 0
            parts[-1].append(line)
            size += len(line)
        return parts

    def _share(
        self, tenant: str, partition: int, whose: tuple[str, int], lines: Sequence[bytes]
    ) -> asyncio.Future[None]:
        where = (tenant, partition)
        size = sum(map(len, lines))
        block = self._open.get(where)
        if block is not None and (
            len(block.lines) + len(lines) > self._events or block.bytes + size > BLOCK_BYTES
        ):
            self._flush(where)
            block = None
        if block is None:
            block = self._open[where] = _Block()
            loop = asyncio.get_running_loop()
            if self._under_way[where]:
                block.timer = loop.call_later(self._wait, self._flush, where)
            else:
                # Requests that arrive in the same turn of the loop still share it.
                block.timer = loop.call_later(0, self._flush, where)
        block.lines += lines
        block.bytes += size
        block.counts[whose] += len(lines)
        done = block.done
        if len(block.lines) >= self._events or block.bytes >= BLOCK_BYTES:
            self._flush(where)
        return done

    def _flush(self, where: tuple[str, int]) -> None:
        block = self._open.pop(where, None)
        if block is None:
            return
        if block.timer is not None:
            block.timer.cancel()
        self._under_way[where] += 1
        self._task(self._send_shared(where, block))

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task that outlives the request that began it: the event loop keeps only weak ones."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Asked for here, so that nobody complains when the client has gone away.
            task.exception()

    async def _send_shared(self, where: tuple[str, int], block: _Block) -> None:
        tenant, partition = where
        sources = {source for source, _ in block.counts}
        try:
            await self._send(
                b"\n".join(block.lines),
                content_type=blocks.NDJSON,
                verdict=blocks.VALID,
                tenant=tenant,
                partition=partition,
                # A mixed block has no key: its partition says where it belongs.
                key=sources.pop() if len(sources) == 1 else None,
                counts=block.counts,
            )
        except Exception as error:
            if not block.done.done():
                block.done.set_exception(error)
                # Asked for here, so that nobody complains when every client has gone away.
                block.done.exception()
        else:
            if not block.done.done():
                block.done.set_result(None)
        finally:
            self._under_way[where] -= 1
            self._flush(where)

    async def _send(
        self,
        value: bytes,
        *,
        content_type: str,
        verdict: str,
        tenant: str,
        partition: int,
        key: str | None,
        counts: Counts,
        batch_id: str | None = None,
        judged_by: str | None = None,
    ) -> None:
        self._number += 1
        block = BlockId(self._gateway_id, self._boot_id, self._number)
        by_source = _by_source(counts)
        headers = block_headers(
            block,
            content_type=content_type,
            verdict=verdict,
            tenant=tenant,
            counts=by_source,
            batch_id=batch_id,
            judged_by=judged_by,
            sampling=self._sampling(by_source) if verdict == blocks.VALID else None,
        )
        self._reached(Point.BEFORE_BLOCK)
        at = await self._producer.send(
            value, partition=partition, key=key.encode() if key else None, headers=headers
        )
        self._reached(Point.BLOCK_ACKED)
        # Before anybody is answered.
        self._acknowledged(block, at, tenant=tenant, verdict=verdict, counts=counts)


def _by_source(counts: Counts) -> dict[str, int]:
    sums: dict[str, int] = {}
    for (source, _), events in counts.items():
        sums[source] = sums.get(source, 0) + events
    return sums
