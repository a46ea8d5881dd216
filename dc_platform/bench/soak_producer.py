"""What is sent during a soak, and what of it has to be found: small blocks at a steady rate."""

from __future__ import annotations

import random
import threading
import time
import uuid

from dc_platform.bench.workload import PARTITIONS, Event, as_line, payload, source_id
from dc_platform.broker.client import RecordWriter, ensure_topic, partition_of
from dc_platform.contracts import blocks
from dc_platform.contracts.blocks import BlockId, block_headers

_BLOCK = 10
_SOURCES = 100
# One event in twenty was sent before, one record in fifty is a stranger's that is no JSON.
_AGAIN = 0.05
_NONSENSE = 50
_REMEMBERED = 20_000


class Producer:
    """`rate` records per second. `unique`, `rejected` and `events` say what was sent."""

    def __init__(self, bootstrap: str, topic: str, rate: int) -> None:
        ensure_topic(bootstrap, topic, partitions=PARTITIONS, replication=1)
        self._writer = RecordWriter(bootstrap, topic)
        self._rate = rate
        self._random = random.Random(1)
        self._sent: list[Event] = []
        self.events = self.unique = self.rejected = 0

    def run(self, stopped: threading.Event) -> None:
        """Send until told to stop; then all that was counted is in Kafka."""
        begun = time.monotonic()
        number = 0
        while not stopped.is_set():
            self._send(number)
            number += 1
            ahead = begun + number / self._rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            elif ahead < -1:
                # The machine was busy elsewhere: go on, without a flood afterwards.
                begun = time.monotonic() - number / self._rate
        self._writer.flush()
        self._writer.close()

    def _send(self, number: int) -> None:
        if number % _NONSENSE == _NONSENSE - 1:
            self._writer.write(b"nonsense %d" % number, partition=number % PARTITIONS)
            self.rejected += 1
            self.events += 1
            return
        now_ms = time.time_ns() // 1_000_000
        source = source_id(number % _SOURCES)
        events = [self._event(source, now_ms) for _ in range(_BLOCK)]
        headers = block_headers(
            BlockId("soak", "1", number),
            content_type=blocks.NDJSON,
            verdict=blocks.VALID,
            tenant=blocks.DEFAULT_TENANT,
            counts={source: len(events)},
        )
        self._writer.write(
            b"\n".join(as_line(event, now_ms) for event in events),
            key=source.encode(),
            partition=partition_of(source, PARTITIONS),
            headers=headers,
        )
        self.events += len(events)

    def _event(self, source: str, now_ms: int) -> Event:
        if self._sent and self._random.random() < _AGAIN:
            return self._random.choice(self._sent)
        made = Event(
            source,
            str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            now_ms,
            "soak",
            payload(self._random),
        )
        self.unique += 1
        if len(self._sent) < _REMEMBERED:
            self._sent.append(made)
        else:
            self._sent[self._random.randrange(_REMEMBERED)] = made
        return made
