"""What Dagster loads: assets, checks, sensor, schedule. One process per run: steps share it."""

import dagster as dg

from dc_platform.orchestration.assets import (
    bronze_events,
    landing_job,
    quarantine,
    silver_events,
    topic,
)
from dc_platform.orchestration.checks import CHECKS, checks_job, checks_schedule
from dc_platform.orchestration.ledger import ops_ledger
from dc_platform.orchestration.maintenance import (
    dagster_storage,
    lake_files,
    maintenance_job,
    maintenance_schedule,
)
from dc_platform.orchestration.priority import yielding_executor
from dc_platform.orchestration.search import search_events, search_job, search_sensor
from dc_platform.orchestration.sensor import landing_sensor

defs = dg.Definitions(
    assets=[
        topic,
        bronze_events,
        silver_events,
        quarantine,
        ops_ledger,
        lake_files,
        dagster_storage,
        search_events,
    ],
    asset_checks=CHECKS,
    jobs=[landing_job, checks_job, maintenance_job, search_job],
    schedules=[checks_schedule, maintenance_schedule],
    sensors=[landing_sensor, search_sensor],
    executor=yielding_executor,
)
