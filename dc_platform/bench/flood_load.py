"""The load of `dcp bench flood`: NDJSON blocks straight to Kafka, from a process of its own.

It reads rates (events per second, one a line) from standard input and keeps to the last one until the
input ends; then it flushes, writes what Kafka acknowledged to `--acks`, and prints its figures. At most
`_IN_FLIGHT` blocks wait for Kafka: past that it is Kafka, not this process, that sets the rate.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from dc_platform.bench.stencil import new_salt, stencils
from dc_platform.broker.client import RecordWriter, describe_topic, partition_of
from dc_platform.contracts import blocks
from dc_platform.contracts.blocks import BlockId, block_headers

_SOURCES = 64
_IN_FLIGHT = 64
# A pause of the machine must not be made up for by a burst.
_CATCH_UP_SECONDS = 1.0
_NOTICE_SECONDS = 0.05

ACKS = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("appended_at", pa.float64()),
        ("acknowledged_at", pa.float64()),
        ("events", pa.int32()),
    ]
)


class Pacer:
    """When the next block is due. Seconds of a monotonic clock, events per second."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._rate = 0
        self._due = 0.0

    def pause(self, now: float, rate: int) -> float:
        """How long to wait for the next block; 0 when it is due."""
        if rate != self._rate:
            self._rate, self._due = rate, now
        if not rate:
            return math.inf
        self._due = max(self._due, now - _CATCH_UP_SECONDS)
        return max(0.0, self._due - now)

    def sent(self) -> None:
        """A block was sent."""
        self._due += self._events / self._rate


class Load:
    """Sends blocks at a rate that may be changed; `acks` are rows of `ACKS`."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        info = describe_topic(bootstrap, topic)
        assert info is not None
        self._stencils = stencils(_SOURCES, now_ms=time.time_ns() // 1_000_000)
        self._partitions = [partition_of(s.source_id, info.partitions) for s in self._stencils]
        self._writer = RecordWriter(bootstrap, topic)
        self._boot = str(os.getpid())
        self._salt = new_salt()
        self._free = threading.Semaphore(_IN_FLIGHT)
        self.rate = 0
        self.ended = threading.Event()
        self.blocks = 0
        self.failed = 0
        self.acks: list[tuple[int, int, float, float, int]] = []

    def run(self) -> None:
        """Send until `ended` is set; all that was sent is acknowledged or failed then."""
        pacer = Pacer(self._stencils[0].events)
        while not self.ended.is_set():
            pause = pacer.pause(time.monotonic(), self.rate)
            if pause > 0:
                # A new rate holds at once, so no wait is long.
                self.ended.wait(min(pause, _NOTICE_SECONDS))
            else:
                self._free.acquire()
                self._send()
                pacer.sent()
        self._writer.flush()
        self._writer.close()

    def _send(self) -> None:
        number, self.blocks = self.blocks, self.blocks + 1
        stencil = self._stencils[number % len(self._stencils)]
        events = stencil.events
        future = self._writer.write(
            stencil.fill(number * events, time.time_ns() // 1_000_000, salt=self._salt),
            key=stencil.source_id.encode(),
            partition=self._partitions[number % len(self._stencils)],
            headers=block_headers(
                BlockId("bench-flood", self._boot, number),
                content_type=blocks.NDJSON,
                verdict=blocks.VALID,
                tenant=blocks.DEFAULT_TENANT,
                counts={stencil.source_id: events},
            ),
        )
        future.add_callback(self._acknowledged, events)
        future.add_errback(self._refused)

    def _acknowledged(self, events: int, record: Any) -> None:
        row = (record.partition, record.offset, record.timestamp / 1000, time.time(), events)
        self.acks.append(row)
        self._free.release()

    def _refused(self, _error: Exception) -> None:
        self.failed += 1
        self._free.release()


def main() -> None:
    """Run until standard input ends."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "topic", "acks"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    load = Load(given.bootstrap, given.topic)
    sender = threading.Thread(target=load.run)
    sender.start()
    for line in sys.stdin:
        load.rate = int(line)
    load.ended.set()
    sender.join()
    columns = [list(column) for column in zip(*load.acks, strict=True)] or [[]] * len(ACKS)
    with Path(given.acks).open("wb") as sink, pa.ipc.new_file(sink, ACKS) as writer:
        writer.write_table(
            pa.table([pa.array(c, f.type) for c, f in zip(columns, ACKS, strict=True)], schema=ACKS)
        )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "blocks": load.blocks,
                "failed_blocks": load.failed,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
            }
        )
    )


if __name__ == "__main__":
    main()
