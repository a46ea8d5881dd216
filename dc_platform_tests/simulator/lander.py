"""A landing process of the world: what `landing.lander.Lander` does, without its threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any

import pyarrow as pa

from dc_platform.broker.records import Record, TopicInfo
from dc_platform.contracts.tables import JUDGED
from dc_platform.decode.columns import AnySource
from dc_platform.decode.decoder import Decoder, concat
from dc_platform.errors import RetriableError
from dc_platform.landing.batch import Batch
from dc_platform.landing.commits import Committer
from dc_platform.landing.pacing import Pacing
from dc_platform.landing.reader import BatchReader
from dc_platform.landing.rebuild import replay_bronze
from dc_platform.points import Point
from dc_platform_tests.simulator.broker import SimBroker, SimReader
from dc_platform_tests.simulator.store import SimLake

_PATIENCE = 4
_TURNS = 60


class Inline(Executor):
    """Does at once what is submitted, in the thread that submits it."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        """A future that is done."""
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **more))
        except Exception as error:
            done.set_exception(error)
        return done


class _Instant:
    """An event that is waited for without waiting."""

    def is_set(self) -> bool:
        return False

    def set(self) -> None:
        pass

    def wait(self, seconds: float) -> bool:
        return False


class SteppedReader(BatchReader):
    """The reader without its thread: `next` takes turns until there is a batch, or nothing to read."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._stop = _Instant()  # type: ignore[assignment]

    def next(self, timeout: float = 0.0) -> Batch | None:
        """The next batch, or None after so many turns without one."""
        for _ in range(_TURNS):
            if not self._batches.empty():
                break
            before = dict(self._open.positions)
            self.turn()
            if before == self._open.positions and self._expired is None and self._batches.empty():
                break
        return None if self._batches.empty() else super().next(0.001)

    def ahead(self) -> None:
        """Go on reading while the committer has its batch."""
        if self._batches.empty():
            self.turn()


class CachedDecoder:
    """The platform's decoder, asked once for each record: a verdict depends on the record alone.

    To decode a few records costs as much as to decode a few hundred, so all that the topic has are
    judged with the first that is asked for.
    """

    def __init__(self, broker: SimBroker) -> None:
        self._partitions = broker.partitions
        self._decoder = _decoder(broker.info.topic_id)
        self._known: dict[tuple[int, int], pa.Table] = {}

    def decode(self, records: Sequence[Record]) -> pa.Table:
        """The judged table of the records."""
        if any((r.partition, r.offset) not in self._known for r in records):
            self._decode_all()
        found = [self._known[(r.partition, r.offset)] for r in sorted(records, key=_address)]
        tables = [table for table in found if len(table)]
        return concat(tables) if tables else JUDGED.empty_table()

    def _decode_all(self) -> None:
        missing = [
            r
            for part in self._partitions
            for r in part.log
            if r is not None and _address(r) not in self._known
        ]
        judged = self._decoder.decode(missing)
        starts: dict[tuple[int, int], list[int]] = {}
        columns = (judged[name].to_pylist() for name in ("kafka_partition", "kafka_offset"))
        for row, address in enumerate(zip(*columns, strict=True)):
            starts.setdefault(address, []).append(row)
        for record in missing:
            rows = starts.get(_address(record), [])
            self._known[_address(record)] = judged.slice(rows[0] if rows else 0, len(rows))


@cache
def _decoder(topic_id: str) -> Decoder:
    """Each has a DuckDB of its own, which takes 15 ms to begin."""
    return Decoder(topic_id, AnySource())


def _address(record: Record) -> tuple[int, int]:
    return record.partition, record.offset


@dataclass(frozen=True)
class Slot:
    """Which partitions a lander has: those whose number modulo `of` is `number`."""

    number: int
    of: int

    def partitions(self, info: TopicInfo) -> list[int]:
        """Of this topic."""
        return [p for p in range(info.partitions) if p % self.of == self.number]


class SimLander:
    """One process, from its start to its end."""

    def __init__(
        self,
        lake: SimLake,
        broker: SimBroker,
        decoder: CachedDecoder,
        slot: Slot,
        chance: Random,
        *,
        name: str,
        clock_ms: Callable[[], int],
        reached: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._chance = chance
        self._broker = broker
        self._decoder = decoder
        self._reached = reached
        self._stopping = stopping
        self._info = broker.describe()
        self._partitions = slot.partitions(self._info)
        self._lake = lake
        self._committer = Committer(
            lake,
            self._info,
            self._partitions,
            identity_memory_mb=8,
            owner=name,
            clock=lambda: datetime.fromtimestamp(clock_ms() / 1000, UTC),
            reached=reached,
            threads=Inline(),
        )
        self._committer.read_ahead()

    def run(self) -> None:
        """Land until told to stop, and then until all is landed."""
        self._reached("read ahead")
        self._committer.refresh()
        begins = self._own(self._connect().beginning_offsets())
        self._committer.begin(begins)
        self._reached("prepared")
        batches = replay_bronze(self._lake, self._info, self._committer, kafka_begins=begins)
        for batch in batches:
            self._reached(Point.BRONZE_READ)
            self._land(batch)
        offsets = {p: o for p, o in self._committer.offsets.items() if o is not None}
        rows = self._chance.choice([1, 4, 12, 1000])
        pacing = Pacing(1e9, float("inf"), rows=rows, draining=True)
        reader = SteppedReader(self._connect, self._decoder, offsets, pacing, reached=self._reached)
        while True:
            batch = reader.next()
            if batch is None:
                if self._stopping() and self._caught_up():
                    return
                self._reached("idle")
                continue
            if self._chance.random() < 0.3:
                reader.ahead()
            self._land(batch)

    def _caught_up(self) -> bool:
        ends = self._own(self._connect().end_offsets())
        return all((self._committer.offsets[p] or 0) >= end for p, end in ends.items())

    def _own(self, offsets: Mapping[int, int]) -> dict[int, int]:
        return {p: offsets[p] for p in self._partitions}

    def _connect(self) -> Any:
        return SimReader(self._broker, self._info, max_records=self._chance.randint(1, 6))

    def _land(self, batch: Batch) -> None:
        for attempt in range(_PATIENCE):
            try:
                self._committer.land(batch)
            except RetriableError:
                if attempt == _PATIENCE - 1:
                    raise
                self._reached("waiting for the store")
            else:
                return
