"""What bronze keeps gives the verdicts again, and is enough when Kafka has lost the records."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.broker.records import Record
from dc_platform.contracts.envelope import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.decode.columns import AnySource, plain
from dc_platform.decode.decoder import Decoder
from dc_platform.errors import FencedError
from dc_platform.lake.gaps import known_gaps
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing import pieces as pieces_of_bronze
from dc_platform.landing.batch import Batch, Gap, Range
from dc_platform.landing.pieces import bronze_rows
from dc_platform.landing.rebuild import judged_from_bronze, replay_bronze
from dc_platform.points import Point
from dc_platform_tests.helpers.events import events
from dc_platform_tests.helpers.landing import (
    INFO,
    CrashError,
    assert_landed_once,
    batch,
    committer,
    crash_at,
    decoder,
    silver,
)
from dc_platform_tests.helpers.records import SOURCE, block, gateway_line, strange
from dc_platform_tests.helpers.zoo import LINE, RECORDS


def numbered(records: list[Record]) -> list[Record]:
    """The records at offsets of their own, in two partitions."""
    return [
        record._replace(partition=number % 2, offset=number // 2)
        for number, record in enumerate(records)
    ]


def judged(records: list[Record]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = plain(decoder().decode(records)).to_pylist()
    return rows


def from_bronze(lake: Lake, condition: str = "true") -> list[dict[str, Any]]:
    table = LakeTable(lake, BRONZE_EVENTS)
    return [
        row
        for rows in bronze_rows(table, condition)
        for row in plain(judged_from_bronze(rows)).to_pylist()
    ]


@pytest.mark.parametrize("name", RECORDS)
def test_each_kind_of_record_gives_the_same_rows_again(lake: Lake, name: str) -> None:
    record = RECORDS[name][0]
    committer(lake).land(batch([record]))
    assert from_bronze(lake) == judged([record])


@pytest.mark.parametrize("rows", [1, 3, 7, 200_000])
def test_all_kinds_at_once_in_pieces(
    lake: Lake, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = numbered([record for record, _ in RECORDS.values()])
    committer(lake).land(batch(records))
    monkeypatch.setattr(pieces_of_bronze, "_ROWS", rows)
    assert from_bronze(lake) == judged(records)
    pieces = list(bronze_rows(LakeTable(lake, BRONZE_EVENTS), "kafka_partition = 0"))
    assert sum(map(len, pieces)) == sum(1 for row in judged(records) if not row["kafka_partition"])
    ends = [(p["kafka_offset"][0].as_py(), p["kafka_offset"][-1].as_py()) for p in pieces]
    assert all(before[1] < after[0] for before, after in pairwise(ends)), "a record was split"


@given(st.lists(st.lists(events(source_id=SOURCE), min_size=1, max_size=3), min_size=1, max_size=6))
@settings(max_examples=15)
def test_any_events_of_gateways_and_strangers(
    tmp_path_factory: pytest.TempPathFactory, found: list[list[bytes]]
) -> None:
    records = [
        block([gateway_line(event) for event in part], n) if n % 2 else strange(b"\n".join(part), n)
        for n, part in enumerate(found)
    ]
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    committer(lake, (0,)).land(batch(records))
    assert from_bronze(lake) == judged(records)


def test_nothing_matches(lake: Lake) -> None:
    committer(lake).land(batch([block([LINE])]))
    assert from_bronze(lake, "false") == []
    assert from_bronze(Lake(lake.uri), "kafka_offset > 7") == []


def test_the_machines_time_zone_does_not_matter(lake: Lake) -> None:
    """Rows pass through Python's datetimes: west of Greenwich the year 1 is none."""
    events_ = [
        gateway_line(b'{"eventType":"t","timestamp":%d,"payload":{}}' % at)
        for at in (MIN_TIMESTAMP_MS, 0)
    ]
    record = block(events_, timestamp_ms=MAX_TIMESTAMP_MS)
    committer(lake).land(batch([record]))
    code = (
        "import sys\n"
        "from dc_platform.contracts.tables import BRONZE_EVENTS\n"
        "from dc_platform.lake.store import Lake\n"
        "from dc_platform.lake.table import LakeTable\n"
        "from dc_platform.landing.pieces import bronze_rows\n"
        "from dc_platform.landing.rebuild import judged_from_bronze\n"
        "[rows] = bronze_rows(LakeTable(Lake(sys.argv[1]), BRONZE_EVENTS), 'true')\n"
        "judged = judged_from_bronze(rows)\n"
        "print(judged['event_time'].cast('int64').to_pylist(), end=' ')\n"
        "print(judged['kafka_timestamp'].cast('int64').to_pylist())\n"
    )
    for zone in ("America/Los_Angeles", "Asia/Tokyo"):
        done = subprocess.run(
            [sys.executable, "-c", code, lake.uri],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TZ": zone},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == (
            f"{[MIN_TIMESTAMP_MS * 1000, 0]} {[MAX_TIMESTAMP_MS * 1000] * 2}"
        )


# --- Kafka has lost what bronze has ---


