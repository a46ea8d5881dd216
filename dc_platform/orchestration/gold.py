"""Gold as assets: three tables that one run builds, tests with dbt and publishes together.

`gold_sensor` looks at silver's commits. When hours are pending it starts the job `gold`, one run at a
time, which reports its materializations and checks without a run (as the job `checks` does, see there)
for the days that it changed. Materializing days by hand, or a backfill, builds the hours of these days
anew from silver, in a single run, and changes no byte when nothing changed.

The specs come from the tables' contracts and dbt's own schema.yml; a test holds that dbt's manifest
says the same. dagster-dbt's decorator would say it, too, and costs 1.2 CPU seconds and 80 MB in each
process that loads the definitions: in the code server, and in every landing run.
"""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from dc_platform.contracts.gold import (
    DBT_TABLES,
    EVENT_TYPES_TOP,
    EVENTS_HOURLY,
    GOLD_TABLES,
    SOURCES_DAILY,
    GoldSpec,
)
from dc_platform.errors import RetriableError
from dc_platform.gold.dbt import AuditError, Outcome
from dc_platform.gold.pending import date_of, epoch_day
from dc_platform.gold.project import project_directory
from dc_platform.gold.run import Report, keep_gold, rebuild_hours
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.orchestration.assets import DAYS, OWNERS, QUARANTINE_KEY, SILVER_KEY
from dc_platform.orchestration.gold_sensor import JOB, alive, extras
from dc_platform.orchestration.metadata import column_schema
from dc_platform.points import armed
from dc_platform.settings import settings

LANE = {"dc_platform/lane": "gold"}
# What holds is said again after so long; what no longer holds, or holds again, at once. Each report
# is a row of Dagster's storage, and takes 0.1 s.
_SAY_AGAIN_SECONDS = 600.0
# A run with less than this many days names each of them in Dagster.
_DAYS_SHOWN = 100
_FRESH = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(minutes=15), fail_window=timedelta(minutes=60)
)


def key_of(spec: GoldSpec) -> dg.AssetKey:
    """gold.events_hourly → gold/events_hourly."""
    return dg.AssetKey(spec.name.split("."))


_DEPS: dict[str, list[dg.AssetKey]] = {
    EVENTS_HOURLY.name: [SILVER_KEY],
    SOURCES_DAILY.name: [key_of(EVENTS_HOURLY), SILVER_KEY, QUARANTINE_KEY],
    EVENT_TYPES_TOP.name: [key_of(EVENTS_HOURLY)],
}


def _spec(spec: GoldSpec) -> dg.AssetSpec:
    return dg.AssetSpec(
        key_of(spec),
        deps=_DEPS.get(spec.name, [SILVER_KEY]),
        description=spec.description
        + " Materializing days builds their hours anew from silver, and"
        " changes nothing when nothing changed.",
        partitions_def=DAYS,
        group_name="gold",
        kinds={"dbt" if spec in DBT_TABLES else "python", "duckdb", "deltalake"},
        owners=OWNERS,
        freshness_policy=_FRESH,
        metadata={"dagster/column_schema": column_schema(spec)},
    )


def _check_specs() -> list[dg.AssetCheckSpec]:
    """dbt's tests."""
    file = project_directory() / "models" / "gold" / "schema.yml"
    models = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return [
        dg.AssetCheckSpec(
            test["name"],
            asset=dg.AssetKey(["gold", model["name"]]),
            description=test["description"],
            blocking=True,
        )
        for model in models["models"]
        for entry in model["data_tests"]
        for test in entry.values()
    ]


CHECK_SPECS = _check_specs()


