"""Maintenance on a real Dagster instance: what is old goes, what the pages show stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from dc_platform.contracts.tables import TABLES
from dc_platform.lake.store import Lake
from dc_platform.orchestration.dagster_storage import prune
from dc_platform.orchestration.maintenance import lake_files
from dc_platform.settings import settings
from dc_platform_tests.helpers.landing import RECORDS, batch, committer

KEY = dg.AssetKey(["silver", "events"])
SOON = datetime.now(UTC) + timedelta(hours=1)
CHECK = dg.AssetCheckKey(KEY, "holds")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


@dg.op
def nothing() -> None:
    """Does nothing."""


@dg.job(name="checks")
def checks() -> None:
    """A job of the platform's."""
    nothing()


@dg.job(name="a_persons")
def a_persons() -> None:
    """A job that the platform does not know."""
    nothing()


def report(instance: dg.DagsterInstance, number: int, day: str = "2024-05-17") -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(KEY, partition=day, metadata={"number": number})
    )
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=KEY, check_name="holds", passed=True, metadata={"number": number}
        )
    )


def test_old_reports_go_and_the_newest_of_each_stays(instance: dg.DagsterInstance) -> None:
    for number in range(5):
        report(instance, number)
        report(instance, number, "2024-05-18")
    done = prune(instance, [], SOON)
    # Of 10 materializations one per day stays, of 10 evaluations one, in two tables.
    assert done.events == 8 + 9 + 9
    newest = instance.get_latest_materialization_event(KEY)
    assert newest is not None
    assert newest.asset_materialization is not None
    assert newest.asset_materialization.metadata["number"].value == 4
    assert instance.get_materialized_partitions(KEY) == {"2024-05-17", "2024-05-18"}
    [record] = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=10)
    assert record.event is not None
    report(instance, 5)
    assert instance.get_latest_materialization_event(KEY) != newest


def test_young_reports_stay(instance: dg.DagsterInstance) -> None:
    for number in range(3):
        report(instance, number)
    assert prune(instance, ["checks"], datetime.now(UTC) - timedelta(hours=1)) == (0, 0)


def test_storage_does_not_grow_with_reports(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    sizes = []
    for _ in range(3):
        for number in range(15):
            report(instance, number)
        prune(instance, [], SOON)
        sizes.append(sum(p.stat().st_size for p in tmp_path.rglob("*.db")))
    assert sizes[2] == sizes[1]


def test_old_runs_of_the_platforms_jobs_go_with_their_files(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    gone = checks.execute_in_process(instance=instance).run_id
    kept = a_persons.execute_in_process(instance=instance).run_id
    running = instance.create_run_for_job(checks, status=dg.DagsterRunStatus.STARTED).run_id
    assert list(tmp_path.rglob(f"{gone}.db*"))
    assert prune(instance, ["checks"], SOON).runs == 1
    assert {run.run_id for run in instance.get_runs()} == {kept, running}
    assert not list(tmp_path.rglob(f"{gone}.db*"))


def test_the_lakes_figures_are_on_the_asset(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCP_DATA_DIR", str(tmp_path))
    settings.cache_clear()
    try:
        committer(Lake(settings().lake)).land(batch(RECORDS))
        result = dg.materialize([lake_files], instance=instance)
    finally:
        settings.cache_clear()
    assert result.success
    metadata = result.asset_materializations_for_node("ops__lake_files")[0].metadata
    assert metadata["live files"].value == 4
    assert metadata["files deleted"].value == 0
    assert all(f"| {spec.name} |" in str(metadata["tables"].value) for spec in TABLES)
