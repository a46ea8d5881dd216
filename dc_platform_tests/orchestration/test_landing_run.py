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
    settings: Settings,
    report: Callable[[LandingReport], None],
    said: list[str] | None = None,
    *,
    slot: int | None = None,
) -> tuple[threading.Thread, list[Any]]:
    said = [] if said is None else said
    return in_thread(LandingRun(settings, "a", slot=slot, log=said.append, report=report).run)


def hand_over(leases: Leases, seconds: float = 10.0, *, slot: int = 0) -> int:
    """Ask for the lease until it is given; gives the epoch."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        epoch = leases.acquire(landing_slot(slot), "b")
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


def test_each_slot_has_a_lease_and_is_handed_over_alone(settings: Settings, leases: Leases) -> None:
    settings = settings.model_copy(update={"landing_slots": 3})
    reports: list[LandingReport] = []
    runs = [start(settings, reports.append, slot=slot) for slot in range(3)]
    deadline = time.monotonic() + 20
    while len(leases.landing()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert hand_over(leases, slot=1) == 2
    runs[1][0].join(30)
    assert runs[1][1][0].ended == "handed over to run b"
    assert runs[1][1][0].slot == Slot(1, 3)
    owners = {slot: lease.owner for slot, lease in leases.landing().items()}
    assert owners == {0: "a", 1: "b", 2: "a"}
    for slot in (0, 2):
        hand_over(leases, slot=slot)
        runs[slot][0].join(30)


def test_a_run_without_a_slot_takes_a_free_one_or_the_one_that_was_held_longest(
    settings: Settings, leases: Leases
) -> None:
    settings = settings.model_copy(update={"landing_slots": 3})

    def chosen() -> int:
        return LandingRun(settings, "x", log=print, report=lambda _: None).slot.number

    assert chosen() == 0
    for slot in (2, 0):
        leases.acquire(landing_slot(slot), f"run-{slot}")
        time.sleep(0.02)
    assert chosen() == 1
    leases.acquire(landing_slot(1), "run-1")
    assert chosen() == 2
