"""A batch lands in three tables; a crash anywhere loses and doubles nothing."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dc_platform.broker.records import Record
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TABLES
from dc_platform.lake.parquet import read_batches
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing import identities
from dc_platform.landing.batch import Batch, Gap
from dc_platform.landing.batch_commit import app_id
from dc_platform.landing.commits import Committer
from dc_platform.points import Point
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import (
    CLOCK,
    INFO,
    POINTS,
    RECORDS,
    CrashError,
    assert_landed_once,
    batch,
    bronze,
    committer,
    crash_at,
    event,
    land_again,
    lines,
    quarantine,
    reject,
    silver,
)
from dc_platform_tests.helpers.records import block, gateway_line, rejects_block


def test_a_batch_lands_in_three_tables(lake: Lake) -> None:
    writer = committer(lake)
    landed = writer.land(batch(RECORDS, {0: (0, 5), 1: (0, 4)}))
    assert_landed_once(lake, RECORDS)
    assert (landed.received, landed.landed, landed.duplicates, landed.rejected) == (18, 6, 5, 7)
    assert writer.offsets == {0: 5, 1: 4}
    assert landed.processed_at == CLOCK
    for spec in (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE):
        table = LakeTable(lake, spec)
        assert [table.txn(app_id(spec, INFO, p)) for p in (0, 1)] == [5, 4]
        assert len(table.snapshot().paths) == 1


def test_the_first_of_duplicates_is_the_one_that_lands(lake: Lake) -> None:
    committer(lake).land(batch(RECORDS))
    addresses = read_table(lake, SILVER_EVENTS, "kafka_partition, kafka_offset, kafka_index")
    assert addresses == [(0, 0, 0), (0, 0, 1), (0, 0, 3), (0, 3, 1), (1, 0, 1), (1, 3, 0)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_batches_of_any_size_land_the_same(lake: Lake, size: int) -> None:
    writer = committer(lake)
    for start in range(0, 5, size):
        part = [r for r in RECORDS if start <= r.offset < start + size]
        if part:
            writer.land(batch(part, dict.fromkeys((0, 1), (start, start + size))))
    assert_landed_once(lake, RECORDS)


def test_what_a_commit_covers_is_in_its_history(lake: Lake) -> None:
    writer = committer(lake, owner="run-7")
    whole = batch(RECORDS, {0: (0, 5), 1: (0, 4)})
    writer.land(Batch(whole.judged, whole.ranges, 0, gaps=[Gap(1, 0, 3)]))
    for spec in (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE):
        entry = LakeTable(lake, spec).history(1)[0]
        assert json.loads(entry["dcp.ranges"]) == {"0": [0, 5], "1": [0, 4]}
        assert json.loads(entry["dcp.gaps"]) == [[1, 0, 3]]
        assert entry["dcp.owner"] == "run-7"
        assert entry["dcp.topic"] == INFO.topic_id


def test_a_batch_without_events_moves_the_offsets(lake: Lake) -> None:
    writer = committer(lake)
    writer.land(batch([], {0: (0, 9)}))
    assert committer(lake, begin=False).offsets == {0: 9, 1: None}
    assert silver(lake) == bronze(lake) == []


# --- crashes ---


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_point_loses_and_doubles_nothing(lake: Lake, point: str) -> None:
    run = committer(lake, reached=crash_at(point))
    with pytest.raises(CrashError):
        run.land(batch(RECORDS))
    land_again(lake, RECORDS)
    assert_landed_once(lake, RECORDS)


@pytest.mark.parametrize("points", list(itertools.product(POINTS, repeat=2)))
def test_two_crashes_in_a_row(lake: Lake, points: tuple[str, str]) -> None:
    for point in points:
        # The second run has nothing to do at points that the first got past.
        with contextlib.suppress(CrashError):
            land_again(lake, RECORDS, reached=crash_at(point))
    land_again(lake, RECORDS)
    assert_landed_once(lake, RECORDS)


@pytest.mark.parametrize("point", POINTS)
def test_the_successor_may_cut_its_batches_elsewhere(lake: Lake, point: str) -> None:
    """A partition that bronze or quarantine is ahead in, beside one that it is not."""
    with pytest.raises(CrashError):
        committer(lake, (0,), reached=crash_at(point)).land(batch(RECORDS[:5]))
    writer = committer(lake)
    begun = writer.offsets[0] or 0
    for start in range(5):
        part = [r for r in RECORDS if r.offset == start and (r.partition == 1 or start >= begun)]
        ranges = {1: (start, start + 1)} if start < 4 else {}
        if start >= begun:
            ranges[0] = (start, start + 1)
        if ranges:
            writer.land(batch(part, ranges))
    assert_landed_once(lake, RECORDS)


def test_offsets_of_quarantine_never_go_back(lake: Lake) -> None:
    """Its commit covers all partitions of a batch, and may be ahead in one of them already."""
    with pytest.raises(CrashError):
        committer(lake, (0,), reached=crash_at(Point.AFTER_QUARANTINE)).land(batch(RECORDS[:5]))
    table = LakeTable(lake, SILVER_QUARANTINE)
    assert table.txn(app_id(SILVER_QUARANTINE, INFO, 0)) == 4 + 1
    committer(lake).land(batch([RECORDS[0], RECORDS[6]], {0: (0, 1), 1: (0, 2)}))
    table.refresh()
    assert table.txn(app_id(SILVER_QUARANTINE, INFO, 0)) == 5


@pytest.mark.parametrize("seed", range(12))
def test_many_crashes_and_many_batch_sizes(lake: Lake, seed: int) -> None:
    chance = random.Random(seed)
    records = [
        block([gateway_line(event(chance.randrange(30))) for _ in range(4)], o, partition=p)
        if chance.random() < 0.7
        else rejects_block([reject(chance.randrange(9))], o, partition=p)
        for p in (0, 1)
        for o in range(12)
    ]
    for _ in range(400):
        point = chance.choice([*POINTS, *[""] * 4])
        run = committer(lake, reached=crash_at(point))
        starts = {p: o or 0 for p, o in run.offsets.items()}
        ends = {p: min(12, start + chance.randrange(5)) for p, start in starts.items()}
        ranges = {p: (starts[p], ends[p]) for p in starts if ends[p] > starts[p]}
        part = [r for r in records if r.partition in ranges and starts[r.partition] <= r.offset]
        part = [r for r in part if r.offset < ends[r.partition]]
        try:
            if ranges:
                run.land(batch(part, ranges))
        except CrashError:
            pass
        finally:
            run.close()
        if all(start == 12 for start in starts.values()):
            break
    assert_landed_once(lake, records)


def test_a_crash_leaves_rows_that_no_table_shows(lake: Lake) -> None:
    with pytest.raises(CrashError):
        committer(lake, reached=crash_at(Point.AFTER_BRONZE)).land(batch(RECORDS))
    assert len(bronze(lake)) == 18
    assert silver(lake) == quarantine(lake) == []
    assert committer(lake, begin=False).offsets == {0: None, 1: None}


def test_a_run_begins_at_zero_when_bronze_is_ahead_of_a_silver_that_never_landed(
    lake: Lake,
) -> None:
    with pytest.raises(CrashError):
        committer(lake, (0,), reached=crash_at(Point.AFTER_BRONZE)).land(batch(RECORDS[:5]))
    run = committer(lake, begin=False)
    run.begin({0: 3, 1: 3})
    assert run.offsets == {0: 0, 1: 3}
    assert run.bronze_offsets == {0: 5, 1: None}


# --- shapes ---


def test_random_times_over_fifty_years_make_few_files(lake: Lake) -> None:
    """Blueprint decision 5: files per commit never depend on event times."""
    chance = random.Random(5)
    span = 50 * 365 * 24 * HOUR
    records = [
        block(
            [
                gateway_line(event(offset * 1000 + number, NOW - chance.randrange(span)))
                for number in range(1000)
            ],
            offset,
        )
        for offset in range(100)
    ]
    writer = committer(lake, (0,), memory_mb=64)
    landed = writer.land(batch(records))
    assert landed.landed == 100_000
    for spec in (BRONZE_EVENTS, SILVER_EVENTS):
        snapshot = LakeTable(lake, spec).snapshot()
        assert snapshot.rows == 100_000
        assert len(snapshot.paths) <= 2
    again = [Record(0, r.offset + 100, *r[2:]) for r in records[::10]]
    ranges = {0: (100, 191)}
    assert writer.land(batch(again, ranges)).landed == 0
    assert LakeTable(lake, SILVER_EVENTS).snapshot().rows == 100_000


def test_a_retry_is_found_years_and_days_later(lake: Lake) -> None:
    """With the client's time or without it, by a run that has nothing in memory."""
    first = [gateway_line(event(1)), gateway_line(event(2, None))]
    clock = CLOCK
    for offset in range(4):
        run = committer(lake, (0,), clock=lambda at=clock: at)  # type: ignore[misc]
        landed = run.land(batch([block(first, offset)]))
        assert landed.landed == (2 if offset == 0 else 0)
        clock += timedelta(days=400)
    assert len(silver(lake)) == 2
    assert len(bronze(lake)) == 8


