"""The index beside silver that tiers, deletions and restores change: files with rows of others, some of
them in part, under names of other kinds, in other places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dc_platform.backup.restore import restore_silver
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.moment import moment
from dc_platform.lake.parquet import write_file
from dc_platform.lake.rewrite import in_pieces
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.registry.retention import Policy
from dc_platform.retention.conditions import of_person
from dc_platform.retention.erase import Eraser, Stubs
from dc_platform.retention.tiers import Borders, Tier, Tiers, tier_of
from dc_platform.search.analysis import Analyzer
from dc_platform.search.coverage import Comparer, newest_first
from dc_platform.search.index import Moment, Reading, Wanted
from dc_platform.search.language import parse
from dc_platform.search.state import Coverage, Range
from dc_platform_tests.helpers.lake import DAY, silver_table
from dc_platform_tests.helpers.search import TEXTS, Changing, assert_true, matches

ANALYZER = Analyzer()
QUERIES = ("NOT zebra", "disk", '"disk failure"', "fail*", "audit checkout")
LEVELS = {Tier.WARM: 1, Tier.COLD: 1}
LATER = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(days=400)
NEVER = 1e6
Change = Callable[[Lake], None]


@pytest.fixture
def silver(tmp_path: Path) -> Changing:
    """Three files that the index has, one of them merged, and one that it has not."""
    changing = Changing(tmp_path)
    for _ in range(4):
        logs = changing.rows(TEXTS, event_type="log")
        changing.land([*logs, *changing.rows(TEXTS, event_type="audit")])
    changing.compact(list(changing.files)[:2], ordered=True)
    changing.builder().build()
    changing.land(changing.rows(TEXTS, event_type="log"))
    return changing


# --- what changes silver ---


def move(lake: Lake, warm_days: float, *policies: Policy) -> None:
    borders = Borders(hot_days=1, warm_days=warm_days, policies=policies)
    Tiers(lake, borders, levels=LEVELS, file_bytes=2**30).run(LATER)


def nothing(lake: Lake) -> None:
    pass


def warm(lake: Lake) -> None:
    move(lake, NEVER)


def cold(lake: Lake) -> None:
    move(lake, 2.0)


def cold_in_part(lake: Lake) -> None:
    move(lake, NEVER, Policy("p", "default", "audit", 1000, 2, 0))


def warm_then_cold_in_part(lake: Lake) -> None:
    warm(lake)
    cold_in_part(lake)


def erase(lake: Lake, text: str) -> None:
    eraser = Eraser(lake, "d", Stubs(needless_before=0))
    assert eraser.erase(SILVER_EVENTS, of_person("default", "message", text)).rows > 0


# --- what is found ---


def snapshot_of(silver: Changing) -> Snapshot:
    return LakeTable(silver.lake, SILVER_EVENTS).snapshot()


def tiers_of(silver: Changing) -> set[Tier]:
    return {tier_of(path) for path in snapshot_of(silver).paths}


def rows_of(silver: Changing, path: str) -> list[dict[str, Any]]:
    columns = ("event_type", "payload", "tags", "kafka_offset")
    batches = in_pieces(silver.lake.uri_of(SILVER_EVENTS), path, columns)
    return [row for batch in batches for row in batch.to_pylist()]


def in_silver(silver: Changing) -> list[dict[str, Any]]:
    paths = snapshot_of(silver).actions["path"].to_pylist()
    return [row for path in paths for row in rows_of(silver, path)]


def index_of(silver: Changing) -> Moment:
    assert silver.index is not None
    return Reading(silver.index).moment()


def coverage_of(silver: Changing) -> Coverage:
    return Comparer(silver.lake).compare(index_of(silver).state, snapshot_of(silver))


def found(at: Moment, query: str, without: Sequence[Range] = ()) -> set[int]:
    wanted = Wanted(parse(query, ANALYZER.of_texts), "default")
    count, hits = at.search(wanted, without=without, after=None, limit=1000)
    assert count == len({hit.kafka_offset for hit in hits})
    return {hit.kafka_offset for hit in hits}


def assert_found(silver: Changing) -> None:
    """Before a build and after it, the index and what it lacks are together what silver has."""
    live = in_silver(silver)
    for build in (False, True):
        if build:
            assert silver.builder().build().documents == len(live)
        at, coverage = index_of(silver), coverage_of(silver)
        files = [file.path for file in coverage.missing]
        missing = {row["kafka_offset"] for path in files for row in rows_of(silver, path)}
        for query in QUERIES:
            tree = parse(query, ANALYZER.of_texts)
            expected = {row["kafka_offset"] for row in live if matches(row, tree)}
            assert found(at, query, coverage.gone) == expected - missing
    assert (coverage.gone, coverage.missing) == ((), ())
    assert_true(index_of(silver))


@pytest.mark.parametrize("change", [warm, cold, cold_in_part, warm_then_cold_in_part])
def test_a_day_that_moves_to_its_tier(silver: Changing, change: Change) -> None:
    change(silver.lake)
    assert tiers_of(silver) != {Tier.HOT}
    assert_found(silver)


def test_a_day_that_moves_as_a_whole_is_not_indexed_again(silver: Changing) -> None:
    warm(silver.lake)
    built = silver.builder().build()
    assert (built.added, built.removed) == (len(TEXTS), 0)
    cold(silver.lake)
    assert tiers_of(silver) == {Tier.COLD}
    built = silver.builder().build()
    assert (built.added, built.removed) == (0, 0)
    assert_found(silver)


@pytest.mark.parametrize("change", [nothing, warm, cold, cold_in_part])
def test_a_deletion_from_a_file_of_any_tier(silver: Changing, change: Change) -> None:
    change(silver.lake)
    erase(silver.lake, TEXTS[0])
    assert not found(index_of(silver), '"disk failure"', coverage_of(silver).gone)
    assert_found(silver)
    # In the next tier nothing of it is back.
    cold(silver.lake)
    assert_found(silver)
    assert not found(index_of(silver), '"disk failure"')


@pytest.mark.parametrize("change", [nothing, warm, cold_in_part])
def test_what_a_restore_brings_back_is_found_and_the_rest_is_not(
    silver: Changing, change: Change
) -> None:
    then = moment(silver.lake, SILVER_EVENTS, snapshot_of(silver).version)
    silver.land(silver.rows(["zebra crossing"]))
    change(silver.lake)
    silver.builder().build()
    assert found(index_of(silver), "zebra")
    restore_silver(silver.lake, then)
    assert not found(index_of(silver), "zebra", coverage_of(silver).gone)
    assert_found(silver)


def test_what_came_last_comes_first_when_old_files_are_written_anew(silver: Changing) -> None:
    rows = silver_table(silver.rows(["late"]))
    file = write_file(silver.lake, SILVER_EVENTS, rows, partition=DAY + timedelta(days=500))
    LakeTable(silver.lake, SILVER_EVENTS).commit([file], txns={}, exact=True)
    warm(silver.lake)
    assert next(iter(newest_first(snapshot_of(silver)))) == file.path
