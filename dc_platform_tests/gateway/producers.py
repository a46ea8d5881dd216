"""A producer in memory, which acknowledges when the test says so. `test_producer.py` holds it to
what the real one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from dc_platform.broker.records import MAX_RECORD_BYTES, Acknowledged
from dc_platform.contracts import blocks
from dc_platform.errors import BrokerUnavailableError


class Sent(NamedTuple):
    """A record as the broker got it."""

    value: bytes
    partition: int
    key: bytes | None
    headers: dict[str, bytes]

    @property
    def lines(self) -> list[bytes]:
        return self.value.split(b"\n")

    @property
    def counts(self) -> dict[str, int]:
        """Events per source, as the block's header says."""
        return msgspec.json.decode(self.headers[blocks.COUNTS], type=dict[str, int])


class FakeProducer:
    """Has `partitions`; a send is done when its number is let through."""

    def __init__(self, *, partitions: int | None = 4, held: bool = False) -> None:
        self.records: list[Sent] = []
        self.held = held
        self._partitions = partitions
        self._answers: list[asyncio.Future[None]] = []

    @property
    def connected(self) -> bool:
        return self._partitions is not None

    @property
    def partitions(self) -> int:
        if self._partitions is None:
            raise BrokerUnavailableError("no connection yet")
        return self._partitions

    @partitions.setter
    def partitions(self, count: int | None) -> None:
        self._partitions = count

    async def send(
        self,
        value: bytes,
        *,
        partition: int,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes]],
    ) -> Acknowledged:
        assert 0 <= partition < self.partitions
        if len(value) > MAX_RECORD_BYTES:
            raise BrokerUnavailableError("the record is too large")
        offset = sum(record.partition == partition for record in self.records)
        self.records.append(Sent(value, partition, key, dict(headers)))
        answer = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        if not self.held:
            answer.set_result(None)
        await answer
        return Acknowledged(partition, offset)

    def acknowledge(self, number: int) -> None:
        """Let a send through."""
        if not self._answers[number].done():
            self._answers[number].set_result(None)

    def acknowledge_all(self) -> None:
        """Let all sends through that there were."""
        for number in range(len(self._answers)):
            self.acknowledge(number)

    def fail(self, number: int) -> None:
        """Let a send fail."""
        self._answers[number].set_exception(BrokerUnavailableError("Kafka said no"))

    def lines(self) -> list[bytes]:
        """All lines of all records, in the order of sending."""
        return [line for record in self.records for line in record.lines]
