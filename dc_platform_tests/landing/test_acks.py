"""Landing acknowledgements says when it cannot tell what was acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dc_platform.broker.records import Poll, Record, TopicInfo
from dc_platform.contracts.acks import Ack, Count, ack_line
from dc_platform.contracts.ops_tables import ACKS
from dc_platform.lake.ledger import update_ledger
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.rewrite import merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing import acks
from dc_platform.landing.acks import AcksLanded, land_acks
from dc_platform.settings import Settings
from dc_platform_tests.helpers.lake import read_table

INFO = TopicInfo("events-raw-acks", "cluster", "topic", 1)
NOW = datetime.now(UTC)


class Topic:
    """The acks topic, in memory; it is its own reader."""

    def __init__(self) -> None:
        self.there = True
        self.begin = 0
        self.log: list[bytes] = []
        self._at = 0

    def ship(self, number: int) -> None:
        at = round(NOW.timestamp() * 1000)
        ack = Ack(f"g/b/{number}", "t", "t", 0, number, "valid", at, [Count("s", 1, 1)])
        self.log.append(ack_line(ack))

    def assign(self, offsets: Mapping[int, int]) -> None:
        self._at = offsets[0]

    def poll(self, timeout_ms: int) -> Poll:
        found = [Record(0, n, 0, {}, self.log[n]) for n in range(self._at, len(self.log))]
        self._at = len(self.log)
        return Poll(found, {0: self._at})

    def positions(self, partitions: Any) -> dict[int, int]:
        return {0: self._at}

    def end_offsets(self) -> dict[int, int]:
        return {0: len(self.log)}

    def beginning_offsets(self) -> dict[int, int]:
        return {0: self.begin}

    def close(self) -> None:
        """Nothing to disconnect."""


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    made = Topic()
    monkeypatch.setattr(acks, "describe_topic", lambda *a: INFO if made.there else None)
    monkeypatch.setattr(acks, "reader_for", lambda *a: made)
    return made


def blocks(lake: Lake) -> list[str]:
    return sorted(row[0] for row in read_table(lake, ACKS, "block_id"))


def land(lake: Lake, *, days: float = 0) -> AcksLanded:
    return land_acks(Settings(), lake, clock=lambda: datetime.now(UTC) + timedelta(days=days))


def test_a_topic_that_is_gone_is_a_doubt_when_there_was_one(lake: Lake, topic: Topic) -> None:
    topic.there = False
    assert land(lake) == AcksLanded()
    topic.there = True
    topic.ship(1)
    assert land(lake) == AcksLanded(1)
    topic.there = False
    (doubt,) = land(lake).doubts
    assert "the topic events-raw-acks is gone" in doubt


def test_lines_that_kafka_deleted_are_a_doubt_for_a_day(lake: Lake, topic: Topic) -> None:
    for number in range(3):
        topic.ship(number)
        if number == 0:
            assert land(lake) == AcksLanded(1)
    topic.begin = 2
    for _ in range(2):
        (doubt,) = land(lake).doubts
        assert "lines 1 to 1 of the acks topic" in doubt
    assert blocks(lake) == ["g/b/0", "g/b/2"]
    assert land(lake, days=1.1) == AcksLanded()


def test_lines_of_the_time_before_the_lake_are_none(lake: Lake, topic: Topic) -> None:
    for number in range(3):
        topic.ship(number)
    topic.begin = 2
    assert land(lake) == AcksLanded(1)
    # Nor is what was read before it was deleted.
    topic.begin = 3
    assert land(lake) == AcksLanded()


def files(lake: Lake) -> list[str]:
    return sorted(LakeTable(lake, ACKS).snapshot().actions["path"].to_pylist())


def test_the_files_of_a_closed_day_become_one(lake: Lake, topic: Topic) -> None:
    for number in range(3):
        topic.ship(number)
        land(lake)
    update_ledger(lake)
    assert len(files(lake)) == 3
    topic.ship(3)
    assert land(lake, days=1) == AcksLanded(1)
    merged = files(lake)
    assert len(merged) == 2
    assert blocks(lake) == [f"g/b/{number}" for number in range(4)]
    # It is no news, is not merged again, and what comes again is known from it.
    assert update_ledger(lake).hours == 1
    topic.log.append(topic.log[0])
    assert land(lake, days=1) == AcksLanded()
    assert files(lake) == merged
    assert update_ledger(lake).rows == 1


def test_a_landing_beside_a_merge_loses_nothing(
    lake: Lake, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        topic.ship(number)
        land(lake)

    def meanwhile(*args: Any, **more: Any) -> DataFile:
        monkeypatch.setattr(acks, "merge_files", merge_files)
        topic.ship(2)
        assert land(lake).rows == 1
        return merge_files(*args, **more)

    monkeypatch.setattr(acks, "merge_files", meanwhile)
    assert land(lake, days=1) == AcksLanded()
    assert len(files(lake)) == 3
    assert land(lake, days=1) == AcksLanded()
    assert len(files(lake)) == 1
    assert blocks(lake) == [f"g/b/{number}" for number in range(3)]
