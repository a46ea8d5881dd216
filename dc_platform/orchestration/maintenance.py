"""Maintenance, every hour: what the tables and Dagster's storage no longer need goes.

Compaction itself is the landing run's work (`landing/compaction.py`): a writer of its own would
conflict with it. What is done here commits nothing, so it never does. It goes by the clock and not by
what silver gets (an automation condition): silver gets news every 30 s while events flow, what is old
becomes so by the hour, and each run imports Dagster for 3 CPU seconds.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, TABLES
from dc_platform.errors import PlatformError
from dc_platform.lake.cleaning import clean, entries_kept
from dc_platform.lake.sizes import sizes
from dc_platform.lake.store import Lake
from dc_platform.orchestration.assets import (
    BRONZE_KEY,
    OWNERS,
    QUARANTINE_KEY,
    SILVER_KEY,
    landing_job,
)
from dc_platform.orchestration.backup import backup_job
from dc_platform.orchestration.checks import checks_job
from dc_platform.orchestration.dagster_storage import prune
from dc_platform.orchestration.gold import gold_job
from dc_platform.orchestration.metadata import figures_schema, figures_table, sizes_plot
from dc_platform.orchestration.search import search_job
from dc_platform.orchestration.tiers import retention_job
from dc_platform.settings import settings

LAKE_FILES_KEY = dg.AssetKey(["ops", "lake_files"])
DAGSTER_STORAGE_KEY = dg.AssetKey(["ops", "dagster_storage"])
_JOB = "maintenance"
# A week of hours in the picture.
_SHOWN = 168
_BY_TABLE = "by table"

_FRESH = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=3), fail_window=timedelta(hours=12)
)
_FILES_COLUMNS = {
    "table": "Name of the table.",
    "files": "Live data files.",
    "rows": "Rows of the live files.",
    "bytes": "Bytes of the live files.",
    "mean_file_bytes": "Bytes of a live file, on average.",
    "log_files": "Files of the table's log.",
    "zstd_ratio": "How many times smaller than the encoded columns before ZSTD.",
    "raw_ratio": "How many times smaller than the events as they were sent; bronze and silver.",
    "row_groups": "Row groups of the live files.",
    "skipped_by_source": "Share of them that a query of one source need not read.",
    "skipped_by_time": "The same of one moment of event time.",
    "files_deleted": "Replaced files and leftovers that went in this run.",
    "bytes_reclaimed": "Bytes of these.",
    "log_deleted": "Log entries that went in this run.",
}
_STORAGE_COLUMNS = {
    "runs": "Old runs of the platform's jobs that were deleted.",
    "events": "Old reports without a run that were deleted.",
}


@dg.asset(
    key=LAKE_FILES_KEY,
    deps=[BRONZE_KEY, SILVER_KEY, QUARANTINE_KEY],
    group_name="ops",
    kinds={"deltalake"},
    owners=OWNERS,
    description="The tables' files: what compaction replaced, what crashes left behind and old log"
    " entries are deleted; files, bytes and compression of each table, over a week.",
    freshness_policy=_FRESH,
    metadata={"dagster/column_schema": figures_schema(_FILES_COLUMNS)},
)
def lake_files(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Cleans each table; one that fails does not keep the others from it."""
    lake = Lake(settings().lake)
    rows: list[dict[str, Any]] = []
    failed = []
    for spec in TABLES:
        if not lake.exists(spec):
            continue
        try:
            done = clean(lake, spec, keep=entries_kept(spec, settings().log_commits))
            found = sizes(lake, spec)
        except PlatformError as error:
            context.log.error(str(error))
            failed.append(spec.name)
            continue
        rows.append(
            {
                "table": spec.name,
                "files": found.files,
                "rows": found.rows,
                "bytes": found.bytes,
                "mean_file_bytes": found.mean_file_bytes,
                "log_files": found.log_files,
                "zstd_ratio": found.ratio(found.encoded),
                "raw_ratio": found.ratio(found.raw),
                "row_groups": found.groups,
                "skipped_by_source": found.skipped.get("source_id", 0.0),
                "skipped_by_time": found.skipped.get("event_time", 0.0),
                "files_deleted": done.files,
                "bytes_reclaimed": done.bytes,
                "log_deleted": done.log_entries,
            }
        )
    if failed:
        raise dg.Failure(
            f"could not clean {', '.join(failed)}: see the log; the next run tries again"
        )
    _compare_silver(rows)
    return dg.MaterializeResult(metadata=_figures(rows, _history(context.instance)))


