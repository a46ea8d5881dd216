"""What fails a soak, besides its figures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dc_platform.bench.measure import BenchFailedError
from dc_platform.bench.soak import _watch
from dc_platform.bench.soak_run import check_promises, run_job

KEY = dg.AssetCheckKey(dg.AssetKey("a"), "holds")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@dg.op
def fails() -> None:
    raise ValueError("vacuum found no room")


@dg.op
def succeeds() -> None:
    pass


@dg.job
def good() -> None:
    succeeds()


@dg.job
def bad() -> None:
    fails()


def test_a_failed_job_is_an_error(instance: dg.DagsterInstance) -> None:
    run_job(instance, good)
    with pytest.raises(BenchFailedError, match="the job bad failed"):
        run_job(instance, bad)


@pytest.mark.parametrize(
    ("passed", "severity", "fails"),
    [
        (True, dg.AssetCheckSeverity.ERROR, False),
        (False, dg.AssetCheckSeverity.WARN, False),
        (False, dg.AssetCheckSeverity.ERROR, True),
    ],
)
def test_a_broken_promise_is_an_error(
    instance: dg.DagsterInstance, passed: bool, severity: dg.AssetCheckSeverity, fails: bool
) -> None:
    with pytest.raises(BenchFailedError, match="was not evaluated"):
        check_promises(instance, [KEY])
    evaluation = dg.AssetCheckEvaluation(
        asset_key=KEY.asset_key,
        check_name=KEY.name,
        passed=passed,
        severity=severity,
        metadata={"findings": 7},
    )
    instance.report_runless_asset_event(evaluation)
    if fails:
        with pytest.raises(BenchFailedError, match="'findings': 7"):
            check_promises(instance, [KEY])
    else:
        check_promises(instance, [KEY])


@pytest.mark.parametrize("code", [0, 1])
def test_no_child_may_end_before_its_time(tmp_path: Path, code: int) -> None:
    log = tmp_path / "log"
    log.write_text("what it said")
    child = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    child.wait()
    with pytest.raises(BenchFailedError, match="housekeeping ended after 0 commits:\nwhat it said"):
        _watch(tmp_path / "samples", 1, {"housekeeping": child}, log, lambda _: None)