@dg.multi_asset(
    name="gold_tables",
    specs=[_spec(spec) for spec in GOLD_TABLES],
    check_specs=CHECK_SPECS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="gold_backfill",
)
def gold_tables(
    context: dg.AssetExecutionContext,
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Builds the hours of the days anew."""
    window = context.partition_time_window
    first, last = epoch_day(window.start.date()), epoch_day(window.end.date()) - 1
    try:
        report = rebuild_hours(_lake(), _cache(), first * 24, last * 24 + 23, extras())
    except AuditError as error:
        yield from (dg.AssetCheckResult(**fields) for fields in _results(error.outcomes))
        raise dg.Failure(str(error)) from error
    for spec in GOLD_TABLES:
        yield dg.MaterializeResult(asset_key=key_of(spec), metadata=_metadata(spec, report))
    outcomes = report.outcomes or [
        Outcome("test", check.name, "pass", 0.0, 0, "no hour to build") for check in CHECK_SPECS
    ]
    yield from (dg.AssetCheckResult(**fields) for fields in _results(outcomes))


@dg.op
def build_gold(context: dg.OpExecutionContext) -> None:
    """Builds and publishes what gold lacks, and reports it."""
    try:
        with alive():
            report = keep_gold(_lake(), _cache(), extras(), reached=armed(settings().crash_at))
    except AuditError as error:
        _report_checks(context.instance, error.outcomes)
        raise dg.Failure(str(error)) from error
    except RetriableError as error:
        raise dg.Failure(f"{error}; the sensor tries again") from error
    for event in materializations(report):
        context.instance.report_runless_asset_event(event)
    _report_checks(context.instance, report.outcomes)
    context.log.info(
        f"{report.hours} hours of {len(report.days)} days from silver version {report.silver_version}:"
        f" {report.rows} rows published, {report.seconds} s"
    )


@dg.job(name=JOB, description="Builds the hours that silver's commits touched.", tags=LANE)
def gold_job() -> None:
    """What gold lacks."""
    build_gold()


def materializations(report: Report) -> Iterator[dg.AssetMaterialization]:
    """A report per table and day that changed; one per table when it is very many days."""
    for spec in GOLD_TABLES:
        changed = report.changed_days(spec.name)
        names = {day: date_of(day).isoformat() for day in changed}
        partitions = [day for day in changed if DAYS.has_partition_key(names[day])]
        metadata = _metadata(spec, report)
        if len(partitions) > _DAYS_SHOWN or (changed and not partitions):
            yield dg.AssetMaterialization(key_of(spec), metadata=metadata)
            continue
        for day in sorted(partitions):
            yield dg.AssetMaterialization(
                key_of(spec),
                partition=names[day],
                metadata={**metadata, "dagster/partition_row_count": changed[day]},
            )


def _metadata(spec: GoldSpec, report: Report) -> dict[str, Any]:
    published = report.tables.get(spec.name, [])
    table = LakeTable(_lake(), spec)
    return {
        "dagster/row_count": table.snapshot().rows,
        "rows published": sum(done.rows for done in published),
        "bytes published": sum(done.bytes for done in published),
        "days changed": len(report.changed_days(spec.name)),
        "hours rebuilt": report.hours,
        "rows of silver that touched them": report.rows_read,
        "silver version": report.silver_version,
        "seconds": report.seconds,
        "CPU seconds": report.cpu_seconds,
    }


def _results(outcomes: list[Outcome]) -> Iterator[dict[str, Any]]:
    """The fields that a result and a reported evaluation have in common; a build of several parts has
    each test several times, of which the worst counts.
    """
    worst: dict[str, Outcome] = {}
    for outcome in outcomes:
        before = worst.get(outcome.name)
        if outcome.kind == "test" and (before is None or before.good):
            worst[outcome.name] = outcome
    for check in CHECK_SPECS:
        found = worst.get(check.name)
        # What dbt skipped, because something before it is wrong, was not tested.
        if found is None or found.status == "skipped":
            continue
        yield {
            "asset_key": check.asset_key,
            "check_name": check.name,
            "passed": found.good,
            "severity": dg.AssetCheckSeverity.ERROR,
            "metadata": {"rows that break it": found.failures, "seconds": found.seconds},
            "description": found.message or None,
        }


def _report_checks(instance: dg.DagsterInstance, outcomes: list[Outcome]) -> None:
    """Report what changed, and what was not said for long."""
    results = list(_results(outcomes))
    keys = [dg.AssetCheckKey(r["asset_key"], r["check_name"]) for r in results]
    known = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key, fields in zip(keys, results, strict=True):
        record = known.get(key)
        if record is not None and record.event is not None and fields["passed"]:
            said = record.event.dagster_event
            recent = time.time() - record.event.timestamp < _SAY_AGAIN_SECONDS
            if recent and said and said.asset_check_evaluation_data.passed:
                continue
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(**fields, blocking=True))


def _lake() -> Lake:
    return Lake(settings().lake)


def _cache() -> Path:
    return settings().data_dir.absolute() / "gold"
