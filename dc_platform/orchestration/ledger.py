"""The ledger as an asset, with the check that it balances.

The job `checks` keeps it, every five minutes, beside the other promises: its process and its import of
Dagster (3 CPU seconds) are there already. It reports the materialization and the check without a run,
so that the one speaks of the other (see checks.py); materialized by hand both come from that run. The
check is blocking: what is built on the ledger is not built on one that does not balance.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import dagster as dg

from dc_platform.contracts.tables import LEDGER
from dc_platform.errors import PlatformError
from dc_platform.lake.ledger import is_due, ledger_rows, update_ledger
from dc_platform.lake.ledger_findings import reasons_of, totals, unbalanced
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.acks import KEPT_DAYS, land_acks
from dc_platform.orchestration.assets import (
    BRONZE_KEY,
    OWNERS,
    QUARANTINE_KEY,
    SILVER_KEY,
    TOPIC_KEY,
)
from dc_platform.orchestration.metadata import column_schema
from dc_platform.settings import settings

LEDGER_KEY = dg.AssetKey(["ops", "ledger"])
BALANCES = "ledger_balances"

_SHOWN = 50
_EXAMPLES = 20
# What the table in the UI shows.
_SHOWN_HOURS = 24
_COLUMNS = ("received", "landed", "duplicates", "rejected", "gap", "in_flight", "missing")


class Kept(NamedTuple):
    """What became of one update, in Dagster's terms."""

    metadata: dict[str, Any]
    passed: bool
    findings: dict[str, Any]


def keep_ledger(*, at_once: bool = True) -> Kept:
    """Land acknowledgements, bring the ledger up to date, look whether it balances.

    Not `at_once`: the update waits when it would take more than a 20th of the time.
    """
    configured = settings()
    lake = Lake(configured.lake)
    now = datetime.now(UTC)
    metadata: dict[str, Any] = {}
    try:
        metadata["acknowledgements landed (rows)"] = land_acks(configured, lake).rows
    except PlatformError as error:
        # The tables can be compared all the same; what was acknowledged since is counted later.
        metadata["acknowledgements"] = f"not read: {error}"
    if at_once or is_due(lake, now):
        done = update_ledger(lake, frozen_before=now - timedelta(days=KEPT_DAYS - 1))
        metadata["hours made anew"] = "all" if done.hours is None else done.hours
    rows = ledger_rows(lake, now - timedelta(days=KEPT_DAYS))
    wrong = unbalanced(rows)
    recent = ledger_rows(lake, now - timedelta(hours=_SHOWN_HOURS)).to_pylist()
    metadata |= {
        "dagster/row_count": LakeTable(lake, LEDGER).snapshot().rows,
        **{f"{name} (90 days)": n for name, n in totals(rows).items() if name in _COLUMNS},
    }
    if recent:
        metadata["hours"] = _table(recent[-_SHOWN:])
    findings = {
        "findings": len(wrong),
        "examples": dg.MetadataValue.json([_finding(row) for row in wrong[:_EXAMPLES]]),
    }
    return Kept(metadata, not wrong, findings)


def _table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "hour": row["hour"].isoformat(timespec="minutes"),
                    "source": str(row["source_id"]),
                    **{name: row[name] for name in _COLUMNS},
                }
            )
            for row in rows
        ]
    )


def _finding(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": row["source_id"],
        "hour": row["hour"].isoformat(timespec="minutes"),
        "what": "; ".join(reasons_of(row)),
        "missing": row["missing"],
        "in flight": row["in_flight"],
        "lost in Kafka": row["gap"],
        "received": row["received"],
        "examples": row["examples"],
    }


@dg.asset(
    key=LEDGER_KEY,
    deps=[TOPIC_KEY, BRONZE_KEY, SILVER_KEY, QUARANTINE_KEY],
    group_name="ops",
    kinds={"deltalake"},
    owners=OWNERS,
    description=LEDGER.description + " Kept up to date by the job `checks`.",
    metadata={"dagster/column_schema": column_schema(LEDGER)},
    check_specs=[
        dg.AssetCheckSpec(
            BALANCES,
            asset=LEDGER_KEY,
            blocking=True,
            description="Every event that Kafka acknowledged to a gateway is in a table or on its way;"
            " what is missing is named by source and hour.",
        )
    ],
)
def ops_ledger() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Brings the ledger up to date."""
    kept = keep_ledger()
    yield dg.MaterializeResult(metadata=kept.metadata)
    yield dg.AssetCheckResult(
        check_name=BALANCES,
        passed=kept.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata=kept.findings,
    )


@dg.op
def balance_ledger(context: dg.OpExecutionContext) -> None:
    """Brings the ledger up to date and reports it."""
    kept = keep_ledger(at_once=False)
    context.instance.report_runless_asset_event(
        dg.AssetMaterialization(LEDGER_KEY, metadata=kept.metadata)
    )
    context.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=LEDGER_KEY,
            check_name=BALANCES,
            passed=kept.passed,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata=kept.findings,
            blocking=True,
        )
    )
    context.log.info(f"the ledger {'balances' if kept.passed else 'does not balance'}")
