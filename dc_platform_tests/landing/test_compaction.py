"""Compaction loses and doubles nothing, whatever happens beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.backfill import backfill_silver
from dc_platform.landing.batch_commit import app_id
from dc_platform.landing.identities import IdentityIndex
from dc_platform.landing.keys import Keys
from dc_platform_tests.helpers.compaction import (
    CLOSED,
    OPEN,
    TABLES,
    compact_all,
    compactor,
    merge,
    rows,
    snapshot,
)
from dc_platform_tests.helpers.landing import (
    CLOCK,
    INFO,
    RECORDS,
    CrashError,
    assert_landed_once,
    batch,
    committer,
    crash_at,
    land_again,
    lines,
    reject,
)
from dc_platform_tests.helpers.records import block, rejects_block

DAY = CLOCK.date()


def land_some(lake: Lake, count: int = 6) -> Any:
    """A writer that made `count` commits of two events, the last of each the next one's first."""
    writer = committer(lake, (0,))
    for n in range(count):
        writer.land(batch([block(lines(n, n + 1), n)]))
    return writer


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 12), min_size=1, max_size=4),
            st.sampled_from(["land", "reject", "open", "closed", "begin", "commit"]),
            st.integers(0, 5),
        ),
        min_size=3,
        max_size=10,
    )
)
@settings(max_examples=5)
def test_the_rows_are_those_without_compaction(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[list[int], str, int]]
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    hour = [0]
    writer = committer(lake, (0,), clock=lambda: CLOCK + timedelta(hours=hour[0]))
    pending = compactor(lake, writer)
    records = []
    for numbers, action, later in steps:
        hour[0] = max(hour[0], later)
        if action == "reject":
            records.append(rejects_block([reject(n) for n in set(numbers)], len(records)))
        else:
            records.append(block(lines(*numbers), len(records)))
        writer.land(batch(records[-1:]))
        if action in ("open", "closed"):
            now = CLOSED + 9 * 3600 if action == "closed" else OPEN + later * 3600
            compact_all(lake, writer, now=now)
        elif action in ("begin", "commit"):
            # What was begun at one step is committed at another, if its files are still live.
            merge(pending, writer)
    pending.close()
    assert_landed_once(lake, records)
    compact_all(lake, writer, now=CLOSED + 9 * 3600)
    assert_landed_once(lake, records)
    # Sent again, to this run and to a new one: all are known.
    again = block(lines(*range(13)), len(records))
    known = {n for numbers, action, _ in steps if action != "reject" for n in numbers}
    assert writer.land(batch([again])).landed == 13 - len(known)
    last = block(lines(*range(13)), len(records) + 1)
    land_again(lake, [*records, again, last], partitions=(0,))
    assert_landed_once(lake, [*records, again, last])


def test_all_columns_stay_as_they_are(lake: Lake) -> None:
    writer = committer(lake)
    for record in RECORDS:
        writer.land(batch([record], {record.partition: (record.offset, record.offset + 1)}))
    before = {spec.name: rows(lake, spec) for spec in TABLES}
    files = {spec.name: len(snapshot(lake, spec).paths) for spec in TABLES}
    for now in (OPEN, CLOSED):
        compact_all(lake, writer, now=now)
        assert {spec.name: rows(lake, spec) for spec in TABLES} == before
    for spec in TABLES:
        assert len(snapshot(lake, spec).paths) == 1 < files[spec.name]
        assert LakeTable(lake, spec).history(1)[0]["dcp.compaction"]


def test_bounds_and_nulls_in_the_log_are_those_of_the_rows(lake: Lake) -> None:
    writer = land_some(lake)
    before = snapshot(lake, SILVER_EVENTS)
    compact_all(lake, writer)
    after = snapshot(lake, SILVER_EVENTS)
    assert after.rows == before.rows
    for name in SILVER_EVENTS.statistics:
        (low, high), (lows, highs) = after.bounds(name), before.bounds(name)
        assert low.to_pylist() == [min(lows.to_pylist())]
        assert high.to_pylist() == [max(highs.to_pylist())]


def test_offsets_survive_compaction_and_a_checkpoint(lake: Lake) -> None:
    writer = land_some(lake)
    compact_all(lake, writer)
    table = LakeTable(lake, SILVER_EVENTS)
    table._delta.create_checkpoint()
    assert LakeTable(lake, SILVER_EVENTS).txn(app_id(SILVER_EVENTS, INFO, 0)) == 6
    assert writer.land(batch([block(lines(3, 99), 6)])).landed == 1


def test_no_data_changes_for_who_follows_the_log(lake: Lake) -> None:
    writer = land_some(lake)
    compact_all(lake, writer)
    [newest] = sorted(Path(lake.uri_of(SILVER_EVENTS), "_delta_log").glob("*.json"))[-1:]
    text = newest.read_text()
    assert '"add"' in text
    assert '"dataChange":true' not in text


def test_an_older_version_can_still_be_read(lake: Lake) -> None:
    writer = land_some(lake)
    pinned = snapshot(lake, SILVER_EVENTS)
    compact_all(lake, writer)
    assert all(Path(path).exists() for path in pinned.paths)


def test_a_closed_hour_is_in_order_and_done(lake: Lake) -> None:
    writer = land_some(lake)
    assert compact_all(lake, writer) == 2
    assert compact_all(lake, writer) == 0
    writer.land(batch([block(lines(50), 6)]))
    assert compact_all(lake, writer) == 2
    assert len(snapshot(lake, SILVER_EVENTS).paths) == 1


