"""Dagster's own storage stays bounded: old runs of the platform's jobs, and old events without a run.

Of each asset, partition and kind the newest event without a run stays, and of each check the newest
evaluation, so nothing that a page shows as the present is lost. Runs that a person started, and
backfills, stay. Dagster purges the ticks of sensors and schedules itself (`retention` in dagster.yaml).
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage

_RUNS_AT_ONCE = 200
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
# What a run's id is in events that are reported without one.
_NO_RUN = ""
_NEWEST = {
    "event_logs": "run_id = '' and timestamp < '{before}' and id not in (select max(id) from"
    " event_logs where run_id = '' group by asset_key, dagster_event_type, partition)",
    "asset_check_executions": "create_timestamp < '{before}' and id not in (select max(id) from"
    " asset_check_executions group by asset_key, check_name, partition)",
    "asset_event_tags": "event_timestamp < '{before}' and event_id not in (select id from event_logs)",
}


class Pruned(NamedTuple):
    """What was deleted."""

    runs: int
    events: int


def prune(instance: dg.DagsterInstance, jobs: list[str], before: datetime) -> Pruned:
    """Delete what is older than `before` (UTC). Safe while runs are going on."""
    return Pruned(_prune_runs(instance, jobs, before), _prune_events(instance, before))


def _prune_runs(instance: dg.DagsterInstance, jobs: list[str], before: datetime) -> int:
    deleted = 0
    for job in jobs:
        old = dg.RunsFilter(job_name=job, statuses=_ENDED, created_before=before)
        while records := instance.get_run_records(old, limit=_RUNS_AT_ONCE):
            for record in records:
                run_id = record.dagster_run.run_id
                instance.delete_run(run_id)
                _remove_shard(instance, run_id)
                deleted += 1
    return deleted


def _remove_shard(instance: dg.DagsterInstance, run_id: str) -> None:
    """In SQLite each run has a file of 130 kB, which Dagster empties and leaves."""
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        path = storage.path_for_shard(run_id)
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").unlink()


def _prune_events(instance: dg.DagsterInstance, before: datetime) -> int:
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    at = before.strftime("%Y-%m-%d %H:%M:%S")
    deleted = 0
    with storage.index_connection() as connection:
        for table, old in _NEWEST.items():
            done = connection.exec_driver_sql(f"delete from {table} where {old.format(before=at)}")
            deleted += done.rowcount
    if isinstance(storage, SqliteEventLogStorage):
        # SQLite has them twice: in the index, and in the file of the run that they do not have.
        with storage.run_connection(_NO_RUN) as connection:
            old = _NEWEST["event_logs"].format(before=at)
            connection.exec_driver_sql(f"delete from event_logs where {old}")
    return deleted
