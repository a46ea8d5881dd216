"""A Kafka in memory: partitions are lists, and a reader sees what a real one sees.

Records of transactions that were aborted and the markers of all are offsets without a record;
behind an open transaction nothing is visible; retention moves the beginning; a topic that was made
anew has another id and starts at 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dc_platform.broker.records import Poll, Record, TopicInfo
from dc_platform.errors import BrokerUnavailableError, OffsetsExpiredError, TopicChangedError


@dataclass
class Partition:
    """Offsets from `begin` on are there; a place without a visible record is None."""

    begin: int = 0
    log: list[Record | None] = field(default_factory=list)
    # The first offset of the open transaction: nothing from there on is visible.
    open_at: int | None = None

    @property
    def end(self) -> int:
        """After the last visible record or marker."""
        return len(self.log) if self.open_at is None else self.open_at


class SimBroker:
    """One topic of one cluster."""

    def __init__(self, info: TopicInfo) -> None:
        self.info = info
        self.partitions = [Partition() for _ in range(info.partitions)]
        self.away = False

    def append(self, partition: int, record: Record | None) -> int:
        """Take a record (None: a marker, or one of an aborted transaction); its offset."""
        log = self.partitions[partition].log
        offset = len(log)
        log.append(record and record._replace(partition=partition, offset=offset))
        return offset

    def begin_transaction(self, partition: int) -> None:
        """What is appended from now on waits for its end."""
        self.partitions[partition].open_at = len(self.partitions[partition].log)

    def end_transaction(self, partition: int, *, commit: bool) -> None:
        """Make it visible, or make it nothing; leaves a marker."""
        part = self.partitions[partition]
        assert part.open_at is not None
        if not commit:
            part.log[part.open_at :] = [None] * (len(part.log) - part.open_at)
        part.open_at = None
        part.log.append(None)

    def delete_before(self, partition: int, offset: int) -> None:
        """Retention."""
        part = self.partitions[partition]
        part.begin = max(part.begin, min(offset, part.end))

    def add_partition(self) -> None:
        """One more; readers that know the topic with fewer must look again."""
        self.partitions.append(Partition())
        self.info = self.info._replace(partitions=len(self.partitions))

    def recreate(self, topic_id: str) -> None:
        """Another topic of the same name."""
        self.info = self.info._replace(topic_id=topic_id)
        self.partitions = [Partition() for _ in self.partitions]

    def describe(self) -> TopicInfo:
        """The topic as it is now."""
        self.check()
        return self.info

    def check(self) -> None:
        """Raises when nobody answers."""
        if self.away:
            raise BrokerUnavailableError("the broker is away")


class SimReader:
    """What `broker.client.RecordReader` is to landing."""

    def __init__(self, broker: SimBroker, info: TopicInfo, *, max_records: int = 2_000) -> None:
        self.info = info
        self._broker = broker
        self._max = max_records
        self._at: dict[int, int] = {}
        broker.check()

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read from these offsets on."""
        self._at = dict(offsets)

    def poll(self, timeout_ms: int) -> Poll:
        """The next records, at most `max_records` of all partitions."""
        self._check()
        records: list[Record] = []
        ends: dict[int, int] = {}
        for number in self._at:
            part = self._broker.partitions[number]
            if not part.begin <= self._at[number] <= len(part.log):
                raise OffsetsExpiredError(f"partition {number} has no offset {self._at[number]}")
            while self._at[number] < part.end and len(records) < self._max:
                record = part.log[self._at[number]]
                self._at[number] += 1
                if record is not None:
                    records.append(record)
                    ends[number] = self._at[number]
        return Poll(records, ends)

    def positions(self, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → the offset that the next poll reads from."""
        self._check()
        return {number: self._at[number] for number in partitions}

    def end_offsets(self, timeout_ms: int | None = None) -> dict[int, int]:
        """Partition → after the last visible record."""
        self._check()
        return {n: self._broker.partitions[n].end for n in range(self.info.partitions)}

    def beginning_offsets(self) -> dict[int, int]:
        """Partition → the oldest offset that is there."""
        self._check()
        return {n: self._broker.partitions[n].begin for n in range(self.info.partitions)}

    def close(self) -> None:
        """Nothing to disconnect."""

    def _check(self) -> None:
        self._broker.check()
        now = self._broker.info
        if (now.topic_id, now.partitions) != (self.info.topic_id, self.info.partitions):
            raise TopicChangedError(f"it was {self.info}, now it is {now}")
