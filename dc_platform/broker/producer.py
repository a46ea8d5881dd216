"""The gateway's producer: aiokafka inside the event loop, idempotent, `acks=all`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from dc_platform.broker.records import MAX_RECORD_BYTES, Acknowledged
from dc_platform.errors import BrokerUnavailableError
from dc_platform.points import Point, Reached, unarmed

log = logging.getLogger(__name__)

# A batch that was sent is tried again until the broker answers; one that could not be sent at all
# (no leader) is given up after this.
_REQUEST_TIMEOUT_MS = 120_000
_RECONNECT_SECONDS = 1.0


class BlockProducer:
    """Sends blocks to one topic. Starts without a broker and connects as soon as there is one."""

    def __init__(self, bootstrap: str, topic: str, *, reached: Reached = unarmed) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._reached = reached
        self._producer: AIOKafkaProducer | None = None
        self._partitions = 0
        self._connecting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect in the background; returns at once."""
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id="dcp-gateway",
                acks="all",
                enable_idempotence=True,
                compression_type="lz4",
                linger_ms=0,
                max_batch_size=2**20,
                max_request_size=MAX_RECORD_BYTES,
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
                metadata_max_age_ms=30_000,
            )
            try:
                await producer.start()
                self._partitions = len(await producer.partitions_for(self._topic))
            except (KafkaError, OSError) as error:
                log.warning("Kafka at %s is not there yet: %s", self._bootstrap, error)
                with contextlib.suppress(Exception):
                    await producer.stop()
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            self._producer = producer
            log.info("connected to Kafka at %s, %d partitions", self._bootstrap, self._partitions)
            return

    @property
    def connected(self) -> bool:
        """Whether there was a broker since the start."""
        return self._producer is not None

    @property
    def partitions(self) -> int:
        """Number of partitions of the topic, as of the newest metadata (30 s at most, or a failed
        send); raises when there was no broker yet."""
        known = self._living().client.cluster.partitions_for_topic(self._topic)
        self._partitions = len(known or ()) or self._partitions
        return self._partitions

    def _living(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise BrokerUnavailableError(f"no connection to Kafka at {self._bootstrap} yet")
        return self._producer

    async def send(
        self,
        value: bytes,
        *,
        partition: int,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes]],
    ) -> Acknowledged:
        """Returns when Kafka has the block (`acks=all`), where; raises BrokerUnavailableError."""
        producer = self._living()
        try:
            acknowledged = await producer.send(
                self._topic, value=value, key=key, partition=partition, headers=list(headers)
            )
            self._reached(Point.BLOCK_QUEUED)
            there = await acknowledged
        except KafkaError as error:
            if producer is self._producer and _is_fatal(error):
                log.error("the producer cannot go on (%s): connecting anew", error)
                self._producer = None
                await self.start()
            raise BrokerUnavailableError(f"Kafka did not take a block: {error!r}") from error
        return Acknowledged(there.partition, there.offset)

    async def probe(self) -> bool:
        """Whether the broker answers."""
        if self._producer is None:
            return False
        try:
            async with asyncio.timeout(2):
                await self._producer.client.fetch_all_metadata()
                self._partitions = len(await self._producer.partitions_for(self._topic))
        except (KafkaError, OSError, TimeoutError):
            return False
        return True

    async def stop(self) -> None:
        """Send what is queued, then disconnect."""
        if self._connecting:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._producer is not None:
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(10):
                    await self._producer.stop()


def _is_fatal(error: KafkaError) -> bool:
    """Errors after which an idempotent producer refuses everything."""
    return type(error).__name__ in {
        "ProducerFenced",
        "OutOfOrderSequenceNumber",
        "InvalidProducerEpoch",
        "UnknownProducerId",
        "InvalidProducerIdMapping",
        "ProducerClosed",
    }
