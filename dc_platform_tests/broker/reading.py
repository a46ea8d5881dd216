"""Reads with a reader, and holds what every poll has to hold."""

from __future__ import annotations

from collections.abc import Mapping

from dc_platform.broker.records import Record, RecordReader
from dc_platform_tests.stack.harness import wait_for

Position = tuple[int, int]


def read_to(reader: RecordReader, goal: Mapping[int, int]) -> list[Record]:
    """Poll until the positions are at `goal`, which lies beyond all records; by partition."""
    found: list[Record] = []
    at = reader.positions(goal)

    def there() -> bool:
        poll = reader.poll(50)
        for record in poll.records:
            assert record.offset >= at[record.partition]
            at[record.partition] = record.offset + 1
        for partition, position in poll.next_offsets.items():
            assert position >= at[partition]
            at[partition] = position
        assert {record.partition for record in poll.records} <= set(poll.next_offsets)
        found.extend(poll.records)
        now = reader.positions(goal)
        assert all(now[partition] >= position for partition, position in at.items())
        return now == goal

    wait_for(there)
    return sorted(found, key=lambda record: record[:2])


def read_all(reader: RecordReader, starts: Mapping[int, int]) -> list[Record]:
    """All records from `starts` on, up to the ends as the broker says them."""
    reader.assign(starts)
    ends = reader.end_offsets()
    return read_to(reader, {partition: ends[partition] for partition in starts})


def values(records: list[Record]) -> list[bytes]:
    return [record.value for record in records]
