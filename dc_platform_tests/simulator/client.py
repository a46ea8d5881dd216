"""What clients send, and what they were told: the other side of the audit's sheet.

Events are numbered; what a number stands for never changes, so a retry repeats it. The model knows of
each record which events it holds without asking the platform's decoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import NamedTuple

from dc_platform.broker.records import Record
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import Reject
from dc_platform_tests.helpers.events import HOUR, NOW, some_uuid
from dc_platform_tests.helpers.records import (
    SOURCE,
    arrow,
    block,
    gateway_line,
    rejects_block,
    strange,
)
from dc_platform_tests.simulator.broker import SimBroker


class Item(NamedTuple):
    """One event of a record: a valid one by its identity, a reject by (hash, index).

    Of a stranger's nonsense the identity is its address: `request_hash` is None.
    """

    valid: bool
    event_id: str | None = None
    request_hash: str | None = None
    index: int = 0


Sent = tuple[Record, list[Item]]


def _timestamp(number: int) -> int | None:
    return None if number % 4 == 0 else NOW - number % 3 * HOUR


@lru_cache(2_000)
def _line(number: int) -> bytes:
    return gateway_line(_text(number, source=False))


@lru_cache(2_000)
def _text(number: int, *, source: bool) -> bytes:
    event = {"eventId": some_uuid(number), "eventType": "t", "payload": {"n": number}}
    if (timestamp := _timestamp(number)) is not None:
        event["timestamp"] = timestamp
    if source:
        event["sourceId"] = SOURCE
    return json.dumps(event).encode()


def _events(numbers: list[int]) -> list[Item]:
    return [Item(True, some_uuid(number)) for number in numbers]


def _block(numbers: list[int], chance: Random) -> Sent:
    return block([_line(n) for n in numbers]), _events(numbers)


def _strangers(numbers: list[int], chance: Random) -> Sent:
    return strange(b"\n".join(_text(n, source=True) for n in numbers)), _events(numbers)


def _arrow(numbers: list[int], chance: Random) -> Sent:
    timed = [n for n in numbers if _timestamp(n) is not None] or [1]
    columns = {
        "eventId": [some_uuid(n) for n in timed],
        "sourceId": [SOURCE] * len(timed),
        "eventType": ["t"] * len(timed),
        "timestamp": [_timestamp(n) for n in timed],
        "payload": [f'{{"n":{n}}}' for n in timed],
    }
    return arrow(columns), _events(timed)


def _rejects(numbers: list[int], chance: Random) -> Sent:
    request_hash = f"{chance.randrange(6):064x}"
    rejects = [Reject.of(i, Reason.MALFORMED_JSON, "no JSON", b"x") for i in range(len(numbers))]
    items = [Item(False, None, request_hash, i) for i in range(len(numbers))]
    return rejects_block(rejects, request_hash=request_hash), items


def _nonsense(numbers: list[int], chance: Random) -> Sent:
    return strange(b"nonsense"), [Item(False)]


def _blank(numbers: list[int], chance: Random) -> Sent:
    return strange(b" \n"), []


_KINDS: list[tuple[Callable[[list[int], Random], Sent], int]] = [
    (_block, 10),
    (_strangers, 4),
    (_arrow, 2),
    (_rejects, 3),
    (_nonsense, 1),
    (_blank, 1),
]


class Client:
    """Sends events, and sends some of them again: to the same partition or to another."""

    def __init__(self, broker: SimBroker, chance: Random, *, transactions: bool = True) -> None:
        self._broker = broker
        self._chance = chance
        self._transactions = transactions
        self._next = 0
        # Topic id → (partition, offset) → what Kafka has acknowledged there.
        self.acknowledged: dict[str, dict[tuple[int, int], list[Item]]] = {}
        self._pending: dict[int, dict[tuple[int, int], list[Item]]] = {}

    def send(self, now_ms: int) -> None:
        """One record, or now and then the one end of a transaction or the other."""
        chance, broker = self._chance, self._broker
        partition = chance.randrange(broker.info.partitions)
        if partition in self._pending:
            if chance.random() < 0.5:
                self.end_transaction(partition)
                return
        elif self._transactions and chance.random() < 0.06:
            broker.begin_transaction(partition)
            self._pending[partition] = {}
        kinds, weights = zip(*_KINDS, strict=True)
        make = chance.choices(kinds, weights)[0]
        record, items = make(self._numbers(), chance)
        offset = broker.append(partition, record._replace(timestamp_ms=now_ms))
        told = self._pending.get(partition)
        if told is None:
            told = self.acknowledged.setdefault(broker.info.topic_id, {})
        told[(partition, offset)] = items

    def end_transaction(self, partition: int) -> None:
        """Half of them are aborted, and what they sent was never acknowledged."""
        commit = self._chance.random() < 0.5
        self._broker.end_transaction(partition, commit=commit)
        pending = self._pending.pop(partition)
        if commit:
            topic = self.acknowledged.setdefault(self._broker.info.topic_id, {})
            topic.update(pending)

    def end_transactions(self) -> None:
        """All that are open."""
        for partition in list(self._pending):
            self.end_transaction(partition)

    def forget_transactions(self) -> None:
        """Their topic is gone."""
        self._pending.clear()

    def _numbers(self) -> list[int]:
        size = self._chance.randint(1, 4)
        if self._next and self._chance.random() < 0.35:
            return [self._chance.randrange(self._next) for _ in range(size)]
        numbers = list(range(self._next, self._next + size))
        self._next += size
        if self._chance.random() < 0.1:
            numbers.append(numbers[0])
        return numbers
