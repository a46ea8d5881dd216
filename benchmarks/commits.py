"""`python -m benchmarks.commits`: how many landings a second writers manage together, and how fairly.

Each writer is a process with a partition of its own that lands small batches as fast as it can, into
bronze and silver, as a landing slot does; no Kafka. None runs out of batches, and one clock ends for
all: what is landed within it counts. The last line printed is a JSON object: per number
of writers the landings a second of all, the slowest writer's share of the fastest one's, the slowest
landing, how often silver's commit was tried for one landing, and how often it was given up.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.writers import Clock, land_until, options, share_of_slowest, side_by_side
from dc_platform.bench import workload
from dc_platform.bench.stencil import uuids
from dc_platform.broker.records import Record, TopicInfo
from dc_platform.decode.columns import AnySource
from dc_platform.decode.decoder import Decoder
from dc_platform.errors import CommitConflictError
from dc_platform.lake.store import Lake
from dc_platform.landing.batch import Batch, Range
from dc_platform.landing.commits import Committer
from dc_platform.landing.slots import Slot

_TOPIC = "00000000-0000-4000-8000-000000000001"


# Batches that are made from events; after them the same come again as others. Each costs 10 ms to make
# and 0.2 to make another one of.
_MADE = 50


class Done(NamedTuple):
    """What a writer landed within the clock; the rest counts the landing that it ended in, too."""

    landings: int
    slowest_seconds: float
    tries: int
    given_up: int
    cpu_seconds: float


def batches(partition: int, events: int) -> Iterator[Batch]:
    """Batches of one record of `events` each, for ever, and no event twice."""
    decoder = Decoder(_TOPIC, AnySource())
    now_ms = time.time_ns() // 1_000_000
    made: list[Batch] = []
    for offset, block in enumerate(islice(_blocks(partition, events, now_ms), _MADE)):
        value = b"\n".join(workload.as_plain_json(event) for event in block)
        judged = decoder.decode([Record(partition, offset, now_ms, {}, value)])
        made.append(Batch(judged, {partition: Range(offset, offset + 1)}, len(value)))
    yield from made
    for offset in count(_MADE):
        yield _another(made[offset % _MADE], partition, offset)


def _blocks(partition: int, events: int, now_ms: int) -> Iterator[list[workload.Event]]:
    seed = partition
    while True:
        seed += 1000
        yield from workload.generate(events, now_ms=now_ms, seed=seed)


def _another(batch: Batch, partition: int, offset: int) -> Batch:
    """The batch with ids of its own at an offset of its own. Its raw bytes keep the old ids."""
    rows = len(batch.judged)
    ids = uuids(offset * rows, rows, salt=partition + 1)
    text = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(ids.shape[1]), rows, [None, pa.py_buffer(ids.tobytes())]
    )
    columns = {
        "event_id": text.cast(pa.binary()).cast(pa.string()),
        "kafka_offset": pa.array(np.full(rows, offset), pa.int64()),
    }
    judged = batch.judged
    for name, column in columns.items():
        judged = judged.set_column(judged.schema.get_field_index(name), name, column)
    return Batch(judged, {partition: Range(offset, offset + 1)}, batch.bytes)


def write(uri: str, slot: Slot, events: int, clock: Clock) -> Done:
    """One writer: land until the clock ends."""
    info = TopicInfo("bench", "bench", _TOPIC, slot.of)
    tries = given_up = 0

    def reached(point: str) -> None:
        nonlocal tries
        tries += point == "silver written"

    committer = Committer(
        Lake(uri),
        info,
        [slot.number],
        identity_memory_mb=64,
        owner=f"writer-{slot.number}",
        reached=reached,
    )
    committer.begin({slot.number: 0})

    def land(batch: Batch) -> None:
        nonlocal given_up
        while True:
            try:
                committer.land(batch)
                return
            except CommitConflictError:
                given_up += 1

    ready = batches(slot.number, events)
    # With the first of them all are made that are made from events.
    ready = chain([next(ready)], ready)
    clock.start()
    used = time.process_time()
    landings, slowest = land_until(clock.ended, ready, land)
    used = time.process_time() - used
    committer.close()
    return Done(landings, slowest, tries, given_up, used)


def measure(directory: Path, writers: int, *, events: int, seconds: float) -> dict[str, Any]:
    """Let so many writers land for so long into an empty lake."""
    uri = str(directory / f"lake-{writers}")
    slots = [Slot(number, writers) for number in range(writers)]
    return figures(side_by_side(write, [(uri, slot, events) for slot in slots], seconds), seconds)


def figures(done: Sequence[Done], seconds: float) -> dict[str, Any]:
    """What the writers of one clock did together."""
    counts = [one.landings for one in done]
    # Each writer was stopped within one more landing, whose tries and processor time are in its sums.
    begun = sum(counts) + len(done)
    return {
        "writers": len(done),
        "landings_per_second": round(sum(counts) / seconds, 1),
        "slowest_writers_share": share_of_slowest(counts),
        "slowest_landing_seconds": round(max(one.slowest_seconds for one in done), 2),
        "tries_per_landing": round(sum(one.tries for one in done) / begun, 2),
        "cpu_ms_per_landing": round(1000 * sum(one.cpu_seconds for one in done) / begun, 1),
        "given_up": sum(one.given_up for one in done),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    given = options("commits", __doc__, arguments)
    directory = Path(tempfile.mkdtemp(prefix="dcp-commits-"))
    try:
        found = [
            measure(directory, writers, events=given.events, seconds=given.seconds)
            for writers in given.writers
        ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps({"events_per_batch": given.events, "local_disk": found}))


if __name__ == "__main__":
    main()