def _compare_silver(rows: list[dict[str, Any]]) -> None:
    """Silver beside what its events were when they were sent: the mean of bronze's."""
    found = {row["table"]: row for row in rows}
    bronze, silver = found.get(BRONZE_EVENTS.name), found.get(SILVER_EVENTS.name)
    if bronze and silver and bronze["rows"] and silver["bytes"]:
        raw = bronze["raw_ratio"] * bronze["bytes"] / bronze["rows"] * silver["rows"]
        silver["raw_ratio"] = round(raw / silver["bytes"], 2)


def _history(instance: dg.DagsterInstance) -> list[tuple[datetime, dict[str, list[int]]]]:
    """(when, table → [files, bytes]) of the runs before, oldest first."""
    found = []
    for record in instance.fetch_materializations(LAKE_FILES_KEY, limit=_SHOWN).records:
        event = record.asset_materialization
        entry = event.metadata.get(_BY_TABLE) if event else None
        if isinstance(entry, dg.JsonMetadataValue):
            found.append((datetime.fromtimestamp(record.timestamp, UTC), entry.data))
    return found[::-1]  # type: ignore[return-value]


def _figures(
    rows: list[dict[str, Any]], history: list[tuple[datetime, dict[str, list[int]]]]
) -> dict[str, Any]:
    by_table = {row["table"]: [row["files"], row["bytes"]] for row in rows}
    return {
        "dagster/row_count": sum(row["rows"] for row in rows),
        "files deleted": sum(row["files_deleted"] for row in rows),
        "bytes deleted": sum(row["bytes_reclaimed"] for row in rows),
        "log entries deleted": sum(row["log_deleted"] for row in rows),
        "live files": sum(row["files"] for row in rows),
        "live bytes": sum(row["bytes"] for row in rows),
        _BY_TABLE: dg.MetadataValue.json(by_table),
        "tables": figures_table(rows),
        "plot": dg.MetadataValue.md(sizes_plot([*history, (datetime.now(UTC), by_table)])),
    }


@dg.asset(
    key=DAGSTER_STORAGE_KEY,
    group_name="ops",
    kinds={"dagster"},
    owners=OWNERS,
    description="Dagster's own storage: old runs of the platform's jobs and old reports are deleted;"
    " the newest of each asset, partition and check stay.",
    freshness_policy=_FRESH,
    metadata={"dagster/column_schema": figures_schema(_STORAGE_COLUMNS)},
)
def dagster_storage(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Prunes what is older than DCP_DAGSTER_KEEP_DAYS."""
    before = datetime.now(UTC) - timedelta(days=settings().dagster_keep_days)
    done = prune(context.instance, PRUNED_JOBS, before)
    return dg.MaterializeResult(metadata={"runs deleted": done.runs, "events deleted": done.events})


maintenance_job = dg.define_asset_job(
    _JOB,
    selection=dg.AssetSelection.assets(LAKE_FILES_KEY, DAGSTER_STORAGE_KEY),
    description="Deletes what nobody needs; commits nothing.",
)

# Jobs that the platform starts by itself; a test holds that none of them is missing.
PRUNED_JOBS = [
    job.name
    for job in (
        *(landing_job, gold_job, search_job, checks_job),
        *(retention_job, backup_job, maintenance_job),
    )
]

maintenance_schedule = dg.ScheduleDefinition(
    name="maintenance_schedule",
    job=maintenance_job,
    cron_schedule="17 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour, away from the full hour's other work.",
)
