"""`python -m benchmarks.commits`: how many landings a second writers manage together, and how fairly.

Each writer is a process with a partition of its own that lands small batches as fast as it can, into
bronze and silver, as a landing slot does; no Kafka. None runs out of batches, and one clock ends for
all: what is landed within it counts. The last line printed is a JSON object: per number
of writers the landings a second of all, the slowest writer's share of the fastest one's, the slowest
landing, how often silver's commit was tried for one landing, and how often it was given up.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, count, islice
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

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


def land_until(
    ended: Callable[[], bool], ready: Iterable[Batch], land: Callable[[Batch], None]
) -> tuple[int, float]:
    """Land until the clock has ended: how many were landed before, and the seconds of the slowest."""
    landings, slowest = 0, 0.0
    for batch in ready:
        begun = time.monotonic()
        land(batch)
        slowest = max(slowest, time.monotonic() - begun)
        if ended():
            break
        landings += 1
    return landings, slowest


def write(
    uri: str,
    slot: Slot,
    events: int,
    together: Barrier,
    end: Synchronized[float],
    results: mp.Queue[Done],
) -> None:
    """One writer: land until `end`, of the monotonic clock, which all processes share."""
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
    together.wait()
    # Meanwhile the clock is set.
    together.wait()
    used = time.process_time()
    landings, slowest = land_until(lambda: time.monotonic() >= end.value, ready, land)
    used = time.process_time() - used
    committer.close()
    results.put(Done(landings, slowest, tries, given_up, used))


def measure(directory: Path, writers: int, *, events: int, seconds: float) -> dict[str, Any]:
    """Let so many writers land for so long into an empty lake."""
    uri = str(directory / f"lake-{writers}")
    context = mp.get_context("spawn")
    together, end = context.Barrier(writers + 1), context.Value("d", 0.0)
    results: mp.Queue[Done] = context.Queue()
    slots = [Slot(number, writers) for number in range(writers)]
    started = [
        context.Process(target=write, args=(uri, slot, events, together, end, results))
        for slot in slots
    ]
    for process in started:
        process.start()
    # All have their batches; then the clock is set, and all begin.
    together.wait()
    end.value = time.monotonic() + seconds
    together.wait()
    done = [results.get(timeout=seconds + 120) for _ in started]
    for process in started:
        process.join()
    return figures(done, seconds)


def figures(done: Sequence[Done], seconds: float) -> dict[str, Any]:
    """What the writers of one clock did together."""
    counts = [one.landings for one in done]
    # Each writer was stopped within one more landing, whose tries and processor time are in its sums.
    begun = sum(counts) + len(done)
    return {
        "writers": len(done),
        "landings_per_second": round(sum(counts) / seconds, 1),
        "slowest_writers_share": round(min(counts) / max(1, *counts), 2),
        "slowest_landing_seconds": round(max(one.slowest_seconds for one in done), 2),
        "tries_per_landing": round(sum(one.tries for one in done) / begun, 2),
        "cpu_ms_per_landing": round(1000 * sum(one.cpu_seconds for one in done) / begun, 1),
        "given_up": sum(one.given_up for one in done),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=__doc__)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--events", type=int, default=200, help="events of a batch")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args(arguments)
    directory = Path(tempfile.mkdtemp(prefix="dcp-commits-"))
    try:
        found = [
            measure(directory, writers, events=options.events, seconds=options.seconds)
            for writers in options.writers
        ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps({"events_per_batch": options.events, "local_disk": found}))


if __name__ == "__main__":
    main()
