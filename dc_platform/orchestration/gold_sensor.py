"""The gold sensor: starts a run when silver's commits touched hours that gold does not cover.

A tick reads the logs of silver and quarantine from the covered version on, no data file: some
milliseconds. There is one run at a time, and it gets a third of the time at most: a run of 20 seconds
starts every minute. So on a machine that keeps up, gold has what landed within two minutes.

A run whose worker died with its code server stays STARTED in Dagster for ever. A run holds a lock of
the data directory, which the system takes from the dead: one that has not got it, long after it was
launched, is ended here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import dagster as dg
from filelock import FileLock, Timeout

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import PlatformError
from dc_platform.gold.pending import Pinned, is_pending
from dc_platform.gold.producers import Extras, extras_of
from dc_platform.lake.store import Lake
from dc_platform.settings import settings

_TICK_SECONDS = 15
_SHORTEST_SECONDS = 45.0
_SHARE = 3
# From its launch a run needs 10 to 13 s on two busy cores.
_STARTING_SECONDS = 100.0
JOB = "gold"
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@cache
def extras() -> Extras:
    """What the further tables are made with; the registry is opened once in a process."""
    return extras_of(settings())


def _lock() -> FileLock:
    directory = settings().data_dir.absolute() / "gold"
    directory.mkdir(parents=True, exist_ok=True)
    return FileLock(directory / "run.lock", timeout=0)


@contextmanager
def alive() -> Iterator[None]:
    """A run of gold, for the length of the block. Two at once are safe; only the first is seen."""
    lock = _lock()
    with suppress(Timeout):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def somebody_is_alive() -> bool:
    """Whether a run holds the lock."""
    try:
        with _lock():
            return False
    except Timeout:
        return True


@dg.sensor(
    job_name=JOB,
    minimum_interval_seconds=_TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run of the job `gold` when silver's commits touched hours that gold does not"
    " cover; late events open old hours again.",
)
def gold_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """One tick: at most one run."""
    lake = Lake(settings().lake)
    try:
        if not lake.exists(SILVER_EVENTS) or not _lacks(Pinned(lake)):
            return dg.SensorResult(skip_reason="gold covers all that has landed")
    except PlatformError as error:
        return dg.SensorResult(skip_reason=f"cannot look: {error}")
    why = _must_wait(context.instance)
    if why:
        return dg.SensorResult(skip_reason=why)
    return dg.SensorResult(run_requests=[dg.RunRequest()])


def _lacks(pinned: Pinned) -> bool:
    """Whether silver has hours, or the registry has metrics, that gold lacks."""
    return is_pending(pinned) or extras().differ_from(pinned.metrics_version)


def _must_wait(instance: dg.DagsterInstance) -> str | None:
    now = time.time()
    newest = instance.get_run_records(dg.RunsFilter(job_name=JOB), limit=1)
    running = instance.get_run_records(dg.RunsFilter(job_name=JOB, statuses=_UNFINISHED))
    for record in running:
        run = record.dagster_run
        age = now - record.create_timestamp.timestamp()
        if run.status == dg.DagsterRunStatus.QUEUED or age < _STARTING_SECONDS:
            return f"run {run.run_id[:8]} is starting"
        if somebody_is_alive():
            return f"run {run.run_id[:8]} is at work"
        instance.report_run_failed(run, "The run died: it does not hold gold's lock.")
    if newest:
        record = newest[0]
        took = (record.end_time or 0) - (record.start_time or record.end_time or 0)
        rest = max(_SHORTEST_SECONDS, _SHARE * took)
        left = record.create_timestamp.timestamp() + rest - now
        if 0 < left <= rest:
            return f"hours are pending; the next run may start in {left:.0f} s"
    return None
