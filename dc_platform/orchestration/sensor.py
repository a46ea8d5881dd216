"""The landing sensor: keeps the landing slots manned. It never reads a record.

Each tick compares the end of the log with silver's border and looks at the leases. Dagster's own idea
of which runs live is no evidence: a run whose worker was killed with its code server stays STARTED
for ever. So runs are judged by the lease. One that died holding it is replaced at once; one that gave
it up has a minute to end; only one that never had it may be starting, for a bounded time.
"""

import json
import time
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import dagster as dg

from dc_platform.broker.client import ensure_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import RecordReader, TopicInfo
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import PlatformError, TopicChangedError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch_commit import next_offset
from dc_platform.landing.slots import Slot
from dc_platform.orchestration.assets import (
    BRONZE_KEY,
    SLOT_TAG,
    TOPIC_KEY,
    landing_job,
    landing_request,
)
from dc_platform.registry.database import Database
from dc_platform.registry.leases import Lease, Leases
from dc_platform.settings import settings

_TICK_SECONDS = 5
# From its creation a run needs 10 to 13 s on two busy cores, and may wait 60 s for the lease.
_STARTING_SECONDS = 100
# What a run does after it gave the lease up: its last report, its process's end.
_LEAVING_SECONDS = 60
_OBSERVE_SECONDS = 60
_KAFKA_MS = 5_000

# Not the queued ones: of those there are as many as a backfill has days.
_LAUNCHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class Look(NamedTuple):
    """Partition → records that are not landed, and the end of the log."""

    lag: dict[int, int]
    ends: dict[int, int]

    def of(self, slot: Slot) -> tuple[int, int]:
        """(lag, end as one number) of a slot's partitions."""
        own = [partition for partition in self.ends if slot.has(partition)]
        return sum(self.lag[p] for p in own), sum(self.ends[p] for p in own)


class Starting(NamedTuple):
    """A run that may still come to life; its slot, None when it will take the first free one."""

    run_id: str
    slot: int | None


class _Gauge:
    """Clients that live as long as the code server: connecting each tick would cost more than the
    tick."""

    def __init__(self) -> None:
        self._reader: RecordReader | None = None
        self._silver: LakeTable | None = None
        self._info: TopicInfo | None = None

    def look(self) -> Look:
        """Where Kafka and silver stand."""
        try:
            return self._look()
        except TopicChangedError:
            self.reset()
            return self._look()
        except PlatformError:
            self.reset()
            raise

    def _look(self) -> Look:
        configured = settings()
        if self._reader is None or self._info is None:
            self._info = ensure_topic(
                configured.kafka_bootstrap,
                configured.topic,
                partitions=configured.topic_partitions,
                replication=configured.topic_replication,
            )
            self._reader = reader_for(
                configured.kafka_bootstrap, self._info, configured.kafka_client
            )
        if self._silver is None:
            lake = Lake(configured.lake)
            lake.ensure(SILVER_EVENTS)
            self._silver = LakeTable(lake, SILVER_EVENTS)
        self._silver.refresh()
        ends = self._reader.end_offsets(_KAFKA_MS)
        done = {p: next_offset(self._silver, self._info, p) or 0 for p in ends}
        return Look({p: max(0, end - done[p]) for p, end in ends.items()}, ends)

    def reset(self) -> None:
        """Connect anew at the next tick."""
        if self._reader is not None:
            self._reader.close()
        self._reader = self._silver = self._info = None


@cache
def _gauge() -> _Gauge:
    return _Gauge()


@cache
def _leases() -> Leases:
    configured = settings()
    return Leases(Database(configured.registry), stale_seconds=configured.lease_stale_seconds)


@dg.sensor(
    job=landing_job,
    minimum_interval_seconds=_TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a landing run for each slot of which events wait and nobody lands them, and a"
    " successor when a run has become old.",
)
def landing_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """One tick: at most one run for each slot."""
    cursor = json.loads(context.cursor or "{}")
    _limit_backfills(context.instance)
    try:
        look = _gauge().look()
    except PlatformError as error:
        return dg.SensorResult(skip_reason=f"cannot look: {error}")
    # Before the runs: a run that takes a lease in between is younger than what was read.
    leases = _leases().landing()
    held: dict[str, float] = cursor.get("held", {})
    starting, held = _judge_runs(context.instance, leases, held)
    lag, end = sum(look.lag.values()), sum(look.ends.values())
    observe = time.time() - cursor.get("observed", 0) > _OBSERVE_SECONDS
    observe = observe and (end != cursor.get("end") or lag > 0)
    living = {slot: lease for slot, lease in leases.items() if lease.alive}
    wanted = _wanted(living, starting, look, cursor.get("ends", {}))
    events = (
        [dg.AssetObservation(TOPIC_KEY, metadata={"lag (records)": lag, "end": end})]
        if observe
        else []
    )
    observed = time.time() if observe else cursor.get("observed", 0)
    ends = {str(slot.number): look.of(slot)[1] for slot in _slots()}
    cursor = {"end": end, "ends": ends, "observed": observed, "held": held}
    return dg.SensorResult(
        run_requests=[landing_request(slot) for slot in wanted] or None,
        skip_reason=None if wanted else _situation(lag, living, starting),
        cursor=json.dumps(cursor),
        asset_events=events,
    )