def crashed_after_bronze(lake: Lake, records: list[Record]) -> None:
    with pytest.raises(CrashError):
        committer(lake, reached=crash_at(Point.AFTER_BRONZE)).land(batch(records))


def replay(lake: Lake, begins: dict[int, int]) -> list[Batch]:
    """What a lander does before it reads."""
    run = committer(lake, begin=False)
    run.begin(begins)
    replayed = []
    for part in replay_bronze(lake, INFO, run, kafka_begins=begins):
        run.land(part)
        replayed.append(part)
    return replayed


@pytest.mark.parametrize("rows", [1, 200_000])
@pytest.mark.parametrize("landed_before", [0, 4])
def test_silver_is_completed_from_bronze(
    lake: Lake, rows: int, landed_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces_of_bronze, "_ROWS", rows)
    records = numbered([record for record, _ in RECORDS.values()])
    if landed_before:
        ranges = {0: (0, landed_before), 1: (0, landed_before)}
        first = [record for record in records if record.offset < landed_before]
        committer(lake).land(batch(first, ranges))
    rest = [record for record in records if record.offset >= landed_before]
    ends = {p: max(r.offset for r in records if r.partition == p) + 1 for p in (0, 1)}
    with pytest.raises(CrashError):
        committer(lake, reached=crash_at(Point.AFTER_BRONZE)).land(
            batch(rest, {p: (landed_before, end) for p, end in ends.items()})
        )
    replay(lake, {p: end + 100 for p, end in ends.items()})
    assert_landed_once(lake, records)
    assert committer(lake, begin=False).offsets == ends
    assert replay(lake, {p: end + 100 for p, end in ends.items()}) == []


def test_only_partitions_that_kafka_cut_are_replayed(lake: Lake) -> None:
    records = [block([LINE], 0), block([LINE], 0, partition=1)]
    crashed_after_bronze(lake, records)
    replayed = replay(lake, {0: 1, 1: 0})
    assert [list(part.ranges) for part in replayed] == [[0]]
    assert committer(lake, begin=False).offsets == {0: 1, 1: None}


def test_a_range_without_rows_is_covered_too(lake: Lake) -> None:
    """Offsets of tombstones and markers: bronze's offset is beyond its last row."""
    with pytest.raises(CrashError):
        committer(lake, (0,), reached=crash_at(Point.AFTER_BRONZE)).land(
            batch([block([LINE], 2)], {0: (0, 9)})
        )
    replay(lake, {0: 50, 1: 0})
    assert committer(lake, begin=False).offsets == {0: 9, 1: None}
    assert len(silver(lake)) == 1


def test_what_another_topic_left_in_bronze_is_not_replayed(lake: Lake) -> None:
    other = INFO._replace(topic_id="00000000-0000-0000-0000-000000000009")
    judged_there = Decoder(other.topic_id, AnySource()).decode([block([LINE])])
    with pytest.raises(CrashError):
        committer(lake, info=other, reached=crash_at(Point.AFTER_BRONZE)).land(
            Batch(judged_there, {0: Range(0, 1)}, 0)
        )
    crashed_after_bronze(lake, [block([LINE], 0)])
    [part] = replay(lake, {0: 5, 1: 0})
    assert len(part.judged) == 1
    assert LakeTable(lake, SILVER_EVENTS).snapshot().rows == 1


def test_what_kafka_deletes_after_the_start_is_no_gap_where_bronze_has_it(lake: Lake) -> None:
    """A run begins behind a bronze that is ahead, and retention passes its first poll."""
    records = [
        block([gateway_line(b'{"eventType":"t","payload":{"n":%d}}' % n)], n) for n in range(4)
    ]
    with pytest.raises(CrashError):
        committer(lake, (0,), reached=crash_at(Point.AFTER_BRONZE)).land(batch(records[:3]))
    run = committer(lake, (0,))
    rest = batch(records[3:])
    cut = Batch(rest.judged, {0: Range(0, 4)}, 0, gaps=[Gap(0, 0, 3)])
    with pytest.raises(FencedError, match="from bronze"):
        run.land(cut)
    assert known_gaps(lake) == []
    following = committer(lake, (0,))
    for found in replay_bronze(lake, INFO, following, kafka_begins={0: 3}):
        following.land(found)
    following.land(rest)
    assert_landed_once(lake, records)


def test_what_another_run_lands_after_a_partition_was_met_is_no_gap(lake: Lake) -> None:
    """A run that slept has in memory what Kafka had deleted when its successor began."""
    records = [
        block([gateway_line(b'{"eventType":"t","payload":{"n":%d}}' % n)], n) for n in range(4)
    ]
    successor = committer(lake, (0,), begin=False)
    successor.begin({0: 3})
    with pytest.raises(CrashError):
        committer(lake, (0,), reached=crash_at(Point.AFTER_BRONZE)).land(batch(records[:3]))
    with pytest.raises(FencedError, match="from bronze"):
        successor.land(batch(records[3:]))
    following = committer(lake, (0,), begin=False)
    following.begin({0: 3})
    for found in replay_bronze(lake, INFO, following, kafka_begins={0: 3}):
        following.land(found)
    following.land(batch(records[3:]))
    assert_landed_once(lake, records)
