"""The promises as asset checks, each with the first findings by name.

Each can be executed by hand in the UI. The job `checks` evaluates all of them and reports without a
run, as the landing run does with its materializations: for Dagster a check speaks of the newest
materialization when both come from the same run, or both from none. Evaluated in runs of their own
they would be "not evaluated" again as soon as landing reports, twice a minute.

What a check costs grows with the events of two days. On schedule each takes a 20th of a core at most:
it waits until then, 15 minutes at most, and its result before, with its time, stands for what was there
then. By hand the job and each check are evaluated at once.
"""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as _EVALUATED,
)
from dagster._core.storage.tags import SCHEDULE_NAME_TAG

from dc_platform.lake import audit, audit_identities
from dc_platform.lake.findings import Finding
from dc_platform.lake.store import Lake
from dc_platform.orchestration.assets import BRONZE_KEY, SILVER_KEY
from dc_platform.orchestration.ledger import balance_ledger
from dc_platform.orchestration.retention import RetentionGuard
from dc_platform.settings import settings

# Ingest dates that a check looks at: yesterday's last minutes still get late duplicates.
_DAYS = 2
# A check costs 2 to 9 CPU seconds per 6,000,000 events, two minutes of 50,000 a second. What takes less
# than 15 is evaluated every five minutes.
_PAUSE = 20
# Commits are compared while they are among the newest 2,000: at two a second, for 17 minutes.
_LONGEST_PAUSE = 900.0
_SECONDS = "CPU seconds"


class Promise(NamedTuple):
    """What holds of an asset when `find` finds nothing."""

    name: str
    asset: dg.AssetKey
    description: str
    find: Callable[[Lake, date], Finding]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR

    def evaluate(self) -> dict[str, Any]:
        """The fields that a result and a reported evaluation have in common."""
        since = (datetime.now(UTC) - timedelta(days=_DAYS - 1)).date()
        begun = time.process_time()
        finding = self.find(Lake(settings().lake), since)
        return {
            "passed": finding.number == 0,
            "severity": self.severity,
            "metadata": {
                "findings": finding.number,
                "examples": dg.MetadataValue.json([_plain(e) for e in finding.examples]),
                _SECONDS: round(time.process_time() - begun, 1),
            },
        }

    def rests(self, instance: dg.DagsterInstance, now: float) -> bool:
        """Whether its evaluation before was too short a time ago for what it took. Epoch seconds."""
        newest = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(self.asset, self.name), limit=1, status=_EVALUATED
        )
        event = newest[0].event if newest else None
        done = event.dagster_event if event else None
        if event is None or done is None:
            return False
        took = done.asset_check_evaluation_data.metadata.get(_SECONDS)
        seconds = took.value if took else None
        if not isinstance(seconds, int | float):
            return False
        return 0 <= now - event.timestamp < min(_PAUSE * seconds, _LONGEST_PAUSE)


def _plain(example: dict[str, object]) -> dict[str, object]:
    return {k: v if isinstance(v, int | float | str | None) else str(v) for k, v in example.items()}


PROMISES: list[Promise | RetentionGuard] = [
    RetentionGuard(),
    Promise(
        "no_offset_gaps",
        BRONZE_KEY,
        "Silver's newest 2,000 commits cover the offsets of each Kafka partition without a hole, and"
        " Kafka never deleted anything that had not landed (ops.gaps). What it no longer had when"
        " landing met a partition is named, and no failure.",
        lambda lake, since: audit.offset_gaps(lake),
    ),
    Promise(
        "unique_event_ids",
        SILVER_KEY,
        "No event is in silver twice.",
        audit_identities.repeated_identities,
    ),
    Promise(
        "reused_event_ids",
        SILVER_KEY,
        "No source used one id for events with different timestamps (a fault of the sender).",
        audit_identities.reused_identities,
        dg.AssetCheckSeverity.WARN,
    ),
    Promise(
        "every_accepted_event_landed",
        SILVER_KEY,
        "Bronze has every record that was polled and every event that the gateways counted into"
        " blocks, as the newest 2,000 commits counted them from the records' headers; silver has"
        " every accepted event of two days.",
        audit.lost_events,
    ),
]


def _check(promise: Promise | RetentionGuard) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=promise.asset, name=promise.name, description=promise.description)
    def check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(**promise.evaluate())

    return check


CHECKS = [_check(promise) for promise in PROMISES]


@dg.op
def evaluate_promises(context: dg.OpExecutionContext) -> None:
    """Evaluates each promise and reports it; on schedule not those that rest."""
    scheduled, now = SCHEDULE_NAME_TAG in context.run_tags, time.time()
    for promise in PROMISES:
        if scheduled and isinstance(promise, Promise) and promise.rests(context.instance, now):
            context.log.info(f"{promise.name}: not yet again, it takes long")
            continue
        evaluation = dg.AssetCheckEvaluation(
            asset_key=promise.asset, check_name=promise.name, **promise.evaluate()
        )
        context.instance.report_runless_asset_event(evaluation)
        context.log.info(f"{promise.name}: {'holds' if evaluation.passed else 'is broken'}")


@dg.job(name="checks", description="All asset checks at once.", tags={"dc_platform/lane": "checks"})
def checks_job() -> None:
    """Evaluates all asset checks, and keeps the ledger."""
    evaluate_promises()
    balance_ledger()


checks_schedule = dg.ScheduleDefinition(
    name="checks_schedule",
    job=checks_job,
    cron_schedule="*/5 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every five minutes: are the promises kept?",
)
