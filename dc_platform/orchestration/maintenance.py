"""Maintenance, every hour: what the tables and Dagster's storage no longer need goes.

Compaction itself is the landing run's work (`landing/compaction.py`): a writer of its own would
conflict with it. What is done here commits nothing, so it never does.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from dc_platform.contracts.tables import TABLES
from dc_platform.errors import PlatformError
from dc_platform.lake.cleaning import clean, entries_kept
from dc_platform.lake.store import Lake
from dc_platform.orchestration.assets import BRONZE_KEY, OWNERS, SILVER_KEY, landing_job
from dc_platform.orchestration.checks import checks_job
from dc_platform.orchestration.dagster_storage import prune
from dc_platform.orchestration.search import search_job
from dc_platform.settings import settings

LAKE_FILES_KEY = dg.AssetKey(["ops", "lake_files"])
DAGSTER_STORAGE_KEY = dg.AssetKey(["ops", "dagster_storage"])
_JOB = "maintenance"


@dg.asset(
    key=LAKE_FILES_KEY,
    deps=[BRONZE_KEY, SILVER_KEY],
    group_name="ops",
    kinds={"deltalake"},
    owners=OWNERS,
    description="The tables' files: what compaction replaced, what crashes left behind and old log"
    " entries are deleted.",
)
def lake_files(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Cleans each table; one that fails does not keep the others from it."""
    lake = Lake(settings().lake)
    rows, failed = [], []
    for spec in TABLES:
        if not lake.exists(spec):
            continue
        try:
            done = clean(lake, spec, keep=entries_kept(spec, settings().log_commits))
        except PlatformError as error:
            context.log.error(str(error))
            failed.append(spec.name)
            continue
        rows.append({"table": spec.name, **done._asdict()})
    if failed:
        raise dg.Failure(
            f"could not clean {', '.join(failed)}: see the log; the next run tries again"
        )
    return dg.MaterializeResult(metadata=_figures(rows))


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(rows[0]) if rows else []
    lines = [names, ["---"] * len(names), *([str(row[n]) for n in names] for row in rows)]
    return {
        "files deleted": sum(row["files"] for row in rows),
        "bytes deleted": sum(row["bytes"] for row in rows),
        "log entries deleted": sum(row["log_entries"] for row in rows),
        "live files": sum(row["live_files"] for row in rows),
        "live bytes": sum(row["live_bytes"] for row in rows),
        "tables": dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines)),
    }


@dg.asset(
    key=DAGSTER_STORAGE_KEY,
    group_name="ops",
    kinds={"dagster"},
    owners=OWNERS,
    description="Dagster's own storage: old runs of the platform's jobs and old reports are deleted;"
    " the newest of each asset, partition and check stay.",
)
def dagster_storage(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Prunes what is older than DCP_DAGSTER_KEEP_DAYS."""
    before = datetime.now(UTC) - timedelta(days=settings().dagster_keep_days)
    done = prune(
        context.instance, [landing_job.name, checks_job.name, search_job.name, _JOB], before
    )
    return dg.MaterializeResult(metadata={"runs deleted": done.runs, "events deleted": done.events})


maintenance_job = dg.define_asset_job(
    _JOB,
    selection=dg.AssetSelection.assets(LAKE_FILES_KEY, DAGSTER_STORAGE_KEY),
    description="Deletes what nobody needs; commits nothing.",
)

maintenance_schedule = dg.ScheduleDefinition(
    name="maintenance_schedule",
    job=maintenance_job,
    cron_schedule="17 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour, away from the full hour's other work.",
)
