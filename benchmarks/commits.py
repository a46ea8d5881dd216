"""`python -m benchmarks.commits`: how many landings a second writers manage together, and how fairly.

Each writer is a process with a partition of its own that lands small batches as fast as it can, into
bronze and silver, as a landing slot does; no Kafka. The last line printed is a JSON object: per number
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
from collections.abc import Iterator, Sequence
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any, NamedTuple

from dc_platform.bench import workload
from dc_platform.broker.records import Record, TopicInfo
from dc_platform.decode.columns import AnySource
from dc_platform.decode.decoder import Decoder
from dc_platform.errors import CommitConflictError
from dc_platform.lake.store import Lake
from dc_platform.landing.batch import Batch, Range
from dc_platform.landing.commits import Committer
from dc_platform.landing.slots import Slot

_TOPIC = "00000000-0000-4000-8000-000000000001"


class Done(NamedTuple):
    """What a writer did."""

    landings: int
    slowest_seconds: float
    tries: int
    given_up: int
    cpu_seconds: float


def batches(partition: int, events: int) -> Iterator[Batch]:
    """Batches of one record of `events` each, for ever."""
    decoder = Decoder(_TOPIC, AnySource())
    now_ms = time.time_ns() // 1_000_000
    for offset, block in enumerate(_blocks(partition, events, now_ms)):
        value = b"\n".join(workload.as_plain_json(event) for event in block)
        judged = decoder.decode([Record(partition, offset, now_ms, None, {}, value)])
        yield Batch(judged, {partition: Range(offset, offset + 1)}, len(value))


def _blocks(partition: int, events: int, now_ms: int) -> Iterator[list[workload.Event]]:
    seed = partition
    while True:
        seed += 1000
        yield from workload.generate(events, now_ms=now_ms, seed=seed)


def write(
    uri: str, slot: Slot, events: int, together: Barrier, stop: Event, results: mp.Queue[Done]
) -> None:
    """One writer: land until `stop`."""
    info = TopicInfo("bench", "bench", _TOPIC, slot.of)
    partition = slot.number
    tries = 0

    def reached(point: str) -> None:
        nonlocal tries
        tries += point == "silver written"

    committer = Committer(
        Lake(uri),
        info,
        [partition],
        identity_memory_mb=64,
        owner=f"writer-{slot.number}",
        reached=reached,
    )
    committer.begin({partition: 0})
    landings, slowest, given_up = 0, 0.0, 0
    ready = [batch for batch, _ in zip(batches(partition, events), range(400), strict=False)]
    together.wait()
    used = time.process_time()
    for batch in ready:
        begun = time.monotonic()
        while True:
            try:
                committer.land(batch)
                break
            except CommitConflictError:
                given_up += 1
        slowest = max(slowest, time.monotonic() - begun)
        landings += 1
        if stop.is_set():
            break
    committer.close()
    results.put(Done(landings, slowest, tries, given_up, time.process_time() - used))


def measure(directory: Path, writers: int, *, events: int, seconds: float) -> dict[str, Any]:
    """Let so many writers land for so long into an empty lake."""
    uri = str(directory / f"lake-{writers}")
    context = mp.get_context("spawn")
    together, stop = context.Barrier(writers + 1), context.Event()
    results: mp.Queue[Done] = context.Queue()
    slots = [Slot(number, writers) for number in range(writers)]
    started = [
        context.Process(target=write, args=(uri, slot, events, together, stop, results))
        for slot in slots
    ]
    for process in started:
        process.start()
    together.wait()
    begun = time.monotonic()
    time.sleep(seconds)
    stop.set()
    done = [results.get(timeout=120) for _ in started]
    took = time.monotonic() - begun
    for process in started:
        process.join()
    counts = [one.landings for one in done]
    return {
        "writers": writers,
        "landings_per_second": round(sum(counts) / took, 1),
        "slowest_writers_share": round(min(counts) / max(counts), 2),
        "slowest_landing_seconds": round(max(one.slowest_seconds for one in done), 2),
        "tries_per_landing": round(sum(one.tries for one in done) / sum(counts), 2),
        "cpu_ms_per_landing": round(1000 * sum(one.cpu_seconds for one in done) / sum(counts), 1),
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
