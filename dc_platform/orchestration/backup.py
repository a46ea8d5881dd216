"""Backups as an asset: each night one, once DCP_BACKUP_URI says where to (docs/backup.md)."""

import time
from datetime import timedelta

import dagster as dg

from dc_platform.backup.create import create_backup
from dc_platform.backup.run import backups_of
from dc_platform.lake.store import Lake
from dc_platform.orchestration.assets import BRONZE_KEY, OWNERS, QUARANTINE_KEY, SILVER_KEY
from dc_platform.orchestration.metadata import figures_schema, figures_table
from dc_platform.settings import settings

BACKUP_KEY = dg.AssetKey(["ops", "backup"])
_COLUMNS = {
    "table": "Name of the table.",
    "version": "Its version in the backup.",
    "rows": "Rows at that version.",
    "files": "Data files at that version.",
    "bytes": "Bytes of these files, those that former backups have, too.",
}
_NIGHT = "41 2 * * *"


@dg.asset(
    key=BACKUP_KEY,
    deps=[BRONZE_KEY, SILVER_KEY, QUARANTINE_KEY],
    group_name="ops",
    kinds={"deltalake"},
    owners=OWNERS,
    description="A consistent copy of the tables and the registry in DCP_BACKUP_URI; what a former"
    " backup has is not copied again. The newest DCP_BACKUP_KEEP stay.",
    # Without a place for backups there is none to be fresh.
    freshness_policy=dg.FreshnessPolicy.time_window(
        warn_window=timedelta(hours=26), fail_window=timedelta(hours=50)
    )
    if settings().backups
    else None,
    metadata={"dagster/column_schema": figures_schema(_COLUMNS)},
)
def lake_backup() -> dg.MaterializeResult[None]:
    """Makes a backup, then removes the oldest ones."""
    begun, cpu = time.monotonic(), time.process_time()
    configured = settings()
    backups = backups_of(configured)
    made = create_backup(
        Lake(configured.lake), configured.registry, backups, keep=configured.backup_keep
    )
    rows = [
        {
            "table": name,
            "version": table.version,
            "rows": table.rows,
            "files": len(table.files),
            "bytes": sum(kept.size for kept in table.files.values()),
        }
        for name, table in made.tables.items()
    ]
    return dg.MaterializeResult(
        metadata={
            "backup": made.name,
            "silver version": made.silver_version,
            "dagster/row_count": made.rows,
            "bytes": made.bytes,
            "new files": made.new_files,
            "new bytes": made.new_bytes,
            "registry": made.registry,
            "backups": len(backups.list()),
            "tables": figures_table(rows),
            "seconds": round(time.monotonic() - begun, 3),
            "CPU seconds": round(time.process_time() - cpu, 3),
        }
    )


backup_job = dg.define_asset_job(
    "backup",
    selection=dg.AssetSelection.assets(BACKUP_KEY),
    description="Copies the lake; landing goes on.",
)

backup_schedule = dg.ScheduleDefinition(
    name="backup_schedule",
    job=backup_job,
    cron_schedule=_NIGHT,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING
    if settings().backups
    else dg.DefaultScheduleStatus.STOPPED,
    description="Each night, once DCP_BACKUP_URI says where to.",
)
