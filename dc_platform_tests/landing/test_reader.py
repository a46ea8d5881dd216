"""From polls to batches: every offset in one batch, in order, whatever the broker does meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from dc_platform.broker.records import Poll, Record
from dc_platform.decode.decoder import Decoder
from dc_platform.errors import BrokerUnavailableError, FatalError, OffsetsExpiredError
from dc_platform.landing import reader as reader_module
from dc_platform.landing.batch import Batch, Gap, Range
from dc_platform.landing.pacing import Pacing
from dc_platform.landing.reader import BatchReader
from dc_platform_tests.helpers.landing import decoder
from dc_platform_tests.helpers.records import block, strange
from dc_platform_tests.helpers.zoo import LINE

Step = Poll | Exception


class Broker:
    """Gives scripted polls, then nothing; knows where it was told to read."""

    def __init__(self, steps: Sequence[Step], begins: dict[int, int] | None = None) -> None:
        self.steps = list(steps)
        self.begins = begins or {}
        self.assigned: list[dict[int, int]] = []
        self.connections = 0
        self.closed = 0
        self.at: dict[int, int] = {}
        self.idle = threading.Event()

    def connect(self) -> Any:
        self.connections += 1
        return self

    def assign(self, offsets: dict[int, int]) -> None:
        self.assigned.append(dict(offsets))
        self.at = dict(offsets)

    def poll(self, _: int) -> Poll:
        if not self.steps:
            self.idle.set()
            return Poll([], {})
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        self.at.update(step.next_offsets)
        return step

    def positions(self, partitions: Any) -> dict[int, int]:
        return {partition: self.at[partition] for partition in partitions}

    def beginning_offsets(self) -> dict[int, int]:
        begins = self.begins
        if isinstance(begins, Exception):
            self.begins = {}
            raise begins
        return begins

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_RETRY_SECONDS", 0.01)


def by_size(**bounds: int) -> Pacing:
    """Batches end by their size, or with what the topic has; the small first ones are behind it."""
    pacing = Pacing(1e9, 1e9, draining=True, **bounds)
    for _ in range(2):
        pacing.closed()
    return pacing


@contextmanager
def reading(
    broker: Broker,
    starts: dict[int, int],
    pacing: Pacing | None = None,
    made: Callable[[], Decoder] = decoder,
) -> Iterator[BatchReader]:
    found = BatchReader(broker.connect, made(), starts, pacing or by_size())
    found.start()
    try:
        yield found
    finally:
        found.stop()


def take(found: BatchReader) -> Batch:
    batch = found.next(timeout=30)
    assert batch is not None
    return batch


def polled(*records: Record, beyond: int = 0) -> Poll:
    """A poll of records; `beyond` offsets after them hold no records (transaction markers)."""
    ends: dict[int, int] = {}
    for record in records:
        ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1 + beyond)
    return Poll(list(records), ends)


def offsets(batch: Batch) -> list[tuple[int, int]]:
    columns = ("kafka_partition", "kafka_offset")
    pairs = zip(*(batch.judged[name].to_pylist() for name in columns), strict=True)
    return list(dict.fromkeys(pairs))


def test_an_idle_topic_lands_at_once() -> None:
    broker = Broker([polled(block([LINE], 5), block([LINE], 2, partition=1))])
    with reading(broker, {0: 5, 1: 2}, by_size()) as found:
        batch = take(found)
        assert batch.ranges == {0: Range(5, 6), 1: Range(2, 3)}
        assert offsets(batch) == [(0, 5), (1, 2)]
        assert broker.assigned == [{0: 5, 1: 2}]
        assert found.next(timeout=0.01) is None
    assert broker.closed == 1


def test_batches_follow_each_other_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_GATHER_RECORDS", 1)
    steps = [polled(*(block([LINE] * 3, o) for o in range(s, s + 2))) for s in range(0, 20, 2)]
    broker = Broker(steps)
    with reading(broker, {0: 0, 1: 9}, by_size(rows=7)) as found:
        seen: list[tuple[int, int]] = []
        at = 0
        while at < 20:
            batch = take(found)
            assert list(batch.ranges) == [0]
            assert batch.ranges[0].start == at
            at = batch.ranges[0].end
            seen += offsets(batch)
            assert len(batch.judged) < 7 + 6
    assert seen == [(0, o) for o in range(20)]


def test_a_batch_is_closed_when_it_has_bytes_enough() -> None:
    large = [strange(b"x" * 600, o) for o in range(6)]
    broker = Broker([polled(record) for record in large])
    with reading(broker, {0: 0}, by_size(bytes_=1000)) as found:
        first = take(found)
    assert 1000 <= first.bytes <= 1800


def test_records_of_many_small_polls_are_decoded_together() -> None:
    calls: list[int] = []

    class Counting(Decoder):
        def decode(self, records: Sequence[Record]) -> Any:
            calls.append(len(records))
            return super().decode(records)

    broker = Broker([polled(block([LINE], o)) for o in range(50)])
    made = Counting("7f6c2f6e-6b0e-4a9b-8c64-3f1f3a1f6d10", decoder()._sources)
    with reading(broker, {0: 0}, by_size(), lambda: made) as found:
        assert offsets(take(found)) == [(0, o) for o in range(50)]
    assert [n for n in calls if n] == [50]


def test_markers_of_transactions_move_the_offsets() -> None:
    broker = Broker([polled(block([LINE], 0), beyond=1), Poll([], {0: 9})])
    with reading(broker, {0: 0}) as found:
        ends = [take(found).ranges[0]]
        if ends[0].end < 9:
            ends.append(take(found).ranges[0])
    assert ends[0].start == 0
    assert ends[-1].end == 9


def test_a_broker_that_goes_away_is_waited_for() -> None:
    away = BrokerUnavailableError("away")
    broker = Broker([polled(block([LINE], 0)), away, away, polled(block([LINE], 1))])
    with reading(broker, {0: 0}, by_size()) as found:
        seen = offsets(take(found))
        if len(seen) == 1:
            seen += offsets(take(found))
    assert seen == [(0, 0), (0, 1)]
    assert broker.connections == 3
    # What was read and not yet handed over is not read again.
    assert broker.assigned[-1] == {0: 1}


@pytest.mark.parametrize("away", [False, True])
def test_what_kafka_deleted_is_a_gap_on_record(away: bool) -> None:
    """Also when the broker goes away just when it is asked what it still has."""
    broker = Broker(
        [polled(block([LINE], 0)), OffsetsExpiredError("gone"), polled(block([LINE], 40))],
        {0: 40, 1: 3},
    )
    if away:
        begins, broker.begins = broker.begins, BrokerUnavailableError("away")  # type: ignore[assignment]
        original = broker.connect

        def connect() -> Any:
            if broker.connections:
                broker.begins = begins
            return original()

        broker.connect = connect  # type: ignore[method-assign]
    with reading(broker, {0: 0, 1: 3}, by_size()) as found:
        batches = [take(found)]
        while batches[-1].ranges[0].end < 41:
            batches.append(take(found))
    assert [gap for batch in batches for gap in batch.gaps] == [Gap(0, 1, 40)]
    assert [o for batch in batches for o in offsets(batch)] == [(0, 0), (0, 40)]
    assert batches[0].ranges[0].start == 0
    assert {0: 40, 1: 3} in broker.assigned


def test_a_log_that_ends_before_what_has_landed_is_an_error_not_a_loop() -> None:
    """Nothing was deleted at the front: Kafka's log was cut, and offsets would be used again."""
    broker = Broker([OffsetsExpiredError("out of range")] * 1000, {0: 0})
    with reading(broker, {0: 700}) as found, pytest.raises(FatalError, match="its log was cut"):
        found.next(timeout=30)
    assert len(broker.steps) > 900


