"""A landing run keeps its lease whatever its reports and its last commit do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dc_platform.landing.commits import TableRows
from dc_platform.landing.lander import Ended, Totals
from dc_platform.landing.slots import Slot
from dc_platform.orchestration import landing_run
from dc_platform.orchestration.landing_run import LandingReport, LandingRun
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.leases import Leases, landing_slot
from dc_platform.settings import Settings
from dc_platform_tests.helpers.landing import in_thread

STALE = 3.0


class StandIn:
    """A lander that commits once, then waits to be stopped."""

    def __init__(self, *_arguments: Any, slot: Slot, **_more: Any) -> None:
        self.totals = Totals(commits=1)
        self.slot = slot

    last_commit_seconds = 0.0

    def run(self, stop: threading.Event, **_more: Any) -> Ended:
        stop.wait(60)
        time.sleep(self.last_commit_seconds)
        return Ended.STOPPED

    def refresh(self) -> None: ...

    def close(self) -> None: ...

    def lag(self) -> dict[int, int]:
        return {0: 7}

    def rows(self) -> TableRows:
        return TableRows(1, {}, {})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(landing_run, "Lander", StandIn)
    made = Settings(data_dir=tmp_path, lease_stale_seconds=STALE, landing_report_seconds=0.2)
    migrate(made.registry)
    return made


@pytest.fixture
def leases(settings: Settings) -> Iterator[Leases]:
    database = Database(settings.registry)
    yield Leases(database, stale_seconds=STALE)
    database.close()


def start(
    settings: Settings, report: Callable[[LandingReport], None], said: list[str] | None = None
) -> tuple[threading.Thread, list[Any]]:
    said = [] if said is None else said
    return in_thread(LandingRun(settings, "a", log=said.append, report=report).run)


def hand_over(leases: Leases, seconds: float = 10.0) -> int:
    """Ask for the lease until it is given; gives the epoch."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        epoch = leases.acquire(landing_slot(0), "b")
        if epoch is not None:
            return epoch
        time.sleep(0.05)
    raise AssertionError("the lease was not handed over")


def test_a_report_that_hangs_costs_neither_the_lease_nor_the_hand_over(
    settings: Settings, leases: Leases
) -> None:
    reporting, release = threading.Event(), threading.Event()

    def hang(_report: LandingReport) -> None:
        reporting.set()
        release.wait(60)

    thread, result = start(settings, hang)
    try:
        assert reporting.wait(20)
        time.sleep(STALE + 1)
        lease = leases.current(landing_slot(0))
        assert lease is not None
        assert lease.owner == "a"
        assert hand_over(leases) == 2
    finally:
        release.set()
        thread.join(30)
    assert result[0].ended == "handed over to run b"


def test_a_report_that_fails_is_logged_and_tried_again(settings: Settings, leases: Leases) -> None:
    reports: list[LandingReport] = []
    said: list[str] = []

    def fail_once(report: LandingReport) -> None:
        reports.append(report)
        if len(reports) == 1:
            raise RuntimeError("database is locked")

    thread, result = start(settings, fail_once, said)
    deadline = time.monotonic() + 20
    while len(reports) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    hand_over(leases)
    thread.join(30)
    assert isinstance(result[0], LandingReport), result
    assert any("database is locked" in line for line in said)
    # What was reported is not reported again before the next commit.
    assert len(reports) == 2
    assert reports[1].lag == 7
    assert reports[1].totals.commits == 1


def test_the_lease_is_renewed_until_the_last_commit_is_done(
    settings: Settings, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "last_commit_seconds", STALE + 2)
    thread, _result = start(settings, lambda report: None)
    deadline = time.monotonic() + 20
    while leases.current(landing_slot(0)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    begun = time.monotonic()
    hand_over(leases, seconds=20)
    # Not before: until then "a" was at its commit.
    assert time.monotonic() - begun > STALE + 1.5
    thread.join(30)