def _situation(lag: int, living: Mapping[int, Lease], starting: list[Starting]) -> str:
    holders = ", ".join(
        f"run {living[slot.number].owner[:8]} holds the lease of {slot}"
        if slot.number in living
        else f"nobody holds the lease of {slot}"
        for slot in _slots()
    )
    return f"lag {lag} records, {holders}, {len(starting)} starting"


# All pools that there are; a test holds it.
POOLS = (
    *("silver_events_backfill", "gold_backfill", "quarantine_replay", "retention"),
    "search_index",
)


def _limit_backfills(instance: dg.DagsterInstance) -> None:
    """Make the pools known: Dagster lets the first runs of one that it has not met pass unlimited."""
    storage = instance.event_log_storage
    known = storage.get_concurrency_keys()
    for pool in POOLS:
        if pool not in known:
            storage.initialize_concurrency_limit_to_default(pool)


def _slots() -> list[Slot]:
    of = settings().landing_slots
    return [Slot(number, of) for number in range(of)]


def _wanted(
    living: Mapping[int, Lease], starting: list[Starting], look: Look, ends: Mapping[str, int]
) -> list[int]:
    """Slots that need a run: events wait, or others land and nobody compacts. `ends`: of each slot, as
    of the tick before.

    Successors start one by one: all slots' runs are of one age, and Dagster's run slots are few.
    """
    coming = {run.slot for run in starting}
    handing_over = any(slot in living for slot in coming)
    wanted = []
    for slot in _slots():
        lag, end = look.of(slot)
        lease = living.get(slot.number)
        if slot.number in coming:
            continue
        if lease is None:
            if lag or (slot.compacts and living):
                wanted.append(slot.number)
        elif lease.held_seconds > settings().landing_run_minutes * 60 and not handing_over:
            handing_over = bool(lag) or end != ends.get(str(slot.number))
            if handing_over:
                wanted.append(slot.number)
    # A run that was started by hand without a slot takes the first that is free.
    return wanted[sum(run.slot is None for run in starting) :]


def _judge_runs(
    instance: dg.DagsterInstance, leases: Mapping[int, Lease], held: dict[str, float]
) -> tuple[list[Starting], dict[str, float]]:
    """End the landing runs that have died. Gives those that may still come to life, and, of those
    that Dagster thinks alive, when each was last seen holding a lease (`held`: as of the tick before).
    """
    now = time.time()
    owned = {lease.owner: lease for lease in leases.values()}
    starting = []
    seen = {}
    for record in _landing_runs(instance):
        run = record.dagster_run
        lease = owned.get(run.run_id)
        if lease is not None:
            if lease.alive:
                seen[run.run_id] = now
            else:
                _end(instance, run, "The run died holding its slot's lease.")
        elif run.run_id in held:
            if now - held[run.run_id] <= _LEAVING_SECONDS:
                seen[run.run_id] = held[run.run_id]
            else:
                _end(instance, run, "The run lost its slot's lease and did not end.")
        elif now - record.create_timestamp.timestamp() < _STARTING_SECONDS:
            slot = run.tags.get(SLOT_TAG)
            starting.append(Starting(run.run_id, int(slot) if slot else None))
        elif run.status != dg.DagsterRunStatus.QUEUED:
            _end(instance, run, "The run never got its slot's lease and is too old to be starting.")
    return starting, seen


def _landing_runs(instance: dg.DagsterInstance) -> list[dg.RunRecord]:
    """Runs of bronze that Dagster thinks alive, whoever started them: this sensor or a hand in the
    UI, whose runs have neither the job's name nor its tags.
    """
    launched = instance.get_run_records(dg.RunsFilter(statuses=_LAUNCHED))
    queued = instance.get_run_records(
        dg.RunsFilter(job_name=landing_job.name, statuses=[dg.DagsterRunStatus.QUEUED]), limit=20
    )
    return [*filter(_lands, launched), *queued]


def _lands(record: dg.RunRecord) -> bool:
    run = record.dagster_run
    return run.job_name == landing_job.name or BRONZE_KEY in (run.asset_selection or ())


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str) -> None:
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, why)
    else:
        instance.report_run_failed(run, why)
