"""Silver of a day built anew: nothing changes without a reason, nothing that landed is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.parquet import write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing import batch_commit
from dc_platform.landing.backfill import Backfilled, backfill_silver
from dc_platform.points import Point
from dc_platform_tests.helpers.events import HOUR, NOW, some_uuid
from dc_platform_tests.helpers.lake import read_table, silver_table
from dc_platform_tests.helpers.landing import (
    CLOCK,
    CrashError,
    assert_landed_once,
    batch,
    committer,
    crash_at,
    land_again,
)
from dc_platform_tests.helpers.records import SOURCE, block, gateway_line
from dc_platform_tests.helpers.zoo import RECORDS

DAY = CLOCK.date()
NEXT = CLOCK + timedelta(days=1)


def backfill(lake: Lake, day: Any = DAY) -> Backfilled:
    return backfill_silver(lake, day)


def lines(*numbers: int, timestamp: int = NOW) -> list[bytes]:
    return [
        gateway_line(
            b'{"eventId":"%s","eventType":"t","timestamp":%d,"payload":{}}'
            % (some_uuid(number).encode(), timestamp)
        )
        for number in numbers
    ]


def content(lake: Lake) -> list[tuple[Any, ...]]:
    return read_table(lake, SILVER_EVENTS, "* exclude (processed_at)")


def damage(lake: Lake, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Silver of the day loses the rows that `keep` does not keep."""
    table = LakeTable(lake, SILVER_EVENTS)
    names = SILVER_EVENTS.file_schema.names
    rows = [
        dict(zip(names, row, strict=True))
        for row in read_table(lake, SILVER_EVENTS, ", ".join(names))
    ]
    kept = silver_table([row for row in rows if keep(row)])
    file = write_file(lake, SILVER_EVENTS, kept, partition=DAY)
    table.replace(DAY, [file], metadata={})


def test_an_unchanged_day_is_left_alone(lake: Lake) -> None:
    records = [r._replace(offset=n) for n, (r, _) in enumerate(RECORDS.values())]
    committer(lake).land(batch(records))
    version = LakeTable(lake, SILVER_EVENTS).version
    done = backfill(lake)
    assert (done.added, done.removed, done.version) == (0, 0, None)
    assert done.before == done.after > 0
    assert LakeTable(lake, SILVER_EVENTS).version == version


def test_lost_rows_come_back(lake: Lake) -> None:
    committer(lake).land(batch([block(lines(1, 2, 2, 3), 0), block(lines(3, 4), 1)]))
    before = content(lake)
    damage(lake, lambda row: row["kafka_index"] > 0)
    assert len(content(lake)) == 3
    done = backfill(lake)
    assert (done.before, done.after, done.added, done.removed) == (3, 4, 1, 0)
    assert content(lake) == before
    assert LakeTable(lake, SILVER_EVENTS).txn("silver.events/cluster-1/x/0") is None
    assert committer(lake, begin=False).offsets == {0: 2, 1: None}


def test_a_row_that_bronze_does_not_have_goes(lake: Lake) -> None:
    committer(lake).land(batch([block(lines(1), 0)]))
    names = SILVER_EVENTS.file_schema.names
    [row] = read_table(lake, SILVER_EVENTS, ", ".join(names))
    foreign = dict(zip(names, row, strict=True)) | {"kafka_offset": 99, "event_id": some_uuid(9)}
    file = write_file(lake, SILVER_EVENTS, silver_table([foreign]), partition=DAY)
    LakeTable(lake, SILVER_EVENTS).commit([file], txns={}, exact=True)
    assert backfill(lake).removed == 1
    assert read_table(lake, SILVER_EVENTS, "event_id") == [(some_uuid(1),)]


def test_the_address_that_silver_chose_stays(lake: Lake) -> None:
    """Two runs landed partition 1 first: its row is the one that is kept."""
    committer(lake, (1,)).land(batch([block(lines(1), 0, partition=1)]))
    committer(lake, (0,)).land(batch([block(lines(1, 2), 0)]))
    assert backfill(lake).version is None
    addresses = read_table(lake, SILVER_EVENTS, "kafka_partition, kafka_index")
    assert addresses == [(0, 1), (1, 0)]


