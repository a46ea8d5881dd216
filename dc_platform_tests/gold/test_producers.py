"""The tables that functions make are kept with those of dbt, and definitions fill and leave hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.metrics import AggregationType, Definition
from dc_platform.contracts.sketch_tables import METRICS_HOURLY, SKETCH_TABLES, SKETCHES_HOURLY
from dc_platform.gold.pending import Pinned
from dc_platform.gold.producers import Extras
from dc_platform.gold.run import keep_gold, rebuild_all
from dc_platform.lake.store import Lake
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.metrics import Metrics
from dc_platform_tests.gold.lakes import land, new_lake
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.gold import files
from dc_platform_tests.helpers.lake import read_table, silver_row


def at(number: int, hours: int = 0) -> dict[str, Any]:
    return silver_row(number, event_time=(NOW + hours * HOUR) * 1000)


ROWS = [at(1), at(2), at(3, -30)]


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    migrate(url)
    return Metrics(Database(url))


def counts(lake: Lake) -> list[tuple[Any, ...]]:
    return sorted(read_table(lake, METRICS_HOURLY, "name, hour, value"))


def totals(lake: Lake) -> int:
    return sum(n for (n,) in read_table(lake, SKETCHES_HOURLY, "event_count"))


def defined(name: str, kind: AggregationType = AggregationType.COUNT) -> Definition:
    return Definition(name=name, aggregation_type=kind)


def test_definitions_fill_hours_and_leave_them(tmp_path: Path, metrics: Metrics) -> None:
    lake, cache = new_lake(tmp_path), tmp_path / "cache"
    extras = Extras(metrics=metrics)
    land(lake, ROWS)
    keep_gold(lake, cache, extras)
    assert totals(lake) == 3
    assert counts(lake) == []
    assert not extras.differ_from(Pinned(lake).metrics_version)
    metrics.create(defined("events"))
    assert extras.differ_from(Pinned(lake).metrics_version)
    before = files(lake)
    done = keep_gold(lake, cache, extras)
    assert done.outcomes == [], "dbt need not run for a definition"
    assert [value for _, _, value in counts(lake)] == [1, 2]
    added = set(files(lake)) - set(before)
    assert added
    assert all(name.startswith(METRICS_HOURLY.name) for name in added)
    assert not extras.differ_from(Pinned(lake).metrics_version)
    assert not keep_gold(lake, cache, extras).tables
    land(lake, [at(4)])
    keep_gold(lake, cache, extras)
    assert [value for _, _, value in counts(lake)] == [1, 3]
    assert totals(lake) == 4
    metrics.create(defined("again"))
    metrics.delete("events")
    keep_gold(lake, cache, extras)
    assert [(name, value) for name, _, value in counts(lake)] == [("again", 1), ("again", 3)]


def test_building_all_of_it_again_changes_no_byte(tmp_path: Path, metrics: Metrics) -> None:
    lake, cache = new_lake(tmp_path), tmp_path / "cache"
    metrics.create(defined("events"))
    extras = Extras(metrics=metrics)
    for rows in (ROWS[:1], ROWS[1:2], ROWS[2:]):
        land(lake, rows)
        keep_gold(lake, cache, extras)
    before = files(lake)
    assert rebuild_all(lake, cache, extras).rows == 0
    assert files(lake) == before
    assert all(any(name.startswith(spec.name) for name in before) for spec in SKETCH_TABLES)
