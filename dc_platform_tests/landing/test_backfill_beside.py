"""A backfill comes to its end while landing goes on, and takes nothing from what lands."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from dc_platform.broker.records import Record
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake.parquet import write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import RETENTION, LakeTable
from dc_platform.landing import backfill as backfill_module
from dc_platform.landing import backfill_rows
from dc_platform.landing.backfill import backfill_silver
from dc_platform.points import Point
from dc_platform_tests.helpers.compaction import compact_all
from dc_platform_tests.helpers.lake import read_table, silver_table
from dc_platform_tests.helpers.landing import (
    CLOCK,
    assert_landed_once,
    batch,
    committer,
    lines,
)
from dc_platform_tests.helpers.records import block
from dc_platform_tests.simulator.audit import own_audit

DAY = CLOCK.date()


def lose(lake: Lake, offset: int) -> None:
    """Silver of the day loses the events of a record."""
    names = SILVER_EVENTS.file_schema.names
    rows = [
        dict(zip(names, row, strict=True))
        for row in read_table(lake, SILVER_EVENTS, ", ".join(names))
    ]
    kept = silver_table([row for row in rows if row["kafka_offset"] != offset])
    file = write_file(lake, SILVER_EVENTS, kept, partition=DAY)
    LakeTable(lake, SILVER_EVENTS).replace(DAY, [file], metadata={})


def configured(lake: Lake) -> None:
    """As compaction does when it begins: a commit that it need not make later."""
    LakeTable(lake, SILVER_EVENTS).configure({RETENTION: "interval 3600 seconds"})


def at_written(work: Callable[[], Any]) -> Callable[[str], None]:
    """A hook that does something, once, when the day's files are written."""
    left = [work]

    def reached(name: str) -> None:
        if name == Point.BACKFILL_WRITTEN and left:
            left.pop()()

    return reached


@contextmanager
def counted_compares(patch: pytest.MonkeyPatch, *, seconds: float = 0) -> Iterator[list[int]]:
    """Each compare takes longer; gives one item for each."""
    compares: list[int] = []
    original = backfill_module._compare

    def compare(*args: Any) -> Any:
        found = original(*args)
        compares.append(1)
        time.sleep(seconds)
        return found

    with patch.context() as patched:
        patched.setattr(backfill_module, "_compare", compare)
        yield compares


def land_steadily(lake: Lake, records: list[Record], stop: threading.Event) -> None:
    """Every 50 ms a record, by turns into the day and into the two after it. Some events were there
    before; files are merged again and again.
    """
    days = [CLOCK]
    writer = committer(lake, (0,), begin=False, clock=lambda: days[0])
    offset = writer.offsets[0] or 0
    while not stop.is_set():
        days[0] = CLOCK + timedelta(days=offset % 3)
        records.append(block(lines(offset * 2, offset * 2 + 1, offset % 2), offset))
        writer.land(batch(records[-1:]))
        if offset % 7 == 0:
            compact_all(lake, writer)
        offset += 1
        stop.wait(0.05)
    writer.close()