def test_an_event_of_an_earlier_day_stays_with_it(lake: Lake) -> None:
    committer(lake).land(batch([block(lines(1), 0)]))
    committer(lake, clock=lambda: NEXT).land(batch([block(lines(1, 2), 1)]))
    for day in (DAY, NEXT.date()):
        assert backfill(lake, day).version is None
    assert len(content(lake)) == 2


@pytest.mark.parametrize("border", ["written", "lost"])
def test_what_landed_after_the_last_border_is_kept(
    lake: Lake, border: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can die between silver's commit and the border's."""
    writer = committer(lake)
    writer.land(batch([block(lines(1), 0)]))
    if border == "lost":

        def fail(*_: object) -> None:
            raise StoreUnavailableError("away")

        monkeypatch.setattr(batch_commit, "write_border", fail)
    writer.land(batch([block(lines(2), 1)]))
    done = backfill(lake)
    assert (done.removed, done.version) == (0, None)
    assert len(content(lake)) == 2


def test_a_run_that_crashed_before_midnight_and_was_completed_after_it(lake: Lake) -> None:
    """Bronze has the rows on one day, silver on the next; neither day's backfill loses them."""
    records = [block(lines(1, 2), 0), block(lines(3), 1)]
    with pytest.raises(CrashError):
        committer(lake, reached=crash_at(Point.AFTER_BRONZE)).land(batch(records))
    land_again(lake, records, clock=lambda: NEXT)
    committer(lake, clock=lambda: NEXT).land(batch([block(lines(3, 4), 2)]))
    before = content(lake)
    assert len(before) == 4
    for day in (DAY, NEXT.date()):
        done = backfill(lake, day)
        assert (done.added, done.removed, done.version) == (0, 0, None)
    assert content(lake) == before


def test_what_only_bronze_has_waits_for_its_landing(lake: Lake) -> None:
    writer = committer(lake)
    writer.land(batch([block(lines(1), 0)]))
    records = [block(lines(1), 0), block(lines(2), 1)]
    with pytest.raises(CrashError):
        committer(lake, reached=crash_at(Point.AFTER_BRONZE)).land(batch(records[1:]))
    assert backfill(lake).version is None
    land_again(lake, records)
    assert_landed_once(lake, records)


def test_an_id_that_was_used_for_two_times_keeps_both_rows(lake: Lake) -> None:
    """They did not meet when they landed; a fault of the sender that a check reports."""
    committer(lake).land(batch([block(lines(1), 0)]))
    committer(lake).land(batch([block(lines(1, timestamp=NOW - 9 * HOUR), 1)]))
    committer(lake, clock=lambda: NEXT).land(batch([block(lines(1, timestamp=NOW - HOUR * 99), 2)]))
    assert len(content(lake)) == 3
    for day in (DAY, NEXT.date()):
        assert backfill(lake, day).version is None


def test_landing_goes_on_during_a_backfill(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = committer(lake)
    writer.land(batch([block(lines(1, 2), 0)]))
    damage(lake, lambda row: row["kafka_index"] == 0)
    original = LakeTable.put_in_place
    raced: list[int] = []

    def replace(table: LakeTable, *args: Any, **more: Any) -> int:
        if not raced:
            raced.append(1)
            land_again(lake, [block(lines(2, 3), 1)])
        return original(table, *args, **more)

    monkeypatch.setattr(LakeTable, "put_in_place", replace)
    backfill(lake)
    found = read_table(lake, SILVER_EVENTS, "source_id, event_id")
    assert sorted(found) == sorted((SOURCE, some_uuid(n)) for n in (1, 2, 3))
    paths = LakeTable(lake, SILVER_EVENTS).snapshot().paths
    assert all(Path(path).exists() for path in paths)


def test_a_landing_that_was_under_way_sees_what_the_backfill_brought(lake: Lake) -> None:
    writer = committer(lake)
    writer.land(batch([block(lines(1, 2), 0)]))
    damage(lake, lambda row: row["kafka_index"] == 0)
    backfill(lake)
    writer.land(batch([block(lines(1, 2, 3), 1)]))
    assert sorted(read_table(lake, SILVER_EVENTS, "event_id")) == sorted(
        (some_uuid(n),) for n in (1, 2, 3)
    )


def test_a_day_without_rows(lake: Lake) -> None:
    committer(lake).land(batch([block(lines(1), 0)]))
    done = backfill(lake, NEXT.date())
    assert (done.before, done.after, done.version) == (0, 0, None)
