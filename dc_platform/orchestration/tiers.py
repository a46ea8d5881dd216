"""`ops/retention`: what is due is deleted and proved, old files move to their tiers. Once a day, and as
soon as somebody asks for a deletion.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import dagster as dg

from dc_platform.contracts.ops_tables import DELETIONS
from dc_platform.orchestration.assets import BRONZE_KEY, OWNERS, QUARANTINE_KEY, SILVER_KEY
from dc_platform.orchestration.metadata import column_schema, tiers_plot
from dc_platform.registry.database import opened
from dc_platform.registry.retention import Deletion, Retention
from dc_platform.retention.deletion import Outcome
from dc_platform.retention.run import RetentionRun
from dc_platform.settings import settings

RETENTION_KEY = dg.AssetKey(["ops", "retention"])
# A deletion that waits (for landing, for readers) is looked at again so often.
_AGAIN_SECONDS = 300


@contextmanager
def _registry() -> Iterator[Retention]:
    with opened(settings().registry) as database:
        yield Retention(database)


# Made once a day; one that fails is noticed the day after.
_FRESH = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=26), fail_window=timedelta(hours=50)
)


@dg.asset(
    key=RETENTION_KEY,
    deps=[BRONZE_KEY, SILVER_KEY, QUARANTINE_KEY],
    group_name="ops",
    kinds={"deltalake"},
    owners=OWNERS,
    description="What the retention policies and deletions by person take away, with the proof that no"
    " file has it any more, and the tiers that old files lie in.",
    freshness_policy=_FRESH,
    metadata={"dagster/column_schema": column_schema(DELETIONS)},
    pool="retention",
)
def retention(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Deletes what is due, finishes what is pending, moves old files."""
    with _registry() as registry:
        run = RetentionRun(settings(), registry)
        outcomes = run.run(who=f"dagster, run {context.run_id}")
        moved = run.move()
        standing = run.standing()
    for outcome in outcomes:
        context.log.info(f"{outcome.deletion.deletion_id}: {outcome.waits or 'finished'}")
    return dg.MaterializeResult(metadata=_metadata(outcomes, len(moved), standing))


def _metadata(
    outcomes: list[Outcome], moved: int, standing: list[dict[str, Any]]
) -> dict[str, Any]:
    sums = {
        f"{name} deleted": sum(getattr(e, name) for o in outcomes for e in o.erased.values())
        for name in ("rows", "files", "bytes")
    }
    tiers = {
        f"{tier} bytes": sum(row["bytes"] for row in standing if row["tier"] == tier)
        for tier in ("hot", "warm", "cold")
    }
    pending = [o.waits for o in outcomes if o.waits is not None]
    return {
        **sums,
        **tiers,
        "dollars a month": round(sum(row["dollars"] for row in standing), 4),
        "groups of files moved": moved,
        "deletions finished": len(outcomes) - len(pending),
        "deletions pending": dg.MetadataValue.json(pending),
        "tables": dg.MetadataValue.md(_table(standing)),
        "plot": dg.MetadataValue.md(tiers_plot(standing)),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]) if rows else []
    lines = [names, ["---"] * len(names), *([str(row[n]) for n in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


retention_job = dg.define_asset_job(
    "retention",
    selection=dg.AssetSelection.assets(RETENTION_KEY),
    description="Deletes what is old or was asked for, and moves old files to their tiers.",
)

retention_schedule = dg.ScheduleDefinition(
    name="retention_schedule",
    job=retention_job,
    cron_schedule="40 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Once a day.",
)


@dg.sensor(
    job=retention_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Carries out the deletions that somebody asked for, and finishes those that waited.",
)
def deletion_sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
    """One run for all that are due; again after five minutes, when they still are."""
    with _registry() as registry:
        due = [d for d in registry.pending() if _is_due(d, time.time())]
    if due:
        newest = due[-1].deletion_id
        yield dg.RunRequest(run_key=f"{newest}-{len(due)}-{int(time.time() // _AGAIN_SECONDS)}")


def _is_due(deletion: Deletion, now: float) -> bool:
    """Whether there is something to do: not while its replaced files are kept for readers."""
    if deletion.deleted_ms is None or deletion.at_once:
        return True
    return now > deletion.deleted_ms / 1000 + settings().removed_files_minutes * 60
