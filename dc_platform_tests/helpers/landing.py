"""Landing without Kafka: batches of records that a test wrote, and crashes wherever it likes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from dc_platform.broker.records import Record, TopicInfo
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import Reject
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.decode.columns import AnySource
from dc_platform.decode.decoder import Decoder
from dc_platform.lake.store import Lake
from dc_platform.landing.batch import Batch, Range
from dc_platform.landing.commits import Committer
from dc_platform.points import Point
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.records import (
    TOPIC_ID,
    block,
    gateway_line,
    rejects_block,
    strange,
)

INFO = TopicInfo("events", "cluster-1", TOPIC_ID, 2)
CLOCK = datetime(2024, 5, 17, 12, 0, 0, tzinfo=UTC)

# Every point that a landing of valid and rejected events passes, in their order.
POINTS = (
    Point.BEFORE_BRONZE,
    Point.BRONZE_WRITTEN,
    Point.AFTER_BRONZE,
    Point.QUARANTINE_WRITTEN,
    Point.AFTER_QUARANTINE,
    Point.SILVER_WRITTEN,
    Point.AFTER_SILVER,
)


class CrashError(BaseException):
    """What `kill -9` is to a process: nothing in it catches that."""


def crash_at(point: str) -> Callable[[str], None]:
    """A hook that ends the run at a point."""

    def reached(name: str) -> None:
        if name == point:
            raise CrashError(point)

    return reached


@cache
def decoder() -> Decoder:
    """The decoder of the tests' topic."""
    return Decoder(TOPIC_ID, AnySource())


def batch(records: Sequence[Record], ranges: dict[int, tuple[int, int]] | None = None) -> Batch:
    """A batch of records; it covers their offsets unless told otherwise."""
    covered = ranges or {
        partition: (
            min(r.offset for r in records if r.partition == partition),
            max(r.offset for r in records if r.partition == partition) + 1,
        )
        for partition in {r.partition for r in records}
    }
    judged = decoder().decode(records)
    return Batch(judged, {p: Range(*r) for p, r in covered.items()}, judged.nbytes)


def committer(
    lake: Lake,
    partitions: Iterable[int] = (0, 1),
    *,
    reached: Callable[[str], None] = lambda point: None,
    owner: str = "run",
    info: TopicInfo = INFO,
    clock: Callable[[], datetime] = lambda: CLOCK,
    begin: bool = True,
    memory_mb: int = 8,
) -> Committer:
    """A new run, standing where silver stands."""
    made = Committer(
        lake,
        info,
        list(partitions),
        identity_memory_mb=memory_mb,
        owner=owner,
        clock=clock,
        reached=reached,
    )
    if begin:
        made.begin(dict.fromkeys(partitions, 0))
    return made


def land_again(lake: Lake, records: Sequence[Record], **more: Any) -> Committer:
    """What a successor does: everything from where silver stands, as the reader would give it."""
    successor = committer(lake, **more)
    try:
        rest = [r for r in records if r.offset >= (successor.offsets[r.partition] or 0)]
        if rest:
            starts = successor.offsets
            ranges = {
                p: (starts[p] or 0, max(r.offset for r in rest if r.partition == p) + 1)
                for p in {r.partition for r in rest}
            }
            successor.land(batch(rest, ranges))
    finally:
        successor.close()
    return successor


def bronze(lake: Lake) -> list[tuple[Any, ...]]:
    """Addresses in bronze."""
    return read_table(lake, BRONZE_EVENTS, "kafka_partition, kafka_offset, kafka_index")


def silver(lake: Lake) -> list[tuple[Any, ...]]:
    """Identities in silver."""
    return read_table(lake, SILVER_EVENTS, "source_id, event_id")


def quarantine(lake: Lake) -> list[tuple[Any, ...]]:
    """Identities in quarantine."""
    return read_table(lake, SILVER_QUARANTINE, "source_id, quarantine_id")


def assert_landed_once(lake: Lake, records: Sequence[Record]) -> None:
    """Each address once in bronze, each identity once in silver and quarantine, and no other."""
    judged = decoder().decode(records).to_pylist()
    addresses = [(r["kafka_partition"], r["kafka_offset"], r["kafka_index"]) for r in judged]
    assert sorted(bronze(lake)) == sorted(addresses)
    valid = {(r["source_id"], r["event_id"]) for r in judged if r["verdict"] == "valid"}
    rejected = {(r["source_id"], r["quarantine_id"]) for r in judged if r["verdict"] != "valid"}
    assert Counter(silver(lake)) == Counter(valid)
    assert Counter(quarantine(lake)) == Counter(rejected)


# --- two runs ---


class Pause:
    """Stops a run at a point until it is let go."""

    def __init__(self, point: str) -> None:
        self._point = point
        self.there = threading.Event()
        self.go = threading.Event()

    def __call__(self, name: str) -> None:
        if name == self._point and not self.there.is_set():
            self.there.set()
            assert self.go.wait(60)


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Runs `work`; the list gets its result or its exception."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(work())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, result


# --- events ---


def event(number: int, timestamp: int | None = NOW) -> bytes:
    """An event as a client sends it."""
    time = "" if timestamp is None else f',"timestamp":{timestamp}'
    return (
        f'{{"eventId":"{some_uuid(number)}","eventType":"t"{time},"payload":{{"n":{number}}}}}'
    ).encode()


def lines(*numbers: int) -> list[bytes]:
    """Lines of a gateway's block."""
    return [gateway_line(event(number)) for number in numbers]


def reject(number: int) -> Reject:
    """A rejected event."""
    return Reject.of(number, Reason.MALFORMED_JSON, "no JSON", b"%d" % number)


# Two partitions; duplicates within a block, across blocks, partitions and scopes; rejects of a
# gateway, sent twice; strangers' rejects; a record without events.
RECORDS = [
    block(lines(1, 2, 2, 3), 0),
    strange(b"nonsense", 1),
    rejects_block([reject(1), reject(2)], 2),
    block(lines(3, 4), 3),
    strange(b"", 4),
    block(lines(4, 5, 1), 0, partition=1),
    rejects_block([reject(2), reject(3)], 1, partition=1),
    rejects_block([reject(1), reject(2)], 2, partition=1),
    block([gateway_line(event(6, None)), gateway_line(event(6, None))], 3, partition=1),
]
