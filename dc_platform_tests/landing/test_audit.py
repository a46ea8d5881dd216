"""The audit finds what is missing, names it, and finds nothing where nothing is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import date, timedelta

import pytest

from dc_platform.broker.records import Record, TopicInfo
from dc_platform.contracts import blocks
from dc_platform.contracts.ops_tables import GAPS
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.decode.columns import AnySource
from dc_platform.decode.decoder import Decoder
from dc_platform.lake import audit, audit_identities
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import Batch, Gap, Range
from dc_platform.landing.counted import Counted, Counts
from dc_platform.points import Point
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import (
    CLOCK,
    INFO,
    RECORDS,
    CrashError,
    batch,
    committer,
    crash_at,
    decoder,
    land_again,
    lines,
)
from dc_platform_tests.helpers.records import SOURCE, arrow, block, strange
from dc_platform_tests.helpers.zoo import RECORDS as ZOO

DAY = CLOCK.date()
OLDER = INFO._replace(topic_id="00000000-0000-0000-0000-000000000009")
COLUMNS = "topic_id, kafka_partition, from_offset, to_offset, why"


def counted(records: Sequence[Record], ranges: dict[int, tuple[int, int]] | None = None) -> Batch:
    """What the reader hands over."""
    made = batch(records, ranges)
    counts = Counts()
    counts.add(records)
    return Batch(made.judged, made.ranges, 0, counted=counts.of(made.ranges))


def stranger(number: int, offset: int) -> Record:
    event = (
        f'{{"eventId":"{some_uuid(number)}","sourceId":"{SOURCE}","eventType":"t","payload":{{}}}}'
    )
    return strange(event.encode(), offset)


def dropping(records: Sequence[Record], *offsets: int) -> Batch:
    """All records were polled; some were dropped before they were decoded."""
    whole = counted(records)
    rest = [r for r in records if r.offset not in offsets]
    return Batch(decoder().decode(rest), whole.ranges, 0, counted=whole.counted)


# --- a record that is dropped ---


def test_what_was_counted_is_in_each_commit(lake: Lake) -> None:
    committer(lake).land(counted([block(lines(1, 2), 0), stranger(3, 1)]))
    for spec in (BRONZE_EVENTS, SILVER_EVENTS):
        [entry, *_] = LakeTable(lake, spec).history(1)
        assert json.loads(entry["dcp.counted"]) == {"0": [1, 2]}


def test_a_block_that_was_dropped_is_found(lake: Lake) -> None:
    records = [block(lines(1, 2), 0), block(lines(3, 4, 5), 1), stranger(6, 2)]
    writer = committer(lake)
    writer.land(dropping(records, 1))
    writer.land(counted([block(lines(7), 3)]))
    found = audit.lost_events(lake, DAY)
    assert found.number == 1
    assert found.examples == [
        {
            "partition": 0,
            "from": 0,
            "to": 3,
            "records": 1,
            "records in bronze": 1,
            "counted events": 5,
            "counted events in bronze": 2,
        }
    ]


def test_a_strangers_record_that_was_dropped_is_found(lake: Lake) -> None:
    committer(lake).land(dropping([stranger(1, 0), stranger(2, 1)], 1))
    found = audit.lost_records(lake)
    assert found.number == 1
    assert (found.examples[0]["records"], found.examples[0]["records in bronze"]) == (2, 1)


def test_of_all_kinds_of_records_only_those_that_count_wrongly_are_named(lake: Lake) -> None:
    """No gateway writes these; and nothing else is named, whatever it is."""
    records = [record._replace(offset=n) for n, (record, _) in enumerate(ZOO.values())]
    for record in records:
        run = committer(lake, (0,), begin=not record.offset)
        run.land(counted([record], {0: (record.offset, record.offset + 1)}))
    wrong = []
    for record, (_, rows) in zip(records, ZOO.values(), strict=True):
        ours = blocks.holds_events(record.headers) or blocks.holds_rejects(record.headers)
        events = blocks.counted_events(record.headers.get(blocks.COUNTS, b"")) if ours else None
        if record.value and events not in (None, rows):
            wrong.append(record.offset)
    assert [e["from"] for e in audit.lost_records(lake).examples] == wrong
    assert 0 < len(wrong) < len(records) / 2


def test_empty_records_are_not_missing(lake: Lake) -> None:
    empty = [strange(b"", 0), strange(b" \n", 1), arrow({"sourceId": []}, 2), stranger(1, 3)]
    committer(lake).land(counted(empty))
    assert audit.lost_events(lake, DAY).number == 0


@pytest.mark.parametrize("days", [0, 1, 9])
def test_bronze_may_have_the_rows_of_a_crashed_run_on_an_earlier_day(lake: Lake, days: int) -> None:
    with pytest.raises(CrashError):
        committer(lake, reached=crash_at(Point.AFTER_BRONZE)).land(counted([block(lines(1, 2), 0)]))
    later = CLOCK + timedelta(days=days)
    committer(lake, clock=lambda: later).land(counted([block(lines(1, 2), 0), stranger(3, 1)]))
    assert audit.lost_records(lake).number == 0


def test_commits_that_do_not_count_are_not_judged(lake: Lake) -> None:
    committer(lake).land(batch(RECORDS))
    assert audit.lost_records(lake).number == 0


# --- an accepted event that silver lacks ---


def remove_from_silver(lake: Lake, day: date) -> None:
    LakeTable(lake, SILVER_EVENTS).replace(day, [], metadata={})


def test_an_accepted_event_that_silver_lacks_is_found(lake: Lake) -> None:
    committer(lake).land(batch([block(lines(1, 2, 2), 0)]))
    assert audit_identities.missing_events(lake, DAY).number == 0
    remove_from_silver(lake, DAY)
    found = audit_identities.missing_events(lake, DAY)
    assert found.number == 3
    assert {e["event_id"] for e in found.examples} == {some_uuid(1), some_uuid(2)}


def test_a_late_duplicate_of_an_event_of_another_day_is_not_missing(lake: Lake) -> None:
    committer(lake).land(batch([block(lines(1), 0)]))
    later = CLOCK + timedelta(days=40)
    committer(lake, clock=lambda: later).land(batch([block(lines(1, 2), 1)]))
    assert audit_identities.missing_events(lake, later.date()).number == 0
    remove_from_silver(lake, DAY)
    assert [
        e["event_id"] for e in audit_identities.missing_events(lake, later.date()).examples
    ] == [some_uuid(1)]


def test_bronze_is_ahead_only_of_the_topic_that_landed_last(lake: Lake) -> None:
    land(lake, OLDER, block(lines(1), 0))
    with pytest.raises(CrashError):
        land(lake, OLDER, block(lines(2), 1), at=Point.AFTER_BRONZE)
    assert audit_identities.missing_events(lake, DAY).number == 0
    land(lake, INFO, block(lines(3), 0))
    with pytest.raises(CrashError):
        land(lake, INFO, block(lines(4), 1), at=Point.AFTER_BRONZE)
    found = audit_identities.missing_events(lake, DAY)
    assert [e["event_id"] for e in found.examples] == [some_uuid(2)]


def land(lake: Lake, info: TopicInfo, record: Record, at: str = "") -> None:
    judged = Decoder(info.topic_id, AnySource()).decode([record])
    run = committer(lake, (0,), info=info, begin=not record.offset, reached=crash_at(at))
    run.land(Batch(judged, {0: Range(record.offset, record.offset + 1)}, 0))


# --- gaps ---


def with_gap(records: Sequence[Record], start: int, *gaps: Gap) -> Batch:
    made = batch(records)
    end = made.ranges[0].end
    return Batch(made.judged, {0: Range(start, end)}, 0, gaps=list(gaps))


EXPIRED = {"partition": 0, "from": 1, "to": 5, "why": "expired"}


def test_a_gap_stays_on_record(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = committer(lake)
    writer.land(batch([block(lines(1), 0)]))
    writer.land(with_gap([block(lines(2), 5)], 1, Gap(0, 1, 5)))
    assert audit.offset_gaps(lake) == (1, [EXPIRED])
    monkeypatch.setattr(audit, "_HISTORY", 1)
    writer.land(batch([block(lines(3), 6)]))
    assert audit.offset_gaps(lake) == (1, [EXPIRED])


@pytest.mark.parametrize("point", [Point.GAPS_RECORDED, Point.BEFORE_BRONZE, Point.AFTER_BRONZE])
def test_a_crash_does_not_lose_a_gap_nor_double_it(lake: Lake, point: str) -> None:
    committer(lake).land(batch([block(lines(1), 0)]))
    gap = with_gap([block(lines(2), 5)], 1, Gap(0, 1, 5))
    with pytest.raises(CrashError):
        committer(lake, reached=crash_at(point)).land(gap)
    assert read_table(lake, GAPS, COLUMNS) == [(INFO.topic_id, 0, 1, 5, "expired")]
    # The successor may not meet it again: bronze has the range.
    if point == Point.AFTER_BRONZE:
        land_again(lake, [block(lines(2), 5)])
    else:
        committer(lake).land(gap)
    assert audit.offset_gaps(lake) == (1, [EXPIRED])


def test_a_gap_of_a_lake_without_the_table_is_found_in_the_history(lake: Lake) -> None:
    committer(lake).land(with_gap([block(lines(2), 5)], 0, Gap(0, 0, 5)))
    shutil.rmtree(lake.uri_of(GAPS))
    assert audit.offset_gaps(lake).number == 1


def test_what_kafka_had_deleted_before_the_first_landing_is_named_but_no_failure(
    lake: Lake,
) -> None:
    writer = committer(lake, begin=False)
    writer.begin({0: 7, 1: 0})
    writer.land(batch([block(lines(1), 7), block(lines(2), 0, partition=1)]))
    writer.land(batch([block(lines(3), 8)]))
    found = audit.offset_gaps(lake)
    assert found.number == 0
    assert found.examples == [
        {"partition": 0, "from": 0, "to": 7, "why": "before the first landing"}
    ]
    writer.land(with_gap([block(lines(4), 19)], 9, Gap(0, 9, 19)))
    assert [e["why"] for e in audit.offset_gaps(lake).examples] == [
        "expired",
        "before the first landing",
    ]
    assert len(LakeTable(lake, GAPS).history()) == 3


def test_a_hole_in_the_commits_is_found(lake: Lake) -> None:
    run = committer(lake)
    run.land(batch([block(lines(1), 0)]))
    run._silver.commit([], txns={}, exact=True, metadata={"dcp.ranges": '{"0": [3, 4]}'} | _TOPIC)
    assert audit.offset_gaps(lake).examples == [EXPIRED | {"to": 3, "why": "not covered"}]


_TOPIC = {"dcp.topic": INFO.topic_id}


def test_counts_of_many_records() -> None:
    counts = Counts()
    counts.add([block(lines(n, n + 1), n) for n in range(50)])
    counts.add([stranger(n, 50 + n) for n in range(7)])
    counts.add([stranger(n, n)._replace(partition=1) for n in range(3)])
    assert counts.of([0, 1, 2]) == {0: Counted(7, 100), 1: Counted(3, 0), 2: Counted(0, 0)}
