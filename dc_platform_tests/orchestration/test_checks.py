"""On schedule a check that takes long rests; one that is cheap, and all by hand, are evaluated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import SCHEDULE_NAME_TAG

from dc_platform.lake.findings import Finding
from dc_platform.orchestration import checks
from dc_platform.orchestration.checks import Promise, evaluate_promises

KEY = dg.AssetKey(["silver", "events"])
SCHEDULED = {SCHEDULE_NAME_TAG: "checks_schedule"}


@dg.job
def evaluation() -> None:
    """Of the promises alone."""
    evaluate_promises()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the promises, one cheap and one not, as they are evaluated."""
    names: list[str] = []
    seconds = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: seconds[0])

    def promise(name: str, costs: float, number: int) -> Promise:
        def find(*args: object) -> Finding:
            names.append(name)
            seconds[0] += costs
            return Finding(number, [])

        return Promise(name, KEY, "", find)

    monkeypatch.setattr(checks, "PROMISES", [promise("cheap", 0.0, 0), promise("dear", 30.0, 1)])
    return names


def newest(instance: dg.DagsterInstance, name: str) -> tuple[int, bool]:
    """(evaluations, whether the newest passed)."""
    found = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(KEY, name), limit=10
    )
    event = found[0].event
    assert event is not None
    assert event.dagster_event is not None
    return len(found), event.dagster_event.asset_check_evaluation_data.passed


def test_what_took_long_rests_on_schedule(
    instance: dg.DagsterInstance, evaluated: list[str]
) -> None:
    for _ in range(2):
        assert evaluation.execute_in_process(instance=instance, tags=SCHEDULED).success
    assert evaluated == ["cheap", "dear", "cheap"]
    # Nothing is reported in its place: what was found stays as it was.
    assert newest(instance, "dear") == (1, False)
    assert newest(instance, "cheap") == (2, True)


def test_by_hand_all_are_evaluated(instance: dg.DagsterInstance, evaluated: list[str]) -> None:
    for _ in range(2):
        assert evaluation.execute_in_process(instance=instance).success
    assert evaluated == ["cheap", "dear"] * 2


def test_it_rests_for_twenty_times_what_it_took(
    instance: dg.DagsterInstance, evaluated: list[str]
) -> None:
    dear = checks.PROMISES[1]
    assert isinstance(dear, Promise)
    now = time.time()
    assert not dear.rests(instance, now)
    assert evaluation.execute_in_process(instance=instance, tags=SCHEDULED).success
    assert dear.rests(instance, now + 590)
    assert not dear.rests(instance, now + 700)
    # The clock was set back: nobody knows how long ago it was.
    assert not dear.rests(instance, now - 100)
