"""Gold in Dagster: the assets say what dbt says, the job reports what it did, the sensor when to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dc_platform.contracts.gold import DBT_TABLES, EVENTS_HOURLY, GOLD_TABLES, SOURCES_DAILY
from dc_platform.contracts.tables import column_doc
from dc_platform.gold.dbt import AuditError, Outcome, run_dbt
from dc_platform.lake.store import Lake
from dc_platform.orchestration import gold_sensor as sensor
from dc_platform.orchestration.gold import (
    CHECK_SPECS,
    gold_job,
    gold_tables,
    key_of,
    materializations,
)
from dc_platform.orchestration.gold_sensor import JOB, alive, gold_sensor, somebody_is_alive
from dc_platform.settings import settings
from dc_platform_tests.gold.lakes import land, new_lake
from dc_platform_tests.gold.plain import counted as counted
from dc_platform_tests.helpers.gold import expected, files, gold
from dc_platform_tests.helpers.lake import silver_row

# In a day that is a partition.
AT = datetime(2025, 3, 4, 10, 30, tzinfo=UTC)
STARTED, SUCCESS = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    monkeypatch.setenv("DCP_DATA_DIR", str(tmp_path))
    settings.cache_clear()
    yield new_lake(tmp_path)
    settings.cache_clear()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def event(number: int, days: int = 0) -> dict[str, Any]:
    at = AT + timedelta(days=days)
    return silver_row(number, event_time=round(at.timestamp() * 1_000_000))


def reported(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[dg.AssetMaterialization]:
    records = instance.fetch_materializations(key, limit=50).records
    return [record.asset_materialization for record in records if record.asset_materialization]


# --- the definitions ---


def test_the_assets_say_what_dbt_says(tmp_path: Path) -> None:
    assert run_dbt(["parse"], target="duckdb", directory=tmp_path, cache=tmp_path) == []
    manifest = json.loads((tmp_path / "target" / "manifest.json").read_text())
    nodes = manifest["nodes"]
    models = {n["name"]: n for n in nodes.values() if n["resource_type"] == "model"}

    def upstream(name: str) -> set[tuple[str, ...]]:
        """Through the models that are no tables."""
        found: set[tuple[str, ...]] = set()
        for parent in models[name]["depends_on"]["nodes"]:
            kind, *_, source, table = parent.split(".")
            if kind == "source" and source == "silver":
                found.add(("silver", table.removesuffix("_of_days")))
            elif kind == "model":
                model = nodes[parent]
                is_table = model["config"]["materialized"] == "table"
                found |= {("gold", table)} if is_table else upstream(table)
        return found

    for spec in DBT_TABLES:
        name = spec.name.split(".")[1]
        model = models[name]
        assert model["description"] == spec.description
        columns = {n: c["description"] for n, c in model["columns"].items()}
        assert columns == {n: column_doc(spec, n) for n in spec.columns.names}
        deps = {tuple(dep.asset_key.path) for dep in gold_tables.specs_by_key[key_of(spec)].deps}
        assert deps == upstream(name)
        assert model["config"]["unique_key"] == [*spec.grain]
    tests = {
        (nodes[n["attached_node"]]["name"], n["name"], n["description"])
        for n in nodes.values()
        if n["resource_type"] == "test"
    }
    assert tests == {(c.asset_key.path[1], c.name, c.description) for c in CHECK_SPECS}
    assert len(tests) >= 12


def test_the_assets_are_documented_and_partitioned_by_day() -> None:
    for spec in gold_tables.specs:
        assert spec.group_name == "gold"
        assert spec.owners
        assert "deltalake" in spec.kinds
        assert spec.freshness_policy is not None
        assert spec.partitions_def is not None
        schema = spec.metadata["dagster/column_schema"]
        assert all(column.description for column in schema.columns)
    assert gold_tables.backfill_policy == dg.BackfillPolicy.single_run()


# --- the job and the assets ---


@pytest.mark.usefixtures("counted")
def test_the_job_reports_the_days_that_it_changed(lake: Lake, instance: dg.DagsterInstance) -> None:
    land(lake, [event(1), event(2, 3), event(3, -12_000)])
    assert gold_job.execute_in_process(instance=instance).success
    assert gold(lake) == expected(lake)
    for spec in DBT_TABLES:
        made = reported(instance, key_of(spec))
        assert {m.partition for m in made} == {"2025-03-04", "2025-03-07"}
        assert made[0].metadata["rows published"].value == 3
        assert made[0].metadata["silver version"].value == 1
        assert made[0].metadata["hours rebuilt"].value == 3
    land(lake, [event(4)])
    assert gold_job.execute_in_process(instance=instance).success
    assert reported(instance, key_of(EVENTS_HOURLY))[0].partition == "2025-03-04"
    assert len(reported(instance, key_of(SOURCES_DAILY))) == 3
    # Nothing is pending: nothing is reported.
    assert gold_job.execute_in_process(instance=instance).success
    assert len(reported(instance, key_of(SOURCES_DAILY))) == 3


def test_what_a_test_refuses_is_a_failed_check(
    lake: Lake, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(lake, [event(1)])
    broken = CHECK_SPECS[0]
    outcomes = [Outcome("test", c.name, "pass", 0.1, 0, "") for c in CHECK_SPECS[1:-1]]
    outcomes += [
        Outcome("test", broken.name, "fail", 0.1, 3, "Got 3 results"),
        Outcome("test", CHECK_SPECS[-1].name, "skipped", 0.0, 0, ""),
    ]

    def refuse(*_: object) -> None:
        raise AuditError(outcomes)

    monkeypatch.setattr("dc_platform.gold.run.build", refuse)
    for _ in range(2):
        done = gold_job.execute_in_process(instance=instance, raise_on_error=False)
        assert not done.success
    keys = [c.key for c in CHECK_SPECS]
    known = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    assert set(known) == set(keys[:-1])
    passed = {}
    for key, record in known.items():
        assert record.event is not None
        assert record.event.dagster_event is not None
        passed[key] = record.event.dagster_event.asset_check_evaluation_data.passed
    assert [key for key, good in passed.items() if not good] == [broken.key]
    history = instance.event_log_storage.get_asset_check_execution_history
    # What holds is not said again at once; what does not, is.
    assert (len(history(broken.key, 9)), len(history(keys[1], 9))) == (2, 1)


def test_days_by_hand_are_one_run_and_change_no_byte(
    lake: Lake, instance: dg.DagsterInstance
) -> None:
    land(lake, [event(n, n) for n in range(4)])
    tags = {
        "dagster/asset_partition_range_start": "2025-03-04",
        "dagster/asset_partition_range_end": "2025-03-06",
    }

    def materialize() -> dg.ExecuteInProcessResult:
        return dg.materialize([gold_tables], instance=instance, tags=tags)

    result = materialize()
    assert result.success
    rows = gold(lake)["gold.events_hourly"]
    assert [row for row in expected(lake)["gold.events_hourly"] if row in rows] == rows
    assert len(rows) == 3
    checks = result.get_asset_check_evaluations()
    assert {c.check_name for c in checks if c.passed} == {c.name for c in CHECK_SPECS}
    before = files(lake)
    assert materialize().success
    assert files(lake) == before
    made = reported(instance, key_of(EVENTS_HOURLY))
    assert {m.partition for m in made} == {"2025-03-04", "2025-03-05", "2025-03-06"}


def test_very_many_days_are_one_report(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from dc_platform.gold.publish import Published
    from dc_platform.gold.run import Report

    for spec in GOLD_TABLES:
        lake.ensure(spec)
    days = dict.fromkeys(range(20_200, 20_400), 1)
    tables = {spec.name: [Published(days, 200, 1, 1)] for spec in GOLD_TABLES}
    events = list(materializations(Report(tables=tables)))
    assert [e.partition for e in events] == [None] * len(GOLD_TABLES)


# --- the sensor ---


def tick(instance: dg.DagsterInstance) -> bool:
    result = gold_sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SensorResult)
    return bool(result.run_requests)


def add_run(instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus) -> None:
    instance.add_run(dg.DagsterRun(job_name=JOB, run_id=run_id, status=status))


@pytest.mark.usefixtures("counted")
def test_a_run_starts_when_hours_are_pending(lake: Lake, instance: dg.DagsterInstance) -> None:
    assert not tick(instance)
    land(lake, [event(1)])
    assert tick(instance)
    assert gold_job.execute_in_process(instance=instance).success
    assert not tick(instance)


def test_there_is_one_run_at_a_time_and_then_a_rest(
    lake: Lake, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(lake, [event(1)])
    add_run(instance, "first", STARTED)
    assert not tick(instance)
    instance.report_run_failed(instance.get_run_by_id("first"))  # type: ignore[arg-type]
    assert not tick(instance)
    monkeypatch.setattr(sensor, "_SHORTEST_SECONDS", -1.0)
    monkeypatch.setattr(sensor, "_SHARE", 0)
    assert tick(instance)


def test_a_run_that_died_is_ended(
    lake: Lake, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(lake, [event(1)])
    monkeypatch.setattr(sensor, "_STARTING_SECONDS", -1.0)
    monkeypatch.setattr(sensor, "_SHORTEST_SECONDS", -1.0)
    monkeypatch.setattr(sensor, "_SHARE", 0)
    add_run(instance, "old", STARTED)
    with alive():
        assert somebody_is_alive()
        assert not tick(instance)
    assert not somebody_is_alive()
    assert tick(instance)
    run = instance.get_run_by_id("old")
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
