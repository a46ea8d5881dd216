"""Runs that do not land have less priority, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from dc_platform.definitions import defs
from dc_platform.orchestration.assets import BRONZE_KEY, SILVER_KEY
from dc_platform.orchestration.priority import yielding_executor
from dc_platform.priority import BEHIND, LAST


def noted() -> None:
    """Append the priorities of the process's threads to the file that the test reads."""
    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    found = sorted({os.getpriority(os.PRIO_PROCESS, task) for task in tasks})
    with Path(os.environ["NOTED"]).open("a") as file:
        file.write(json.dumps(found) + "\n")


@dg.asset(key=BRONZE_KEY)
def bronze() -> None:
    """Lands."""
    noted()


@dg.asset(key=SILVER_KEY)
def silver() -> None:
    """A backfill."""
    noted()


@dg.asset_check(asset=BRONZE_KEY)
def holds() -> dg.AssetCheckResult:
    """A check of bronze."""
    noted()
    return dg.AssetCheckResult(passed=True)


@dg.op
def evaluate() -> None:
    """The checks' job's."""
    noted()


@dg.job
def checks() -> None:
    """As the platform's."""
    evaluate()


LANDING = dg.define_asset_job("landing", dg.AssetSelection.assets(BRONZE_KEY).without_checks())
CHECK = dg.define_asset_job("check", dg.AssetSelection.checks_for_assets(BRONZE_KEY))
TOYS = dg.Definitions(
    assets=[bronze, silver],
    asset_checks=[holds],
    jobs=[LANDING, CHECK, checks],
    executor=yielding_executor,
)


# The process of a run; what of the job a person selected.
_RUN = """
import sys
import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
name, selected = sys.argv[1:]
toys = ReconstructableRepository.for_module(
    "dc_platform_tests.orchestration.test_priority", "TOYS", None
)
keys = [dg.AssetKey(selected.split("/"))] if selected else None
with dg.DagsterInstance.ephemeral() as instance:
    job = toys.get_reconstructable_job(name)
    assert dg.execute_job(job, instance, asset_selection=keys).success
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "selected", "nice"),
    [
        ("landing", "", BEHIND),
        ("checks", "", LAST),
        ("check", "", LAST),
        # What a person starts in the UI is a selection of the job of all assets.
        ("__ASSET_JOB", "bronze/events", BEHIND),
    ],
)
def test_a_landing_run_goes_before_all_other_runs(
    tmp_path: Path, name: str, selected: str, nice: int
) -> None:
    notes = tmp_path / "noted"
    before = os.getpriority(os.PRIO_PROCESS, 0)
    subprocess.run(
        [sys.executable, "-c", _RUN, name, selected],
        check=True,
        env={**os.environ, "NOTED": str(notes)},
    )
    threads = [json.loads(line) for line in notes.read_text().splitlines()]
    assert threads
    assert all(found == [max(before, nice)] for found in threads)


def test_all_jobs_of_the_platform_have_this_executor() -> None:
    jobs = defs.resolve_all_job_defs()
    assert {"landing", "checks", "maintenance"} <= {made.name for made in jobs}
    assert all(made.executor_def is yielding_executor for made in jobs)


def test_a_run_within_another_process_leaves_its_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert TOYS.resolve_job_def("checks").execute_in_process().success
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
