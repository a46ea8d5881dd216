"""Whom the sensor lets live, whom it ends, and when it starts a landing run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import instance_for_test

from dc_platform.orchestration import sensor
from dc_platform.orchestration.assets import BRONZE_KEY, SILVER_KEY, SLOT_TAG, landing_job
from dc_platform.registry.leases import Lease, landing_slot
from dc_platform.settings import Settings

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
        # Of the slots after the first.
        self.others: dict[int, Lease] = {}
        self.lag_records = 1
        self.cursor: str | None = None

    def run(
        self,
        run_id: str,
        status: dg.DagsterRunStatus = STARTED,
        *,
        job: str = landing_job.name,
        assets: frozenset[dg.AssetKey] | None = None,
        slot: int | None = 0,
    ) -> None:
        tags = {} if slot is None else {SLOT_TAG: str(slot)}
        self.instance.add_run(
            dg.DagsterRun(
                job_name=job, run_id=run_id, status=status, asset_selection=assets, tags=tags
            )
        )

    def owned_by(self, owner: str, *, alive: bool = True, held_seconds: float = 20.0) -> None:
        self.lease = lease(0, owner, alive=alive, held_seconds=held_seconds)

    def tick(self) -> bool:
        """Whether a run is started."""
        return bool(self.started())

    def started(self) -> list[int]:
        """The slots that a tick starts runs for."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = sensor.landing_sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        requests = result.run_requests or []
        configs = [r.run_config["ops"]["bronze__events"]["config"]["slot"] for r in requests]
        assert [r.tags[SLOT_TAG] for r in requests] == [str(slot) for slot in configs]
        return configs

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    # --- what the sensor asks ---

    def look(self) -> sensor.Look:
        return sensor.Look(dict.fromkeys(range(4), self.lag_records), dict.fromkeys(range(4), 25))

    def landing(self) -> dict[int, Lease]:
        return self.others | ({0: self.lease} if self.lease else {})


def lease(slot: int, owner: str, *, alive: bool = True, held_seconds: float = 20.0) -> Lease:
    return Lease(landing_slot(slot), owner, 1, "here", 1, held_seconds, 0.5, None, alive)


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


@pytest.fixture
def three_slots(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(sensor, "settings", lambda: Settings(landing_slots=3))
    return world


def test_each_unmanned_slot_gets_a_run(three_slots: World) -> None:
    assert three_slots.started() == [0, 1, 2]
    three_slots.run("zero", STARTING, slot=0)
    three_slots.others = {1: lease(1, "one")}
    assert three_slots.started() == [2]
    three_slots.others |= {2: lease(2, "two", alive=False)}
    three_slots.run("one", slot=1)
    three_slots.run("two", slot=2)
    assert three_slots.started() == [2]
    assert (three_slots.status("one"), three_slots.status("two")) == (STARTED, FAILURE)


def test_the_slot_that_compacts_is_manned_while_any_lands(three_slots: World) -> None:
    three_slots.lag_records = 0
    assert three_slots.started() == []
    three_slots.others = {2: lease(2, "two")}
    assert three_slots.started() == [0]
    three_slots.others = {2: lease(2, "two", alive=False)}
    assert three_slots.started() == []


def test_a_slot_without_partitions_gets_no_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "settings", lambda: Settings(landing_slots=8))
    assert world.started() == [0, 1, 2, 3]


def test_a_run_by_hand_is_counted_for_the_first_free_slot(three_slots: World) -> None:
    three_slots.owned_by("zero")
    three_slots.run("by hand", job=ASSET_JOB, assets=frozenset({BRONZE_KEY}), slot=None)
    assert three_slots.started() == [2]


def test_old_runs_are_replaced_one_by_one(three_slots: World) -> None:
    for slot, owner in enumerate(("zero", "one", "two")):
        three_slots.run(owner, slot=slot)
    three_slots.owned_by("zero", held_seconds=3600)
    three_slots.others = {s: lease(s, o, held_seconds=3600) for s, o in ((1, "one"), (2, "two"))}
    assert three_slots.started() == [0]
    three_slots.run("zero again", STARTING, slot=0)
    assert three_slots.started() == []
    three_slots.owned_by("zero again")
    assert three_slots.started() == [1]


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