def test_an_unexpected_error_comes_out_of_next() -> None:
    broker = Broker([polled(block([LINE], 0)), RuntimeError("a bug")])
    quiet = by_size()
    with reading(broker, {0: 0}, quiet) as found, pytest.raises(RuntimeError, match="a bug"):
        found.next(timeout=30)


def test_reading_waits_while_nobody_takes() -> None:
    """Back-pressure: one batch is waiting, one is open and full, the rest stays in Kafka."""
    broker = Broker([polled(block([LINE] * 5, o)) for o in range(1000)])
    with reading(broker, {0: 0}, by_size(rows=5)) as found:
        first = take(found)
        second = take(found)
        assert len(broker.steps) > 900
    assert first.ranges[0].end == second.ranges[0].start


def test_stopping_does_not_wait_for_anybody() -> None:
    broker = Broker([polled(block([LINE] * 5, o)) for o in range(100)])
    with reading(broker, {0: 0}, by_size(rows=5)) as found:
        take(found)
    assert not found._thread.is_alive()
    assert broker.closed == 1


def test_the_oldest_record_of_a_batch_is_remembered() -> None:
    records = [block([LINE], 0, timestamp_ms=900), block([LINE], 1, timestamp_ms=700)]
    with reading(Broker([polled(*records)]), {0: 0}) as found:
        assert take(found).oldest_ms == 700


def test_what_was_polled_is_counted_before_it_is_decoded() -> None:
    """Also of records that the decoder loses."""

    class Losing(Decoder):
        def decode(self, records: Sequence[Record]) -> Any:
            return super().decode([r for r in records if r.offset != 1])

    records = [block([LINE] * 3, 0), block([LINE] * 2, 1), strange(b"x", 4, partition=1)]
    made = Losing("7f6c2f6e-6b0e-4a9b-8c64-3f1f3a1f6d10", decoder()._sources)
    broker = Broker([polled(*records)])
    with reading(broker, {0: 0, 1: 4, 2: 9}, by_size(), lambda: made) as found:
        batch = take(found)
    assert batch.counted == {0: (0, 5), 1: (1, 0)}
    assert len(batch.judged) == 4
