"""Silver as it was, with files and offsets: whatever is done to it, each event is there once."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from dc_platform.backup.mend import mend
from dc_platform.backup.restore import restore_silver
from dc_platform.contracts.ops_tables import LANDING_BORDER, TOMBSTONES
from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
)
from dc_platform.errors import ConfigurationError, FencedError
from dc_platform.lake import audit
from dc_platform.lake.log_entries import committed_at, offsets_at, version_at
from dc_platform.lake.moment import Moment, moment
from dc_platform.lake.parquet import write_file
from dc_platform.lake.rewrite import Cancellation, merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch_commit import epoch_of, next_offset
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import (
    INFO,
    RECORDS,
    assert_landed_once,
    batch,
    bronze,
    committer,
    land_again,
    lines,
    quarantine,
    silver,
)
from dc_platform_tests.helpers.records import block

# Partition 0 goes on; 3 and 4 are duplicates of what RECORDS has.
MORE = [block(lines(7, 3, 8), 5), block(lines(9, 4), 6), block(lines(10, 7), 4, partition=1)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def landed(lake: Lake) -> Moment:
    """RECORDS have landed, then MORE: the moment between."""
    land_again(lake, RECORDS)
    then = now(lake)
    land_again(lake, [*RECORDS, *MORE])
    return then


def now(lake: Lake, spec: object = SILVER_EVENTS) -> Moment:
    table = LakeTable(lake, spec)  # type: ignore[arg-type]
    return moment(lake, table.spec, table.version)


def test_files_and_offsets_go_back_together_and_landing_lands_again(lake: Lake) -> None:
    then = landed(lake)
    expected = Counter(silver(lake))
    done = restore_silver(lake, then)
    assert (done.rows_before, done.rows, done.epoch) == (10, 6, 1)
    table = LakeTable(lake, SILVER_EVENTS)
    assert [next_offset(table, INFO, p) for p in (0, 1)] == [5, 4]
    assert [next_offset(LakeTable(lake, BRONZE_EVENTS), INFO, p) for p in (0, 1)] == [7, 5]
    land_again(lake, [*RECORDS, *MORE])
    assert_landed_once(lake, [*RECORDS, *MORE])
    assert Counter(silver(lake)) == expected
    assert audit.offset_gaps(lake).number == 0


def test_a_restored_lake_is_restored_again_from_either_epoch(lake: Lake) -> None:
    first = landed(lake)
    restore_silver(lake, first)
    land_again(lake, [*RECORDS, *MORE])
    second = now(lake)
    assert restore_silver(lake, second).epoch == 2
    assert len(silver(lake)) == 10
    assert restore_silver(lake, first).epoch == 3
    assert len(silver(lake)) == 6
    land_again(lake, [*RECORDS, *MORE])
    assert_landed_once(lake, [*RECORDS, *MORE])
    assert audit.offset_gaps(lake).number == 0


def test_before_the_first_landing_is_a_moment_too(lake: Lake) -> None:
    landed(lake)
    assert restore_silver(lake, moment(lake, SILVER_EVENTS, 0)).rows == 0
    land_again(lake, [*RECORDS, *MORE])
    assert_landed_once(lake, [*RECORDS, *MORE])


def test_what_was_done_to_silver_since_is_undone(lake: Lake) -> None:
    then = landed(lake)
    table = LakeTable(lake, SILVER_EVENTS)
    paths = table.snapshot().actions["path"].to_pylist()
    table.put_in_place(paths[:1], [], metadata={})
    assert len(silver(lake)) < 10
    restore_silver(lake, then)
    land_again(lake, [*RECORDS, *MORE])
    assert_landed_once(lake, [*RECORDS, *MORE])


def test_a_lander_that_goes_on_is_fenced_and_its_successor_loses_nothing(lake: Lake) -> None:
    land_again(lake, RECORDS)
    then = now(lake)
    running = committer(lake)
    running.land(batch(MORE[:1]))
    restore_silver(lake, then)
    # It knows the identities of what silver no longer has.
    with pytest.raises(FencedError, match="restored"):
        running.land(batch(MORE[1:]))
    running.close()
    land_again(lake, [*RECORDS, *MORE])
    assert_landed_once(lake, [*RECORDS, *MORE])
    assert audit.offset_gaps(lake).number == 0


def test_a_lander_is_fenced_between_its_look_up_and_its_commit(lake: Lake) -> None:
    land_again(lake, RECORDS)
    then = now(lake)
    land_again(lake, [*RECORDS, MORE[0]])

    def restored(point: str) -> None:
        if point == "after bronze":
            restore_silver(lake, then)

    running = committer(lake, reached=restored)
    with pytest.raises(FencedError, match="restored"):
        running.land(batch(MORE[1:]))
    running.close()
    land_again(lake, [*RECORDS, *MORE])
    assert_landed_once(lake, [*RECORDS, *MORE])


def test_the_border_never_lies_ahead_of_silver(lake: Lake) -> None:
    then = landed(lake)
    seen = []

    def look(point: str) -> None:
        rows = read_table(lake, LANDING_BORDER, "kafka_partition, next_offset")
        seen.append((point, sorted(rows)))

    restore_silver(lake, then, reached=look)
    assert seen[0] == ("restore files", [(0, 7), (1, 5)])
    assert seen[1] == ("restore border", [(0, 5), (1, 4)])
    land_again(lake, [*RECORDS, *MORE])
    assert sorted(read_table(lake, LANDING_BORDER, "kafka_partition, next_offset")) == [
        (0, 7),
        (1, 5),
    ]


def test_a_file_that_is_no_longer_on_disk_is_named_and_nothing_is_done(lake: Lake) -> None:
    then = landed(lake)
    restore_silver(lake, moment(lake, SILVER_EVENTS, 0))
    for path in Path(lake.uri_of(SILVER_EVENTS)).rglob("part-*.parquet"):
        path.unlink()
    version = LakeTable(lake, SILVER_EVENTS).version
    with pytest.raises(ConfigurationError, match="dcp backup list"):
        restore_silver(lake, then)
    assert LakeTable(lake, SILVER_EVENTS).version == version


def test_all_offsets_of_a_version_are_found_with_and_without_a_checkpoint(lake: Lake) -> None:
    writer = committer(lake)
    for number in range(45):
        writer.land(batch([block(lines(number), number)]))
    writer.close()
    assert list(Path(lake.uri_of(SILVER_EVENTS)).glob("_delta_log/*.checkpoint.parquet"))
    for version in (1, 7, 20, 33, 45):
        found = offsets_at(lake, SILVER_EVENTS, version)
        assert found == {f"silver.events/{INFO.cluster_id}/{INFO.topic_id}/0": version}
        at = committed_at(lake, SILVER_EVENTS, version)
        assert version_at(lake, SILVER_EVENTS, at) >= version


# --- bronze and quarantine ---


def test_bronze_gets_back_what_it_lost_and_keeps_what_came_since(lake: Lake) -> None:
    land_again(lake, RECORDS)
    then = {spec.name: now(lake, spec) for spec in (BRONZE_EVENTS, SILVER_QUARANTINE)}
    for spec in (BRONZE_EVENTS, SILVER_QUARANTINE):
        table = LakeTable(lake, spec)
        paths = table.snapshot().actions["path"].to_pylist()
        table.put_in_place(paths, [], metadata={})
    assert (bronze(lake), quarantine(lake)) == ([], [])
    land_again(lake, [*RECORDS, *MORE])
    for spec in (BRONZE_EVENTS, SILVER_QUARANTINE):
        mend(lake, then[spec.name])
    assert_landed_once(lake, [*RECORDS, *MORE])
    assert epoch_of(LakeTable(lake, BRONZE_EVENTS)) == 0
    mend(lake, then[BRONZE_EVENTS.name])
    assert_landed_once(lake, [*RECORDS, *MORE])


def test_of_a_file_that_compaction_merged_the_newer_rows_stay(lake: Lake) -> None:
    land_again(lake, RECORDS)
    then = now(lake, BRONZE_EVENTS)
    land_again(lake, [*RECORDS, *MORE])
    table = LakeTable(lake, BRONZE_EVENTS)
    paths = table.snapshot().actions["path"].to_pylist()
    merged = merge_files(
        lake, BRONZE_EVENTS, paths, date(2024, 5, 17), ordered=True, cancelled=Cancellation()
    )
    assert table.rewrite(paths, merged, metadata={"dcp.compaction": "x"}) is not None
    mend(lake, then)
    assert_landed_once(lake, [*RECORDS, *MORE])


# --- what was deleted on purpose ---


def test_what_was_deleted_since_does_not_come_back(lake: Lake) -> None:
    specs = (SILVER_EVENTS, BRONZE_EVENTS, SILVER_QUARANTINE)
    land_again(lake, RECORDS)
    moments = {spec.name: now(lake, spec) for spec in specs}
    gone = [silver(lake)[2], quarantine(lake)[1]]
    addresses = sorted(bronze(lake))
    lake.ensure(TOMBSTONES)
    stone = dict.fromkeys(TOMBSTONES.columns.names)
    rows = pa.Table.from_pylist(
        [{**stone, "source_id": s, "event_id": e, "dedup_scope": 0} for s, e in gone],
        schema=TOMBSTONES.columns,
    )
    stones = LakeTable(lake, TOMBSTONES)
    stones.commit([write_file(lake, TOMBSTONES, rows, partition=None)], txns={}, exact=True)
    for spec in specs:
        table = LakeTable(lake, spec)
        table.put_in_place(table.snapshot().actions["path"].to_pylist(), [], metadata={})
    for spec in (BRONZE_EVENTS, SILVER_QUARANTINE):
        mend(lake, moments[spec.name])
    restore_silver(lake, moments[SILVER_EVENTS.name])
    assert gone[0] not in silver(lake)
    assert gone[1] not in quarantine(lake)
    assert (len(silver(lake)), len(quarantine(lake))) == (5, 3)
    assert sorted(bronze(lake)) == addresses
    left = read_table(lake, BRONZE_EVENTS, "verdict, raw, event_id")
    deleted = [row for row in left if row[0] == "deleted"]
    assert deleted
    assert all(row[1:] == (None, None) for row in deleted)
    assert gone[0][1] not in {row[2] for row in left}
