"""The search index as an asset.

A run builds the index up to silver's newest version and stays for some minutes, to build again when
enough has landed: starting a run costs 10 s and three CPU seconds. The sensor starts one when events
wait and none is at work, which the lock of the index tells; Dagster's idea of which runs live is no
evidence (see sensor.py).
"""

import time
from datetime import timedelta
from functools import cache
from typing import Any

import dagster as dg

from dc_platform.errors import CommitConflictError, PlatformError
from dc_platform.orchestration.assets import OWNERS, SILVER_KEY
from dc_platform.orchestration.metadata import figures_schema
from dc_platform.search.build import Behind, Builder, Built
from dc_platform.settings import settings

SEARCH_KEY = dg.AssetKey(["search", "events"])

_TICK_SECONDS = 30
# How long a run stays, how often it looks, and how long it waits for more.
_RUN_SECONDS = 600.0
_LOOK_SECONDS = 5.0
_IDLE_SECONDS = 60.0
# From its creation a run needs some 12 s until it builds.
_STARTING_SECONDS = 100.0
# While events come, one waits for ten minutes at most, and a run reports when it ends.
_FRESH = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=1), fail_window=timedelta(hours=3)
)
_COLUMNS = {
    "words": "Of the event's type, payload and tags: what is searched.",
    "tenant_id": "Tenant of the source; every search has one as a condition.",
    "source_id": "Source that sent the event.",
    "event_type": "What happened, in the source's words.",
    "event_time": "The client's timestamp, in epoch microseconds; results are in its order.",
    "identity": "64 bits of the event's identity.",
    "kafka_partition": "Where the event lies in silver, with the two that follow.",
    "kafka_offset": "Offset of its record.",
    "kafka_index": "Place within the record.",
    "piece": "The file of silver that it was read from, as a number.",
}


@dg.asset(
    key=SEARCH_KEY,
    deps=[SILVER_KEY],
    group_name="search",
    kinds={"tantivy"},
    owners=OWNERS,
    description="The index of the words of silver.events: payloads, types and tags, for POST"
    " /api/v1/search and `dcp search`. It says itself which files of silver it covers; what it does not"
    " have yet is searched beside it. It lies in `search/` of the data directory and can be deleted at"
    " any time: the next run builds it anew.",
    freshness_policy=_FRESH,
    metadata={
        "dagster/column_schema": figures_schema(_COLUMNS),
        "directory": str(settings().data_dir / "search"),
    },
    pool="search_index",
)
def search_events(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Builds until nothing has waited for a minute, ten minutes at most."""
    builder = Builder(settings())
    begun = time.monotonic()
    built = [builder.build()]
    last = time.monotonic()
    while time.monotonic() - begun < _RUN_SECONDS and time.monotonic() - last < _IDLE_SECONDS:
        time.sleep(_LOOK_SECONDS)
        if not builder.behind().is_due(settings()):
            continue
        try:
            built.append(builder.build())
        except CommitConflictError as error:
            # `dcp search rebuild`: what it builds is as good.
            context.log.info(str(error))
        last = time.monotonic()
    sums = {
        "events added": sum(each.added for each in built),
        "files removed": sum(each.removed for each in built),
        "builds": len(built),
    }
    return dg.MaterializeResult(metadata={**_figures(builder, built[-1]), **sums})


def _figures(builder: Builder, built: Built) -> dict[str, Any]:
    return {
        "dagster/row_count": built.documents,
        "silver version": built.version,
        "bytes": builder.home.bytes,
        "segments": built.segments,
        "seconds of the last build": round(built.seconds, 3),
        "files that cannot be read": dg.MetadataValue.json(list(built.unreadable)),
    }


search_job = dg.define_asset_job(
    "search_index",
    selection=dg.AssetSelection.assets(SEARCH_KEY).without_checks(),
    description="Brings the search index up to date.",
)


@cache
def _builder() -> Builder:
    return Builder(settings())


@dg.sensor(
    job=search_job,
    minimum_interval_seconds=_TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run of the search index when events of silver wait for it"
    " (DCP_SEARCH_BEHIND_ROWS, DCP_SEARCH_BEHIND_MINUTES), or were deleted.",
)
def search_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """One tick: at most one run."""
    try:
        behind = _builder().behind()
    except PlatformError as error:
        return dg.SensorResult(skip_reason=f"cannot look: {error}")
    situation = _situation(behind)
    if not behind.is_due(settings()):
        return dg.SensorResult(skip_reason=situation)
    if _builder().home.is_building or _is_starting(context.instance):
        return dg.SensorResult(skip_reason=f"{situation}; a run is at work")
    return dg.SensorResult(run_requests=[dg.RunRequest()])


def _situation(behind: Behind) -> str:
    anew = "; it is to be made anew" if behind.spent else ""
    return (
        f"the index covers silver version {behind.version} of {behind.silver_version},"
        f" {behind.rows} events wait, {behind.gone} files are gone{anew}"
    )


def _is_starting(instance: dg.DagsterInstance) -> bool:
    """Whether a run was started a moment ago, or waits for its place."""
    queued = dg.RunsFilter(job_name=search_job.name, statuses=[dg.DagsterRunStatus.QUEUED])
    if instance.get_run_records(queued, limit=1):
        return True
    newest = instance.get_run_records(dg.RunsFilter(job_name=search_job.name), limit=1)
    age = time.time() - newest[0].create_timestamp.timestamp() if newest else _STARTING_SECONDS
    return age < _STARTING_SECONDS
