"""The assets: the Kafka topic, bronze, silver, quarantine.

Bronze is materialized by the long landing run, which writes silver and quarantine in the same breath
and reports them for the ingest days that it touched. Materializing silver itself is the backfill: a
day is built anew from bronze.
"""

import time
import warnings
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake.store import Lake
from dc_platform.landing.backfill import backfill_silver
from dc_platform.orchestration.landing_run import LandingReport, LandingRun
from dc_platform.orchestration.metadata import column_schema, figures_schema, landing_metadata
from dc_platform.settings import settings

TOPIC_KEY = dg.AssetKey(["kafka", "events"])
BRONZE_KEY = dg.AssetKey(["bronze", "events"])
SILVER_KEY = dg.AssetKey(["silver", "events"])
QUARANTINE_KEY = dg.AssetKey(["silver", "quarantine"])

# Pinned in requirements.lock; each process would say it at its import.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", category=dg.BetaWarning)

OWNERS = ["team:data-platform"]
# The tag of a run that lands a slot.
SLOT_TAG = "dc_platform/slot"

# One partition per ingest date, UTC; hours are rows (an hourly key per hour since 2000 would pass
# Dagster's 100,000). Today is a partition from its first minute on.
DAYS = dg.DailyPartitionsDefinition(start_date="2000-01-01", end_offset=1)

# Days of a backfill that one run builds: importing Dagster costs more than a day that did not change.
# Not all of them: when one fails, the days of its run are to be done again.
_DAYS_PER_RUN = 7

# A landing run reports every 30 s while events flow. Dagster's floor is one minute.
_FRESH = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(minutes=10), fail_window=timedelta(minutes=30)
)

topic = dg.AssetSpec(
    TOPIC_KEY,
    description="The write-ahead log: every acknowledged event is here first (acks=all). Blocks of"
    " NDJSON from the gateway, records of any producer.",
    group_name="broker",
    kinds={"kafka"},
    owners=OWNERS,
    metadata={
        "topic": settings().topic,
        "bootstrap": settings().kafka_bootstrap,
        "dagster/column_schema": figures_schema(
            {
                "key": "The source, where a record has events of one source alone.",
                "value": "Events: NDJSON of a gateway, Arrow, or any producer's JSON.",
                "headers": "content-type, and of a gateway: tenant, schema version, verdict, block.",
                "timestamp": "When Kafka appended the record.",
            }
        ),
    },
)


class LandingConfig(dg.Config):
    """What a landing run may be told."""

    slot: int | None = Field(
        None, ge=0, description="Landing slot; none: the first that nobody lands."
    )


@dg.asset(
    key=BRONZE_KEY,
    deps=[TOPIC_KEY],
    group_name="bronze",
    kinds={"deltalake"},
    owners=OWNERS,
    description=BRONZE_EVENTS.description + " Materialized by a long landing run, which commits"
    " bronze, quarantine and silver of one landing slot; starting another one of the slot hands over"
    " to it.",
    freshness_policy=_FRESH,
    metadata={"dagster/column_schema": column_schema(BRONZE_EVENTS)},
)
def bronze_events(
    context: dg.AssetExecutionContext, config: LandingConfig
) -> dg.MaterializeResult[None]:
    """Lands a slot until it is handed over, stopped or idle."""

    def report(current: LandingReport) -> None:
        # Events without a run: asset checks that are evaluated elsewhere then stand beside them
        # (see checks.py). The metadata names the run.
        bronze = dg.AssetMaterialization(BRONZE_KEY, metadata=_metadata(current, context.run_id))
        for event in (bronze, *silver_materializations(current, context.run_id)):
            context.instance.report_runless_asset_event(event)

    run = LandingRun(
        settings(), context.run_id, slot=config.slot, log=context.log.info, report=report
    )
    # Of runs that were started by hand the sensor learns it from this.
    context.instance.add_run_tags(context.run_id, {SLOT_TAG: str(run.slot.number)})
    final = run.run()
    for event in silver_materializations(final, context.run_id):
        context.instance.report_runless_asset_event(event)
    ended = final.ended or ""
    return dg.MaterializeResult(metadata={**_metadata(final, context.run_id), "ended": ended})


