"""What Dagster loads: assets, checks, sensor, schedule. One process per run: steps share it."""

import dagster as dg

from dc_platform.orchestration.assets import (
    bronze_events,
    landing_job,
    quarantine,
    silver_events,
    topic,
)
from dc_platform.orchestration.backup import backup_job, backup_schedule, lake_backup
from dc_platform.orchestration.checks import CHECKS, checks_job, checks_schedule
from dc_platform.orchestration.gold import gold_job, gold_tables
from dc_platform.orchestration.gold_sensor import gold_sensor
from dc_platform.orchestration.ledger import ops_ledger
from dc_platform.orchestration.maintenance import (
    dagster_storage,
    lake_files,
    maintenance_job,
    maintenance_schedule,
)
from dc_platform.orchestration.priority import yielding_executor
from dc_platform.orchestration.replay import quarantine_replay
from dc_platform.orchestration.search import search_events, search_job, search_sensor
from dc_platform.orchestration.sensor import landing_sensor
from dc_platform.orchestration.tiers import (
    deletion_sensor,
    retention,
    retention_job,
    retention_schedule,
)

defs = dg.Definitions(
    assets=[
        topic,
        bronze_events,
        silver_events,
        quarantine,
        quarantine_replay,
        gold_tables,
        ops_ledger,
        lake_files,
        dagster_storage,
        lake_backup,
        retention,
        search_events,
    ],
    asset_checks=CHECKS,
    jobs=[
        *(landing_job, gold_job, search_job, checks_job),
        *(maintenance_job, retention_job, backup_job),
    ],
    schedules=[checks_schedule, maintenance_schedule, retention_schedule, backup_schedule],
    sensors=[landing_sensor, gold_sensor, deletion_sensor, search_sensor],
    executor=yielding_executor,
)
