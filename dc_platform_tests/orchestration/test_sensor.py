"""Whom the sensor lets live, whom it ends, and when it starts a landing run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import instance_for_test

from dc_platform.orchestration import sensor
from dc_platform.orchestration.assets import BRONZE_KEY, SILVER_KEY, landing_job
from dc_platform.registry.leases import LANDING_SLOT, Lease

STARTING, STARTED = dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED
CANCELING = dg.DagsterRunStatus.CANCELING
FAILURE, CANCELED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
# What an asset's "Materialize" in the UI runs.
ASSET_JOB = "__ASSET_JOB"
POOL = "silver_events_backfill"


class World:
    """Dagster's runs, the lease, Kafka's end; and what a tick makes of them."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.lease: Lease | None = None
        self.lag_records = 1
        self.cursor: str | None = None

    def run(
        self,
        run_id: str,
        status: dg.DagsterRunStatus = STARTED,
        *,
        job: str = landing_job.name,
        assets: frozenset[dg.AssetKey] | None = None,
    ) -> None:
        self.instance.add_run(
            dg.DagsterRun(job_name=job, run_id=run_id, status=status, asset_selection=assets)
        )

    def owned_by(self, owner: str, *, alive: bool = True, held_seconds: float = 20.0) -> None:
        self.lease = Lease(LANDING_SLOT, owner, 1, "here", 1, held_seconds, 0.5, None, alive)

    def tick(self) -> bool:
        """Whether a run is started."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = sensor.landing_sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return bool(result.run_requests)

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    # --- what the sensor asks ---

    def lag(self) -> tuple[int, int]:
        return self.lag_records, 100

    def last(self, slot: str) -> Lease | None:
        assert slot == LANDING_SLOT
        return self.lease


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = World(instance)
        monkeypatch.setattr(sensor, "_gauge", lambda: made)
        monkeypatch.setattr(sensor, "_leases", lambda: made)
        yield made


def test_events_wait_and_nobody_lands(world: World) -> None:
    assert world.tick()
    world.lag_records = 0
    assert not world.tick()


def test_a_run_that_starts_is_waited_for(world: World) -> None:
    world.run("new", STARTED)
    assert not world.tick()
    assert world.status("new") == STARTED


@pytest.mark.parametrize("job", [landing_job.name, ASSET_JOB])
def test_a_run_that_died_with_the_lease_is_replaced_at_once(world: World, job: str) -> None:
    world.run("dead", job=job, assets=frozenset({BRONZE_KEY}))
    world.owned_by("dead", alive=False)
    assert world.tick()
    assert world.status("dead") == FAILURE


def test_a_run_that_died_being_terminated_is_canceled(world: World) -> None:
    world.run("dead", CANCELING)
    world.owned_by("dead", alive=False)
    assert world.tick()
    assert world.status("dead") == CANCELED


def test_a_successor_of_the_dead_that_starts_already_is_waited_for(world: World) -> None:
    world.run("dead")
    world.run("new", STARTING)
    world.owned_by("dead", alive=False)
    assert not world.tick()
    assert (world.status("dead"), world.status("new")) == (FAILURE, STARTING)


def test_a_run_that_gave_the_lease_up_may_end_in_peace(world: World) -> None:
    world.run("old")
    world.owned_by("old")
    assert not world.tick()
    # Released, the last reports under way: nobody waits for it, and nobody ends it.
    world.lease = None
    assert world.tick()
    assert world.status("old") == STARTED


def test_a_run_that_gave_the_lease_up_and_does_not_end_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("old")
    world.owned_by("old")
    world.tick()
    world.run("new")
    world.owned_by("new")
    assert not world.tick()
    assert world.status("old") == STARTED
    monkeypatch.setattr(sensor, "_LEAVING_SECONDS", -1)
    assert not world.tick()
    assert (world.status("old"), world.status("new")) == (FAILURE, STARTED)
    # Nothing is remembered of it.
    world.tick()
    assert "old" not in (world.cursor or "")


@pytest.mark.parametrize("job", [landing_job.name, ASSET_JOB])
def test_a_run_that_never_got_the_lease_is_ended(
    world: World, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("stuck", job=job, assets=frozenset({BRONZE_KEY}))
    assert not world.tick()
    monkeypatch.setattr(sensor, "_STARTING_SECONDS", -1)
    assert world.tick()
    assert world.status("stuck") == FAILURE


def test_runs_of_other_assets_are_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensor, "_STARTING_SECONDS", -1)
    world.run("backfill", job=ASSET_JOB, assets=frozenset({SILVER_KEY}))
    world.run("checks", job="checks")
    assert world.tick()
    assert (world.status("backfill"), world.status("checks")) == (STARTED, STARTED)


def test_an_old_run_gets_a_successor_while_events_come(world: World) -> None:
    world.run("old")
    world.owned_by("old", held_seconds=3600)
    assert world.tick()
    world.run("new", STARTING)
    assert not world.tick()


def test_the_cursor_of_an_earlier_version_is_understood(world: World) -> None:
    world.cursor = json.dumps({"end": 100, "observed": 0})
    assert world.tick()


def test_the_limit_of_backfills_holds_from_the_first_on(tmp_path: Path) -> None:
    """Runs of a pool that Dagster has not met pass unlimited; one that a user set stays."""
    overrides = {"concurrency": {"pools": {"default_limit": 1, "granularity": "run"}}}
    with instance_for_test(overrides, temp_dir=str(tmp_path)) as instance:
        storage = instance.event_log_storage
        sensor._limit_backfills(instance)
        assert storage.get_concurrency_info(POOL).slot_count == 1
        storage.set_concurrency_slots(POOL, 3)
        sensor._limit_backfills(instance)
        assert storage.get_concurrency_info(POOL).slot_count == 3
