"""A tail over a topic of its own on a real broker, what lands from it, and what queries see."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

from dc_platform.broker.client import RecordWriter, ensure_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import Record, TopicInfo
from dc_platform.landing.batch import Batch, Range
from dc_platform.landing.commits import Committer
from dc_platform.landing.lander import Ended, Lander, decoder_for
from dc_platform.serving.tail import Tail
from dc_platform.serving.view import View
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.records import block, gateway_line
from dc_platform_tests.helpers.serving import Served, table_of
from dc_platform_tests.stack.harness import wait_for

Look = TypeVar("Look")
COUNT = "select count(*), count(distinct (source_id, event_id)) from events"


class Seen(NamedTuple):
    """What one poll saw."""

    count: int
    distinct: int
    complete: bool
    version: int
    tail_rows: int


def line(number: int, size: int = 0) -> bytes:
    """An event as a gateway writes it; `size` bytes of it do not compress."""
    noise = base64.b64encode(Random(number).randbytes(size * 3 // 4))
    return gateway_line(
        b'{"eventId":"%s","eventType":"t","timestamp":%d,"payload":{"n":%d,"x":"%s"}}'
        % (some_uuid(number).encode(), NOW, number, noise)
    )


class Tailed(Served):
    """A topic, a lake, a tail that can be started again, and an engine over its views."""

    def __init__(self, directory: Path, bootstrap: str, **settings: Any) -> None:
        super().__init__(
            directory,
            kafka_bootstrap=bootstrap,
            topic=f"events-{uuid.uuid4().hex[:8]}",
            topic_partitions=2,
            unknown_sources="accept",
            identity_memory_mb=64,
        )
        # Smaller than anyone may have them.
        self.settings = self.settings.model_copy(update=settings)
        self.info = self.create_topic()
        self.writer = RecordWriter(bootstrap, self.info.name)
        self.tail = Tail(self.settings, None)

    def create_topic(self) -> TopicInfo:
        """The topic, created when missing."""
        return ensure_topic(
            self.settings.kafka_bootstrap, self.settings.topic, partitions=2, replication=1
        )

    def close(self) -> None:
        """Stop following and writing."""
        self.tail.stop()
        self.writer.close()

    def start(self) -> None:
        """Start the tail and wait until it holds all that Kafka has."""
        self.tail.start()
        wait_for(lambda: self.tail.view is not None and self.tail.view.complete)

    # --- Kafka ---

    def write(self, *numbers: int, partition: int = 0, size: int = 0) -> None:
        """Write one block of events; returns when Kafka has it."""
        made = block([line(number, size) for number in numbers], 0)
        self.writer.write(made.value, partition=partition, headers=list(made.headers.items()))
        self.writer.flush()

    def ends(self) -> dict[int, int]:
        """Partition → end of the log."""
        reader = reader_for(self.settings.kafka_bootstrap, self.info)
        try:
            return reader.end_offsets()
        finally:
            reader.close()

    # --- landing ---

    def lander(self) -> Lander:
        """A new run over all partitions."""
        return Lander(self.settings, sources=None, owner="test")

    def land(self) -> None:
        """Land all that Kafka has; returns when the tail has followed."""
        lander = self.lander()
        assert lander.run(threading.Event(), until_caught_up=True) is Ended.CAUGHT_UP
        self.follow(lander.totals.silver_version)

    def land_partition(self, partition: int, end: int | None = None) -> None:
        """Land one partition, up to `end` or all of it, and nothing of the other; returns when the
        tail has followed.
        """
        run = Committer(self.lake, self.info, [partition], identity_memory_mb=64, owner="test")
        run.begin({partition: 0})
        start, end = run.offsets[partition] or 0, end or self.ends()[partition]
        judged = decoder_for(self.settings, self.info, None).decode(
            self._records(partition, start, end)
        )
        landed = run.land(Batch(judged, {partition: Range(start, end)}, judged.nbytes))
        run.close()
        self.follow(landed.silver_version)

    def _records(self, partition: int, start: int, end: int) -> list[Record]:
        reader = reader_for(self.settings.kafka_bootstrap, self.info)
        reader.assign({partition: start})
        found: list[Record] = []
        wait_for(lambda: found.extend(reader.poll(500).records) or len(found) >= end - start)
        reader.close()
        return found[: end - start]

    def follow(self, version: int) -> None:
        """Wait until the tail's view is at this version of silver."""
        wait_for(lambda: self.tail.view is not None and self.tail.view.silver.version >= version)

    # --- queries ---

    def seen(self, sql: str = COUNT, view: View | None = None) -> Seen:
        """What a query sees in the newest view, or in a given one."""
        at = view or self.tail.view
        assert at is not None
        found = table_of(self.engine.run_sql(sql, at, tenant_id="default"))
        count, distinct = (column[0].as_py() for column in found)
        return Seen(count, distinct, at.complete, at.silver.version, at.tail_rows)

    def wait_count(self, count: int) -> None:
        """Wait until a query counts so many events."""
        wait_for(lambda: self.seen().count == count)


@contextmanager
def polled(tailed: Tailed, sql: str = COUNT, every: float = 0.005) -> Iterator[list[Seen]]:
    """Polls every 5 ms, or as often as is said, for the length of the block; gives what was seen."""
    with repeated(lambda: tailed.seen(sql), every) as seen:
        yield seen


@contextmanager
def repeated(look: Callable[[], Look], every: float = 0.005) -> Iterator[list[Look]]:
    """Looks all the time, for the length of the block; gives what was seen."""
    stop = threading.Event()
    seen: list[Look] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            while not stop.wait(every):
                seen.append(look())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(60)
        assert not failed, failed
    assert seen


def counts_since_first(seen: Iterable[Seen]) -> set[int]:
    """The counts from the first poll on that saw anything."""
    counts = [one.count for one in seen]
    first = next(i for i, count in enumerate(counts) if count)
    return set(counts[first:])