def test_nothing_is_begun_while_landing_is_behind(lake: Lake) -> None:
    writer = land_some(lake)
    made = compactor(lake, writer)
    assert not merge(made, writer, behind=True)
    assert merge(made, writer)
    made.close()


@pytest.mark.parametrize("point", ["merged written", "merged committed"])
def test_a_crash_around_the_commit(lake: Lake, point: str) -> None:
    records = [block(lines(n, n + 1), n) for n in range(6)]
    writer = land_some(lake)
    dying = compactor(lake, writer, reached=crash_at(point))
    merge(dying, writer)
    with pytest.raises(CrashError):
        merge(dying, writer)
    more = [*records, block(lines(3, 4, 77), 6)]
    successor = land_again(lake, more, partitions=(0,))
    assert_landed_once(lake, more)
    compact_all(lake, successor)
    assert_landed_once(lake, more)


def test_a_run_that_ends_leaves_no_file_behind(lake: Lake) -> None:
    writer = land_some(lake)
    made = compactor(lake, writer)
    merge(made, writer)
    made.close()
    there = {str(path) for path in Path(lake.uri_of(SILVER_EVENTS)).glob("*/*.parquet")}
    assert there == set(snapshot(lake, SILVER_EVENTS).paths)


def test_a_backfill_in_between_wins(lake: Lake) -> None:
    """The merged file has a row that the backfill took away: it must not come back."""
    writer = land_some(lake)
    made = compactor(lake, writer)
    merge(made, writer)
    # Silver has an event that bronze does not know: the backfill removes it.
    table = LakeTable(lake, BRONZE_EVENTS)
    rest = [row for row in table._live() if row["path"] not in snapshot_paths(lake)[:1]]
    drop = [row for row in table._live() if row not in rest]
    table._swap(drop, [], changes_data=True, metadata={})
    assert backfill_silver(lake, DAY).removed
    expected = rows(lake, SILVER_EVENTS)
    merge(made, writer)
    made.close()
    assert rows(lake, SILVER_EVENTS) == expected
    assert made.commits == 0


def snapshot_paths(lake: Lake) -> list[str]:
    paths: list[str] = snapshot(lake, BRONZE_EVENTS).actions["path"].to_pylist()
    return paths


def test_a_backfill_that_compared_with_older_files_begins_again(lake: Lake) -> None:
    writer = land_some(lake)
    table = LakeTable(lake, SILVER_EVENTS)
    expected = rows(lake, SILVER_EVENTS)
    compact_all(lake, writer)
    assert table.version < LakeTable(lake, SILVER_EVENTS).version
    assert backfill_silver(lake, DAY).version is None
    assert rows(lake, SILVER_EVENTS) == expected


def test_another_slot_lands_on_and_reads_no_merged_file_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = land_some(lake)
    other = committer(lake, (1,))
    assert other.land(batch([block(lines(1, 2, 50), 0, partition=1)])).landed == 1
    read: list[list[str]] = []
    original = IdentityIndex.read

    def reading(index: IdentityIndex, paths: list[str], *scopes: Any) -> Any:
        read.append(paths)
        return original(index, paths, *scopes)

    monkeypatch.setattr(IdentityIndex, "read", reading)
    writer._check_silver_unmoved()
    writer.rewritten(SILVER_EVENTS)
    for now in (OPEN, CLOSED):
        compact_all(lake, writer, now=now)
    known = len(other._events)
    assert other.land(batch([block(lines(3, 4, 50, 51), 1, partition=1)])).landed == 1
    assert [paths for paths in read if paths] == []
    assert len(other._events) == known + 1


def test_a_file_that_was_merged_from_an_unknown_one_is_read(lake: Lake) -> None:
    writer = land_some(lake, 2)
    other = committer(lake, (1,))
    other.land(batch([block(lines(1), 0, partition=1)]))
    writer.rewritten(SILVER_EVENTS)
    writer._check_silver_unmoved()
    writer.land(batch([block(lines(60), 2)]))
    compact_all(lake, writer)
    assert other.land(batch([block(lines(60, 61), 1, partition=1)])).landed == 1


def test_identities_of_a_merged_file_are_those_of_its_rows(lake: Lake) -> None:
    writer = land_some(lake)
    files = writer.identity_files
    before = snapshot(lake, SILVER_EVENTS).paths
    parts = [files.read(path, None) for path in before]
    compact_all(lake, writer)
    [after] = snapshot(lake, SILVER_EVENTS).paths
    merged = files.read(after, None)
    assert merged is not None
    expected = {pair for part in parts if part for pair in pairs(Keys(*part[:2]))}
    assert pairs(Keys(*merged[:2])) == expected
    assert files.newcomers([after], set(before)) == []
    assert files.newcomers([after], set(before[1:])) == [after]


def pairs(keys: Keys) -> set[tuple[int, int]]:
    return set(zip(keys.high.tolist(), keys.low.tolist(), strict=True))


def test_a_lost_identity_file_costs_time_and_nothing_else(lake: Lake) -> None:
    writer = land_some(lake)
    lost = snapshot(lake, SILVER_EVENTS).actions["path"][0].as_py()
    writer.identity_files.remove(lost)
    compact_all(lake, writer)
    [after] = snapshot(lake, SILVER_EVENTS).paths
    assert writer.identity_files.read(after, None) is None
    successor = committer(lake, (0,))
    assert successor.land(batch([block(lines(0, 5, 70), 6)])).landed == 1