def test_a_backfill_ends_while_landing_goes_on(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [block(lines(n * 2, n * 2 + 1), n) for n in range(3)]
    committer(lake, (0,)).land(batch(records))
    lose(lake, 1)
    configured(lake)
    stop = threading.Event()
    landing = threading.Thread(target=land_steadily, args=(lake, records, stop))
    with counted_compares(monkeypatch, seconds=1.5) as compares:
        landing.start()
        try:
            done = backfill_silver(lake, DAY)
        finally:
            stop.set()
            landing.join()
    assert (done.added, done.removed) == (2, 0)
    assert len(compares) == 1
    assert len(records) > 8
    assert_landed_once(lake, records)
    assert own_audit(lake) == []
    assert backfill_silver(lake, DAY).version is None


def test_what_lands_with_an_identity_that_the_backfill_adds_is_compared_anew(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [block(lines(1, 2), 0), block(lines(3), 1)]
    committer(lake, (0,)).land(batch(records))
    lose(lake, 1)
    late = block(lines(3, 4), 2)

    def land() -> None:
        tomorrow = CLOCK + timedelta(days=1)
        committer(lake, (0,), begin=False, clock=lambda: tomorrow).land(batch([late]))

    with counted_compares(monkeypatch) as compares:
        assert backfill_silver(lake, DAY, reached=at_written(land)).version is None
    assert len(compares) == 2
    assert_landed_once(lake, [*records, late])


def test_what_landing_left_out_for_a_row_that_goes_is_not_lost(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silver has event 2 from an address that bronze has not; meanwhile the event lands again."""
    records = [block(lines(1), 0), block(lines(2), 1)]
    committer(lake, (0,)).land(batch(records))
    bronze = LakeTable(lake, BRONZE_EVENTS)
    names = ", ".join(BRONZE_EVENTS.file_schema.names)
    [first, _] = read_table(lake, BRONZE_EVENTS, names)
    kept = dict(zip(BRONZE_EVENTS.file_schema.names, first, strict=True))
    rows = silver_table([]).from_pylist([kept], schema=BRONZE_EVENTS.file_schema)
    bronze.replace(DAY, [write_file(lake, BRONZE_EVENTS, rows, partition=DAY)], metadata={})

    def land() -> None:
        committer(lake, (0,), begin=False).land(batch([block(lines(2, 3), 2)]))

    backfill_silver(lake, DAY, reached=at_written(land))
    found = read_table(lake, SILVER_EVENTS, "event_id, kafka_offset")
    assert Counter(offset for _, offset in found) == {0: 1, 2: 2}


def test_rows_that_were_merged_with_compared_ones_are_carried_over(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [block(lines(n), n) for n in range(4)]
    writer = committer(lake, (0,))
    writer.land(batch(records[:2]))
    lose(lake, 0)
    configured(lake)
    writer.land(batch(records[2:3]))

    def land_and_merge() -> None:
        writer.land(batch(records[3:]))
        assert compact_all(lake, writer)

    with counted_compares(monkeypatch) as compares:
        done = backfill_silver(lake, DAY, reached=at_written(land_and_merge))
    assert (len(compares), done.added, done.removed) == (1, 1, 0)
    assert_landed_once(lake, records)
    landed = LakeTable(lake, SILVER_EVENTS).snapshot().actions["num_records"].to_pylist()
    assert sorted(landed) == [1, 3]


def test_any_other_commit_is_compared_anew(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [block(lines(n), n) for n in range(3)]
    committer(lake, (0,)).land(batch(records))
    lose(lake, 0)
    with counted_compares(monkeypatch) as compares:
        done = backfill_silver(lake, DAY, reached=at_written(lambda: lose(lake, 1)))
    assert (len(compares), done.added) == (2, 2)
    assert_landed_once(lake, records)


def test_a_day_that_takes_long_to_write_is_committed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced files stay for 2 s, the day takes 4: files that get old on the way are copied."""
    records = [block(lines(n), n) for n in range(8)]
    committer(lake, (0,)).land(batch(records))
    LakeTable(lake, SILVER_EVENTS).configure({RETENTION: "interval 2 seconds"})
    LakeTable(lake, SILVER_EVENTS).replace(DAY, [], metadata={})
    monkeypatch.setattr(backfill_rows, "_FILE_ROWS", 1)
    monkeypatch.setattr("dc_platform.landing.pieces._ROWS", 1)

    def slow(*args: Any, **more: Any) -> Any:
        time.sleep(0.5)
        return write_file(*args, **more)

    monkeypatch.setattr(backfill_rows, "write_file", slow)
    with counted_compares(monkeypatch) as compares:
        assert backfill_silver(lake, DAY).added == 8
    assert len(compares) == 1
    assert_landed_once(lake, records)
    days = [e for e in lake.listing(SILVER_EVENTS, deep=True) if e.path.endswith(".parquet")]
    assert len([e for e in days if f"={DAY}" in e.path]) == 8 + 1, (
        "copies replace, and are not left"
    )


def test_the_tables_put_is_answered_with_a_conflict_and_is_there(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [block(lines(n), n) for n in range(2)]
    committer(lake, (0,)).land(batch(records))
    lose(lake, 0)
    original = LakeTable.put_in_place

    def taken(table: LakeTable, *args: Any, **more: Any) -> int:
        other = LakeTable(lake, SILVER_EVENTS)
        original(other, *args, **more)
        return original(table, *args, **more)

    monkeypatch.setattr(LakeTable, "put_in_place", taken)
    done = backfill_silver(lake, DAY)
    assert (done.added, done.version) == (1, LakeTable(lake, SILVER_EVENTS).version)
    assert_landed_once(lake, records)
