"""The promises as asset checks, each with the first findings by name."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from dc_platform.lake import audit
from dc_platform.lake.audit import Finding
from dc_platform.lake.store import Lake
from dc_platform.orchestration.assets import BRONZE_KEY, LANE, SILVER_KEY
from dc_platform.settings import settings

# Ingest dates that a check looks at: yesterday's last minutes still get late duplicates.
_DAYS = 2


def _lake() -> Lake:
    return Lake(settings().lake)


def _since() -> date:
    return (datetime.now(UTC) - timedelta(days=_DAYS - 1)).date()


def _result(
    finding: Finding, *, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=finding.number == 0,
        severity=severity,
        metadata={
            "findings": finding.number,
            "examples": dg.MetadataValue.json([_plain(e) for e in finding.examples]),
        },
    )


def _plain(example: dict[str, object]) -> dict[str, object]:
    return {k: v if isinstance(v, int | float | str | None) else str(v) for k, v in example.items()}


@dg.asset_check(asset=BRONZE_KEY)
def no_offset_gaps() -> dg.AssetCheckResult:
    """Silver's commits cover the offsets of each Kafka partition without a hole, and Kafka deleted
    nothing that had not landed.
    """
    return _result(audit.offset_gaps(_lake()))


@dg.asset_check(asset=SILVER_KEY)
def unique_event_ids() -> dg.AssetCheckResult:
    """No event is in silver twice."""
    return _result(audit.repeated_identities(_lake(), _since()))


@dg.asset_check(asset=SILVER_KEY)
def reused_event_ids() -> dg.AssetCheckResult:
    """No source used one id for events with different timestamps (a fault of the sender)."""
    finding = audit.reused_identities(_lake(), _since())
    return _result(finding, severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset=SILVER_KEY)
def every_accepted_event_landed() -> dg.AssetCheckResult:
    """Bronze has every event that the gateways counted into blocks, and silver every accepted one."""
    lake, since = _lake(), _since()
    blocks = audit.incomplete_blocks(lake, since)
    events = audit.missing_events(lake, since)
    return _result(Finding(blocks.number + events.number, blocks.examples + events.examples))


CHECKS = [no_offset_gaps, unique_event_ids, reused_event_ids, every_accepted_event_landed]

checks_job = dg.define_asset_job(
    "checks",
    selection=dg.AssetSelection.all_asset_checks(),
    description="All asset checks at once.",
    tags={LANE: "checks"},
)

checks_schedule = dg.ScheduleDefinition(
    name="checks_schedule",
    job=checks_job,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every ten minutes: are the promises kept?",
)
