"""The landing sensor: keeps the landing slot manned. It never reads a record.

Each tick compares the end of the log with silver's border and looks at the lease. Dagster's own idea
of which runs live is no evidence: a run whose worker was killed with its code server stays STARTED
for ever. So runs are judged by the lease. One that died holding it is replaced at once; one that gave
it up has a minute to end; only one that never had it may be starting, for a bounded time.
"""

import json
import time
from functools import cache

import dagster as dg

from dc_platform.broker.client import ensure_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import RecordReader, TopicInfo
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import PlatformError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.commits import app_id
from dc_platform.orchestration.assets import BRONZE_KEY, TOPIC_KEY, landing_job, silver_events
from dc_platform.registry.database import Database
from dc_platform.registry.leases import LANDING_SLOT, Lease, Leases
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


class _Gauge:
    """Clients that live as long as the code server: connecting each tick would cost more than the
    tick."""

    def __init__(self) -> None:
        self._reader: RecordReader | None = None
        self._silver: LakeTable | None = None
        self._info: TopicInfo | None = None

    def lag(self) -> tuple[int, int]:
        """(records not landed, end of the log as one number)."""
        try:
            return self._lag()
        except PlatformError:
            self.reset()
            raise

    def _lag(self) -> tuple[int, int]:
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
        done = {p: self._silver.txn(app_id(SILVER_EVENTS, self._info, p)) or 0 for p in ends}
        return sum(max(0, end - done[p]) for p, end in ends.items()), sum(ends.values())

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
    description="Starts a landing run when events wait and nobody lands them, and a successor when"
    " a run has become old.",
)
def landing_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """One tick: at most one run."""
    cursor = json.loads(context.cursor or "{}")
    _limit_backfills(context.instance)
    try:
        lag, end = _gauge().lag()
    except PlatformError as error:
        return dg.SensorResult(skip_reason=f"cannot look: {error}")
    # Before the runs: a run that takes the lease in between is younger than what was read.
    last = _leases().last(LANDING_SLOT)
    held: dict[str, float] = cursor.get("held", {})
    starting, held = _judge_runs(context.instance, last, held)
    lease = last if last is not None and last.alive else None
    moved = end != cursor.get("end")
    observe = time.time() - cursor.get("observed", 0) > _OBSERVE_SECONDS and (moved or lag > 0)
    wanted = _wanted(lease, starting, lag, moved)
    events = (
        [dg.AssetObservation(TOPIC_KEY, metadata={"lag (records)": lag, "end": end})]
        if observe
        else []
    )
    observed = time.time() if observe else cursor.get("observed", 0)
    holder = f"run {lease.owner[:8]} holds the lease" if lease else "nobody holds the lease"
    return dg.SensorResult(
        run_requests=[dg.RunRequest()] if wanted else None,
        skip_reason=None if wanted else f"lag {lag} records, {holder}, {len(starting)} starting",
        cursor=json.dumps({"end": end, "observed": observed, "held": held}),
        asset_events=events,
    )


def _limit_backfills(instance: dg.DagsterInstance) -> None:
    """Make the pool known: Dagster lets the first runs of one that it has not met pass unlimited."""
    pool = silver_events.op.pool
    storage = instance.event_log_storage
    if pool and pool not in storage.get_concurrency_keys():
        storage.initialize_concurrency_limit_to_default(pool)


def _wanted(lease: Lease | None, starting: list[str], lag: int, moved: bool) -> bool:
    if starting:
        return False
    if lease is None:
        return lag > 0
    old = lease.held_seconds > settings().landing_run_minutes * 60
    return old and (lag > 0 or moved)


def _judge_runs(
    instance: dg.DagsterInstance, lease: Lease | None, held: dict[str, float]
) -> tuple[list[str], dict[str, float]]:
    """End the landing runs that have died. Gives the ids of those that may still come to life, and,
    of those that Dagster thinks alive, when each was last seen holding the lease (`held`: as of the
    tick before).
    """
    now = time.time()
    starting = []
    seen = {}
    for record in _landing_runs(instance):
        run = record.dagster_run
        if lease is not None and run.run_id == lease.owner:
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
            starting.append(run.run_id)
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
