"""From the journal to the acks topic: who was acknowledged what, for the ledger.

Shipping is nobody's way: a request is answered when its line is in the journal. Each second the lines
go to `<topic>-acks` in records of about a megabyte, and are deleted when Kafka has them. What is
shipped twice (a crash before the deletion) counts once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dc_platform.broker.producer import BlockProducer
from dc_platform.broker.records import Acknowledged
from dc_platform.contracts import blocks
from dc_platform.contracts.acks import Ack, Count, Counts, ack_line
from dc_platform.contracts.blocks import BlockId
from dc_platform.errors import BrokerUnavailableError
from dc_platform.gateway.journal import Journal, Segment

log = logging.getLogger(__name__)

_SHIP_SECONDS = 1.0
_RECORD_BYTES = 2**20
# How long the end of the gateway waits for the last lines; the next start ships what is left.
_LAST_SECONDS = 3.0


class Acks:
    """Writes down what Kafka acknowledges, and ships it. All calls on one event loop."""

    def __init__(
        self,
        journal: Journal,
        producer: BlockProducer,
        *,
        gateway_id: str,
        clock: Callable[[], int],
    ) -> None:
        self._journal = journal
        self._producer = producer
        self._key = gateway_id.encode()
        self._clock = clock
        self._newest: dict[int, int] = {}
        # Offsets mean nothing without the topic's id.
        self.topic_id = ""
        self.topic_unknown = asyncio.Event()
        # Perhaps because the acks topic is gone: whoever waits makes it anew.
        self.not_taken = asyncio.Event()

    def saw(
        self, block: BlockId, at: Acknowledged, *, tenant: str, verdict: str, counts: Counts
    ) -> None:
        """Write down that Kafka has a block. `counts`: events by source and epoch hour."""
        if at.offset >= 0:
            self._check_topic(at)
        line = ack_line(
            Ack(
                block=str(block),
                tenant=tenant,
                # Whoever does not say where (a repeated send) is found by the block's name.
                topic_id=self.topic_id if at.offset >= 0 else "",
                partition=at.partition,
                offset=at.offset,
                verdict=verdict,
                at_ms=self._clock(),
                counts=[Count(source, hour, n) for (source, hour), n in counts.items()],
            )
        )
        self._journal.write(line)

    def _check_topic(self, at: Acknowledged) -> None:
        """Offsets only fall when the topic was deleted and created again."""
        if at.offset < self._newest.get(at.partition, 0):
            self.topic_id = ""
            self._newest.clear()
            self.topic_unknown.set()
        self._newest[at.partition] = at.offset

    async def follow(self) -> None:
        """Ship for ever, first what earlier starts left."""
        left = self._journal.leftovers()
        while True:
            if self._producer.connected:
                left = await self._ship(left)
                await self._ship(self._journal.take())
            await asyncio.sleep(_SHIP_SECONDS)

    async def stop(self) -> None:
        """Ship what is there, or leave it to the next start."""
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._ship(self._journal.take())
        except TimeoutError:
            log.warning("acknowledgements are left to be shipped at the next start")
        finally:
            self._journal.close()

    async def _ship(self, segments: list[Segment]) -> list[Segment]:
        """Ship in order; gives back to the journal what is left when Kafka or the disk fails."""
        left = list(segments)
        try:
            while left:
                await self._ship_one(left[0])
                self._journal.shipped(left.pop(0))
        except (BrokerUnavailableError, OSError) as error:
            log.warning("acknowledgements wait to be shipped: %s", error)
            self.not_taken.set()
        finally:
            for segment in left:
                self._journal.not_shipped(segment)
        return left

    async def _ship_one(self, segment: Segment) -> None:
        for piece in segment.pieces(_RECORD_BYTES):
            await self._producer.send(
                piece,
                partition=0,
                key=self._key,
                headers=[(blocks.CONTENT_TYPE, blocks.NDJSON.encode())],
            )
