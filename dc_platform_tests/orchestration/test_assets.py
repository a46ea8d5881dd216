"""What every asset says of itself, and that what the platform starts by itself is pruned."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from dc_platform.contracts.tables import TABLES
from dc_platform.definitions import defs
from dc_platform.lake.store import Lake
from dc_platform.orchestration.assets import SILVER_KEY, silver_events
from dc_platform.orchestration.backup import lake_backup
from dc_platform.orchestration.maintenance import PRUNED_JOBS, lake_files
from dc_platform.orchestration.sensor import POOLS
from dc_platform.settings import settings
from dc_platform_tests.helpers.landing import CLOCK, RECORDS, batch, committer, lines
from dc_platform_tests.helpers.records import block

GRAPH = defs.resolve_asset_graph()
KEYS = sorted(GRAPH.get_all_asset_keys())
# They have news only when there is something wrong, or nothing at all to be fresh with.
NEVER_STALE = {
    "kafka/events": "Dagster judges materializations alone; of the topic there are observations",
    "silver/quarantine": "a day without a rejected event is a good one",
    "silver/quarantine_replay": "people ask for it, after a fix",
    "ops/backup": "until DCP_BACKUP_URI is set there are none",
}


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DCP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DCP_BACKUP_URI", str(tmp_path / "backups"))
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as made:
        yield made
    settings.cache_clear()


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.to_user_string())
def test_an_asset_says_whose_it_is_what_it_has_and_when_it_is_late(key: dg.AssetKey) -> None:
    node = GRAPH.get(key)
    assert node.owners
    assert node.description
    assert node.kinds
    assert node.group_name != "default"
    schema = node.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert all(column.description for column in schema.columns)
    late = node.freshness_policy is not None
    assert late or key.to_user_string() in NEVER_STALE


def test_every_table_that_a_run_makes_is_an_asset_or_belongs_to_one() -> None:
    assert {"bronze/events", "silver/events", "silver/quarantine", "ops/ledger"} <= {
        key.to_user_string() for key in KEYS
    }


def test_runs_of_all_scheduled_jobs_are_pruned() -> None:
    repository = defs.get_repository_def()
    started = {schedule.job_name for schedule in repository.schedule_defs}
    started |= {target.job_name for sensor in repository.sensor_defs for target in sensor.targets}
    assert started <= set(PRUNED_JOBS)


def test_the_lakes_figures_of_each_table_and_over_time(instance: dg.DagsterInstance) -> None:
    committer(Lake(settings().lake)).land(batch(RECORDS))
    for _ in range(2):
        assert dg.materialize([lake_files], instance=instance).success
    [newest, _] = instance.fetch_materializations(lake_files.key, limit=9).records
    assert newest.asset_materialization is not None
    metadata = newest.asset_materialization.metadata
    table = str(metadata["tables"].value).splitlines()
    names = [name.strip() for name in table[0].strip("|").split("|")]
    rows = {
        cells[0]: dict(zip(names, cells, strict=True))
        for line in table[2:]
        if (cells := [cell.strip() for cell in line.strip("|").split("|")])
    }
    assert set(rows) == {spec.name for spec in TABLES if Lake(settings().lake).exists(spec)}
    bronze = rows["bronze.events"]
    assert (bronze["files"], bronze["rows"]) == ("1", "18")
    assert int(bronze["bytes"].replace(",", "")) > 0
    assert float(bronze["zstd_ratio"]) > 0
    assert float(rows["silver.events"]["raw_ratio"]) > 0
    assert metadata["by table"].value["bronze.events"][0] == 1  # type: ignore[index,call-overload]
    assert str(metadata["plot"].value).startswith("![tables](data:image/png;base64,")


def test_a_range_of_days_is_one_run_and_a_materialization_each(
    instance: dg.DagsterInstance,
) -> None:
    lake = Lake(settings().lake)
    for number in range(3):
        day = datetime(2025, 5, 15 + number, 12, tzinfo=CLOCK.tzinfo)
        writer = committer(lake, clock=lambda day=day: day)
        writer.land(batch([block(lines(*range(number * 10, number * 10 + 4 + number)), number)]))
        writer.close()
    tags = {
        "dagster/asset_partition_range_start": "2025-05-15",
        "dagster/asset_partition_range_end": "2025-05-17",
    }
    assert dg.materialize([silver_events], instance=instance, tags=tags).success
    found = {
        event.partition: {name: value.value for name, value in event.metadata.items()}
        for record in instance.fetch_materializations(SILVER_KEY, limit=9).records
        if (event := record.asset_materialization) is not None
    }
    rows = {day: metadata["dagster/partition_row_count"] for day, metadata in found.items()}
    assert rows == {"2025-05-15": 4, "2025-05-16": 5, "2025-05-17": 6}
    for metadata in found.values():
        assert metadata["changed"] is False
        assert float(metadata["CPU seconds"]) <= float(metadata["CPU seconds of the run"])  # type: ignore[arg-type]
    assert instance.get_materialized_partitions(SILVER_KEY) == set(rows)


def test_a_backup_is_an_asset_with_its_figures(instance: dg.DagsterInstance) -> None:
    committer(Lake(settings().lake)).land(batch(RECORDS))
    result = dg.materialize([lake_backup], instance=instance)
    [event] = result.asset_materializations_for_node("ops__backup")
    assert event.metadata["backups"].value == 1
    assert event.metadata["new files"].value == 4
    assert "| silver.events | 1 | 6 | 1 |" in str(event.metadata["tables"].value)


def test_every_pool_is_made_known_before_its_first_run() -> None:
    found = {
        assets.op.pool
        for assets in defs.assets or ()
        if isinstance(assets, dg.AssetsDefinition) and assets.op.pool
    }
    assert found == set(POOLS)