def test_the_partition_is_the_day_of_landing_in_utc(lake: Lake) -> None:
    at = datetime(2024, 5, 17, 23, 59, 59, 999_999, tzinfo=UTC)
    run = committer(lake, (0,), clock=lambda: at)
    run.land(batch(RECORDS[:1]))
    days = read_table(lake, SILVER_EVENTS, "ingest_date::varchar, processed_at::varchar")
    assert set(days) == {("2024-05-17", "2024-05-17 23:59:59.999999+00")}


def test_memory_for_identities_may_be_far_too_small(lake: Lake) -> None:
    writer = committer(lake, (0,))
    writer._events._limit = writer._rejects._limit = 3
    records = [block(lines(*range(start, start + 12)), n) for n, start in enumerate((0, 6, 12, 0))]
    records.append(rejects_block([reject(n) for n in range(8)], 4))
    records.append(rejects_block([reject(n) for n in range(4, 12)], 5))
    for record in records:
        writer.land(batch([record]))
    assert_landed_once(lake, records)


def test_every_table_exists_from_the_start(lake: Lake) -> None:
    committer(lake)
    assert all(lake.exists(spec) for spec in TABLES)
    assert isinstance(committer(lake), Committer)


# --- identity files ---


@pytest.mark.parametrize("state", ["kept", "lost", "damaged"])
def test_the_next_run_knows_the_identities_whatever_became_of_their_files(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    committer(lake).land(batch(RECORDS))
    silver_before = silver(lake)
    directory = Path(lake.uri) / SILVER_EVENTS.path / "_identities"
    for path in directory.iterdir():
        if state == "lost":
            path.unlink()
        elif state == "damaged":
            path.write_bytes(path.read_bytes()[:-8] + b"8 bytes.")
    read: list[str] = []

    def reading(path: str, *args: object, **more: object) -> object:
        read.append(path)
        return read_batches(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(identities, "read_batches", reading)
    ends = {0: 5, 1: 4}
    again = [r._replace(offset=r.offset + ends[r.partition]) for r in RECORDS if r.headers]
    # Strangers' records without ids would be other events at other addresses.
    landed = committer(lake, begin=False).land(batch(again, {0: (5, 10), 1: (4, 8)}))
    assert landed.landed == 0
    assert landed.duplicates == 11
    assert silver(lake) == silver_before
    assert any("silver/events" in path for path in read) is (state != "kept")