@dg.asset(
    key=SILVER_KEY,
    deps=[BRONZE_KEY],
    partitions_def=DAYS,
    group_name="silver",
    kinds={"deltalake"},
    owners=OWNERS,
    description=SILVER_EVENTS.description
    + " Written by the landing run; materializing a day builds"
    " it anew from bronze, and changes nothing when nothing changed.",
    freshness_policy=_FRESH,
    metadata={"dagster/column_schema": column_schema(SILVER_EVENTS)},
    pool="silver_events_backfill",
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=_DAYS_PER_RUN),
)
def silver_events(context: dg.AssetExecutionContext) -> None:
    """Builds ingest dates of silver from bronze, one after the other."""
    for key in context.partition_keys:
        begun, cpu = time.monotonic(), time.process_time()
        done = backfill_silver(Lake(settings().lake), date.fromisoformat(key))
        metadata = {
            "dagster/partition_row_count": done.after,
            "rows before": done.before,
            "added": done.added,
            "removed": done.removed,
            "changed": done.version is not None,
            "seconds": round(time.monotonic() - begun, 3),
            "CPU seconds": round(time.process_time() - cpu, 3),
            # Of the whole run so far: its process, its import of Dagster, the days before.
            "CPU seconds of the run": round(time.process_time(), 3),
        }
        context.add_asset_metadata(metadata, asset_key=SILVER_KEY, partition_key=key)
        context.log.info(f"{key}: {metadata}")


landing_job = dg.define_asset_job(
    "landing",
    selection=dg.AssetSelection.assets(BRONZE_KEY).without_checks(),
    description="One long landing run of a slot.",
)

quarantine = dg.AssetSpec(
    QUARANTINE_KEY,
    deps=[BRONZE_KEY],
    partitions_def=DAYS,
    group_name="silver",
    kinds={"deltalake"},
    owners=OWNERS,
    description=SILVER_QUARANTINE.description + " Written by the landing run.",
    metadata={"dagster/column_schema": column_schema(SILVER_QUARANTINE)},
)


def landing_request(slot: int) -> dg.RunRequest:
    """A landing run of the slot."""
    config = dg.RunConfig(ops={bronze_events.op.name: LandingConfig(slot=slot)})
    return dg.RunRequest(run_config=config, tags={SLOT_TAG: str(slot)})


def silver_materializations(
    current: LandingReport, run_id: str
) -> Iterator[dg.AssetMaterialization]:
    """The landing run's reports about silver and quarantine, by ingest day."""
    totals = current.totals
    if not totals.commits:
        return
    rows = current.rows
    for day in sorted(totals.days):
        metadata: dict[str, Any] = {
            "landing slot": str(current.slot),
            "landed by this run": totals.landed,
            "duplicates kept out by this run": totals.duplicates,
            "silver version": totals.silver_version,
            "landing run": dg.MetadataValue.dagster_run(run_id),
        }
        if rows is not None:
            metadata["dagster/partition_row_count"] = rows.silver.get(day, 0)
            metadata["dagster/row_count"] = sum(rows.silver.values())
            metadata["bytes of the table"] = rows.bytes[1]
        yield dg.AssetMaterialization(SILVER_KEY, partition=day, metadata=metadata)
        if totals.rejected and rows is not None:
            metadata = {
                "rejected in this run": totals.rejected,
                "dagster/partition_row_count": rows.quarantine.get(day, 0),
                "dagster/row_count": sum(rows.quarantine.values()),
                "bytes of the table": rows.bytes[2],
            }
            yield dg.AssetMaterialization(QUARANTINE_KEY, partition=day, metadata=metadata)


def _metadata(current: LandingReport, run_id: str) -> dict[str, Any]:
    metadata = landing_metadata(
        current.totals,
        slot=str(current.slot),
        lag=current.lag,
        seconds=current.seconds,
        table_rows=current.rows.bronze if current.rows else None,
    )
    if current.rows:
        metadata["bytes of the table"] = current.rows.bytes[0]
    return {**metadata, "landing run": dg.MetadataValue.dagster_run(run_id)}
