"""Tiers: old files move and shrink, no row changes, and nobody who reads or lands notices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, TableSpec
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.backfill import backfill_silver
from dc_platform.points import Point
from dc_platform.registry.retention import Retention
from dc_platform.retention.tiers import Tier, bytes_by_tier, tier_of
from dc_platform_tests.helpers.compaction import compact_all, rows
from dc_platform_tests.helpers.days import day_block, days_of_events, land_days
from dc_platform_tests.helpers.landing import CrashError, batch, committer, crash_at
from dc_platform_tests.helpers.retention import policies, registry, run_of

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAYS = 12
FIRST = TODAY - timedelta(days=DAYS)
# Warm from 4 days on; cold from 8, and what a policy says.
BORDERS = {"tier_hot_days": 4.0, "tier_warm_days": 8.0}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    land_days(made, FIRST, DAYS, 200, files=3)
    return made


@pytest.fixture
def retention(tmp_path: Path) -> Retention:
    return registry(tmp_path)


def tiers(lake: Lake, spec: TableSpec = SILVER_EVENTS) -> dict[str, tuple[int, int]]:
    """Tier → (rows, files)."""
    return {
        row["tier"]: (row["rows"], row["files"])
        for row in bytes_by_tier(lake)
        if row["table"] == spec.name
    }


def test_files_move_by_age_and_rows_stay(tmp_path: Path, lake: Lake, retention: Retention) -> None:
    specs = (SILVER_EVENTS, BRONZE_EVENTS)
    before = [rows(lake, spec) for spec in specs]
    run = run_of(tmp_path, retention, **BORDERS)
    planned = run.plan()
    moved = run.move()
    assert [rows(lake, spec) for spec in specs] == before
    for spec in specs:
        found = tiers(lake, spec)
        # Of each day that is over and old enough one file; the border is one of ages, not of dates.
        assert found["cold"][1] in (4, 5)
        assert found["warm"][1] in (3, 4, 5)
        assert found["hot"][1] == 3 * (DAYS - found["cold"][1] - found["warm"][1])
        assert sum(p.rows for p in planned if p.table == spec.name) == sum(
            n for m in moved if m.spec is spec for _, n, _ in m.after
        )
        paths = LakeTable(lake, spec).snapshot().actions["path"].to_pylist()
        assert all(p.startswith("cold/") == (tier_of(p) is Tier.COLD) for p in paths)
    # A second run finds nothing to do, and compaction leaves them alone.
    assert run.move() == []
    tiered = {p for p in LakeTable(lake, SILVER_EVENTS).snapshot().paths if tier_of(p) != Tier.HOT}
    compact_all(lake, committer(lake), now=datetime.now(UTC).timestamp())
    assert tiered <= set(LakeTable(lake, SILVER_EVENTS).snapshot().paths)
    assert [rows(lake, spec) for spec in specs] == before


def test_a_policy_archives_its_type_alone(tmp_path: Path, lake: Lake, retention: Retention) -> None:
    retention.set_policy("default", "cpu", retention_days=1000, archive_after_days=1)
    before = rows(lake, SILVER_EVENTS)
    run_of(tmp_path, retention, tier_hot_days=100.0, tier_warm_days=200.0).move()
    assert rows(lake, SILVER_EVENTS) == before
    of_cpu = sum(row[4] == "cpu" for row in before)
    found = tiers(lake)
    assert 0.8 * of_cpu < found["cold"][0] <= of_cpu
    assert found["hot"][0] > 0
    # What stayed of the files is warm, whatever its age.
    assert sum(n for n, _ in found.values()) == len(before)


def test_duplicates_of_archived_events_are_kept_out(
    tmp_path: Path, lake: Lake, retention: Retention
) -> None:
    before = rows(lake, SILVER_EVENTS)
    there = committer(lake, [0], memory_mb=64)
    run_of(tmp_path, retention, **BORDERS).move()
    offset = there.offsets[0] or 0
    _, lines = next(days_of_events(FIRST, 1, 200))
    again = [day_block(lines, offset, TODAY)]
    landed = there.land(batch(again))
    there.close()
    assert (landed.landed, landed.duplicates) == (0, len(lines))
    fresh = committer(lake, [0], memory_mb=64)
    landed = fresh.land(batch([day_block(lines, offset + 1, TODAY)]))
    fresh.close()
    assert (landed.landed, landed.duplicates) == (0, len(lines))
    assert rows(lake, SILVER_EVENTS) == before


def test_backfill_and_deletion_work_on_archived_days(
    tmp_path: Path, lake: Lake, retention: Retention
) -> None:
    run = run_of(tmp_path, retention, **BORDERS)
    run.move()
    done = backfill_silver(lake, FIRST.date())
    assert (done.added, done.removed, done.version) == (0, 0, None)
    before = rows(lake, SILVER_EVENTS)
    policies(retention, {"*": 1000, "memory": 10})
    [outcome] = run.run(who="test", at_once=True)
    assert outcome.waits is None
    gone = outcome.erased[SILVER_EVENTS.name]
    assert gone.rows == len(before) - len(rows(lake, SILVER_EVENTS)) > 0
    names = [p for p in LakeTable(lake, SILVER_EVENTS).snapshot().paths if "/cold/" in p]
    assert all(tier_of(path) is Tier.COLD for path in names)
    assert len(names) == tiers(lake)["cold"][1]


@pytest.mark.parametrize("point", [Point.TIER_WRITTEN, Point.TIER_COMMITTED])
def test_a_move_that_is_killed_is_completed(
    tmp_path: Path, lake: Lake, retention: Retention, point: Point
) -> None:
    before = rows(lake, SILVER_EVENTS)
    with pytest.raises(CrashError):
        run_of(tmp_path, retention, reached=crash_at(point), **BORDERS).move()
    assert rows(lake, SILVER_EVENTS) == before
    run_of(tmp_path, retention, **BORDERS).move()
    assert rows(lake, SILVER_EVENTS) == before
    assert tiers(lake)["cold"][1] in (4, 5)
