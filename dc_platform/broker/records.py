"""Kafka records as the platform sees them. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, overload

import numpy as np
import numpy.typing as npt

from dc_platform.errors import TopicChangedError

I64 = npt.NDArray[np.int64]

KafkaClient = Literal["auto", "kafka-python", "librdkafka"]

# A block of the gateway has at most 1,000 events or 1 MiB, a rejected body up to 10 MiB.
MAX_RECORD_BYTES = 16 * 2**20
# Of every record that has none: shared, and not to be changed.
NO_HEADERS: dict[str, bytes] = {}


class Record(NamedTuple):
    """One Kafka record. `timestamp_ms` is the broker's append time."""

    partition: int
    offset: int
    timestamp_ms: int
    headers: dict[str, bytes]
    value: bytes


class Records(Sequence[Record]):
    """Records as columns, which all have one length.

    A million records a second are looked at again and again on their way: a tuple for each costs
    0.2 µs to make, and as much whenever one thing is asked of it that is not in the processor's cache.
    """

    def __init__(
        self,
        partitions: I64,
        offsets: I64,
        timestamps_ms: I64,
        headers: Sequence[dict[str, bytes]] | None,
        values: list[bytes],
    ) -> None:
        self.partitions = partitions
        self.offsets = offsets
        self.timestamps_ms = timestamps_ms
        # None when no record has any.
        self._headers = headers
        self.values = values

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """The same records; those that are columns already are not copied."""
        if isinstance(records, Records):
            return records
        size = len(records)
        headers = [r.headers for r in records]
        return cls(
            np.fromiter((r.partition for r in records), np.int64, size),
            np.fromiter((r.offset for r in records), np.int64, size),
            np.fromiter((r.timestamp_ms for r in records), np.int64, size),
            headers if any(headers) else None,
            [r.value for r in records],
        )

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """The records of all parts, in their order."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.of(())
        headers = None
        if any(part.have_headers for part in parts):
            headers = [h for part in parts for h in part.headers]
        return cls(
            np.concatenate([part.partitions for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.timestamps_ms for part in parts]),
            headers,
            list(itertools.chain.from_iterable(part.values for part in parts)),
        )

    @property
    def have_headers(self) -> bool:
        """Whether any of the records has headers."""
        return self._headers is not None

    @property
    def headers(self) -> Sequence[dict[str, bytes]]:
        """The headers of each record."""
        return [NO_HEADERS] * len(self.values) if self._headers is None else self._headers

    @cached_property
    def sizes(self) -> I64:
        """The bytes of each value."""
        return np.fromiter(map(len, self.values), np.int64, len(self.values))

    def with_times(self, timestamps_ms: I64) -> Records:
        """The same records with other times."""
        return Records(self.partitions, self.offsets, timestamps_ms, self._headers, self.values)

    def take(self, places: I64) -> Records:
        """The records at `places`."""
        listed = places.tolist()
        return Records(
            self.partitions[places],
            self.offsets[places],
            self.timestamps_ms[places],
            None if self._headers is None else [self._headers[i] for i in listed],
            [self.values[i] for i in listed],
        )

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> Record | Records:
        if isinstance(at, slice):
            return Records(
                self.partitions[at],
                self.offsets[at],
                self.timestamps_ms[at],
                None if self._headers is None else self._headers[at],
                self.values[at],
            )
        return Record(
            int(self.partitions[at]),
            int(self.offsets[at]),
            int(self.timestamps_ms[at]),
            NO_HEADERS if self._headers is None else self._headers[at],
            self.values[at],
        )

    def __iter__(self) -> Iterator[Record]:
        numbers = (c.tolist() for c in (self.partitions, self.offsets, self.timestamps_ms))
        return map(Record, *numbers, self.headers, self.values)


class Acknowledged(NamedTuple):
    """Where Kafka put a record."""

    partition: int
    offset: int


class TopicInfo(NamedTuple):
    """A topic and the cluster that it is in. A recreated topic has another `topic_id`."""

    name: str
    cluster_id: str
    topic_id: str
    partitions: int


class Poll(NamedTuple):
    """What one poll gave: the records, and per partition read the offset to go on from.

    `next_offsets` can lie beyond the last record + 1: transactions leave markers in the log.
    """

    records: Sequence[Record]
    next_offsets: dict[int, int]


class RecordReader(Protocol):
    """Reads assigned partitions of one topic from given offsets, in offset order.

    Records of open or aborted transactions are never seen. A topic that is no longer `info` is an
    error, never read on: offsets of another topic mean nothing. Not thread-safe.

    Every method but `positions` and `close` raises BrokerUnavailableError when Kafka does not
    answer, but a `poll` may be empty instead; the reader goes on when Kafka is back.
    """

    info: TopicInfo

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read from these offsets on, partition → next offset."""

    def poll(self, timeout_ms: int) -> Poll:
        """The records that arrive within `timeout_ms`; returns as soon as there are any.

        Raises OffsetsExpiredError when Kafka has not, or not yet, what is next, until it is
        assigned anew; TopicChangedError when the topic is another one or has more partitions.
        """

    def positions(self, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → the offset that the next poll reads from."""

    def end_offsets(self, timeout_ms: int | None = None) -> dict[int, int]:
        """Partition → the offset after the last committed record, as the broker says now.

        Raises TopicChangedError as `poll` does.
        """

    def beginning_offsets(self) -> dict[int, int]:
        """Partition → the oldest offset that Kafka still has."""

    def close(self) -> None:
        """Disconnect."""


def check_topic(info: TopicInfo, topic_id: str, partitions: int) -> None:
    """Raises TopicChangedError when that is not `info`, or `info` has more partitions now."""
    if topic_id != info.topic_id:
        raise TopicChangedError(
            f"topic {info.name!r} was deleted and created again: it was {info.topic_id}, now it is"
            f" {topic_id}"
        )
    if partitions > info.partitions:
        raise TopicChangedError(
            f"topic {info.name!r} has more than its {info.partitions} partitions"
        )
