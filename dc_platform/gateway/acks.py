"""From the journal to the acks topic: who was acknowledged what, for the ledger.

Shipping is nobody's way: a request is answered when its line is in the journal. Each second the lines
go to `<topic>-acks` in records of about a megabyte, and are deleted when Kafka has them. What is
shipped twice (a crash before the deletion) counts once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

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
# From then on the acks topic may be gone; the producer tries for two minutes before it says so.
_LATE_SECONDS = 10.0
# How long the end of the gateway waits for the last lines; the next start ships what is left.
_LAST_SECONDS = 3.0
# How often it is looked for what a gateway beside this one has left.
_LOOK_SECONDS = 60.0
# How often the topic's id is asked for, whatever the offsets say: 7 ms of processor time.
_ASK_SECONDS = 10.0


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
        self._topic_unknown = asyncio.Event()
        self._look_at = 0.0
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
        """Offsets only fall, or come twice, when the topic was deleted and created again."""
        if at.offset <= self._newest.get(at.partition, -1):
            self.topic_id = ""
            self._newest.clear()
            self._topic_unknown.set()
        self._newest[at.partition] = at.offset

    async def watch_topic(self, ask: Callable[[], Awaitable[str]]) -> None:
        """Ask for the topic's id for ever: as soon as an offset says that it is another one, and now
        and then, because others may have filled the new topic past every offset that was seen here.

        `ask` gives nothing when nobody can tell.
        """
        while True:
            seconds = _ASK_SECONDS if self.topic_id else _SHIP_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._topic_unknown.wait()
            self._topic_unknown.clear()
            found = await ask()
            # An answer that was under way when an offset fell may be the old one.
            if found and not self._topic_unknown.is_set() and found != self.topic_id:
                if self.topic_id:
                    self._newest.clear()
                self.topic_id = found

    async def follow(self) -> None:
        """Ship for ever, first what ended starts left."""
        while True:
            try:
                if self._producer.connected:
                    await self._ship_leftovers()
                    await self._ship(self._journal.take())
            except Exception:
                # Were this task to end, nothing would be shipped until the next start.
                log.exception("acknowledgements wait to be shipped")
            await asyncio.sleep(_SHIP_SECONDS)

    async def _ship_leftovers(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return
        while left := self._journal.leftovers():
            if await self._ship(left):
                return
        self._look_at = now + _LOOK_SECONDS

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
        late = asyncio.get_running_loop().call_later(_LATE_SECONDS, self.not_taken.set)
        try:
            while left:
                await self._ship_one(left[0])
                self._journal.shipped(left.pop(0))
        except (BrokerUnavailableError, OSError) as error:
            log.warning("acknowledgements wait to be shipped: %s", error)
            self.not_taken.set()
        finally:
            late.cancel()
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
