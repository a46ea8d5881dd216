"""The ledger as an asset, with the check that it balances.

The job `checks` keeps it, every five minutes, beside the other promises: its process and its import of
Dagster (3 CPU seconds) are there already. It reports the materialization and the check without a run,
so that the one speaks of the other (see checks.py); materialized by hand both come from that run. The
check is blocking: what is built on the ledger is not built on one that does not balance, nor on one
that cannot tell whether it does.
"""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import dagster as dg
import pyarrow as pa

from dc_platform.contracts.ops_tables import LEDGER
from dc_platform.errors import PlatformError
from dc_platform.lake.ledger import is_due, ledger_rows, update_ledger, updated_at
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

log = logging.getLogger(__name__)

LEDGER_KEY = dg.AssetKey(["ops", "ledger"])
BALANCES = "ledger_balances"

_SHOWN = 50
_EXAMPLES = 20
# What the table in the UI shows.
_SHOWN_HOURS = 24
# After it acknowledgements that were not read are tried once more: a broker that restarts is no news.
_AGAIN_SECONDS = 15.0
_COLUMNS = (
    *("received", "landed", "duplicates", "rejected", "sampled_out", "gap", "in_flight", "missing"),
)


class Kept(NamedTuple):
    """What became of one update, in Dagster's terms."""

    metadata: dict[str, Any]
    passed: bool
    findings: dict[str, Any]
    description: str


def keep_ledger(*, at_once: bool = True) -> Kept:
    """Land acknowledgements, bring the ledger up to date, look whether it balances.

    Not `at_once`: the update waits when it would take more than a 20th of the time. Never raises: when
    nobody is told, the result before stands for today's.
    """
    lake = Lake(settings().lake)
    now = datetime.now(UTC)
    metadata: dict[str, Any] = {}
    # The tables can be compared all the same; what was acknowledged since is counted later.
    doubts = _land_acks(lake, metadata)
    rows, as_of = LEDGER.columns.empty_table(), None
    try:
        as_of = _update(lake, now, metadata, at_once=at_once)
    except Exception as error:
        log.exception("the ledger was not brought up to date")
        doubts.append(
            f"the ledger was not brought up to date ({type(error).__name__}: {error}): see the log of"
            " the job `checks`, which tries again in five minutes"
        )
    try:
        as_of = as_of or updated_at(lake)
        rows = ledger_rows(lake, now - timedelta(days=KEPT_DAYS))
        metadata |= _figures(lake, rows, now)
    except Exception as error:
        log.exception("the ledger cannot be read")
        doubts.append(f"the ledger cannot be read ({type(error).__name__}: {error})")
    # As the rows were made: what was in flight then has long landed when the update has to wait.
    made = as_of or now
    wrong = unbalanced(rows, made)
    metadata["as of"] = as_of.isoformat(timespec="seconds") if as_of else "never"
    findings = {
        "findings": len(wrong),
        "cannot tell": dg.MetadataValue.json(doubts),
        "as of": metadata["as of"],
        "examples": dg.MetadataValue.json([_finding(row, made) for row in wrong[:_EXAMPLES]]),
    }
    return Kept(
        metadata, not wrong and not doubts, findings, _said(wrong, doubts, metadata["as of"])
    )


def _land_acks(lake: Lake, metadata: dict[str, Any]) -> list[str]:
    """Gives why what was acknowledged may be more than what is known."""
    for patience in (_AGAIN_SECONDS, 0.0):
        try:
            landed = land_acks(settings(), lake)
        except PlatformError as error:
            why = f"the newest acknowledgements were not read: {error}"
            # The supervisor has a broker that died up again in ten seconds.
            time.sleep(patience)
            continue
        metadata["acknowledgements landed (rows)"] = landed.rows
        return list(landed.doubts)
    return [why]


def _update(
    lake: Lake, now: datetime, metadata: dict[str, Any], *, at_once: bool
) -> datetime | None:
    """Gives now, unless it has to wait."""
    if not at_once and not is_due(lake, now):
        return None
    done = update_ledger(lake, frozen_before=now - timedelta(days=KEPT_DAYS - 1))
    metadata["hours made anew"] = "all" if done.hours is None else done.hours
    return now


def _figures(lake: Lake, rows: pa.Table, now: datetime) -> dict[str, Any]:
    figures = {
        "dagster/row_count": LakeTable(lake, LEDGER).snapshot().rows if lake.exists(LEDGER) else 0,
        **{f"{name} (90 days)": n for name, n in totals(rows).items() if name in _COLUMNS},
    }
    recent = ledger_rows(lake, now - timedelta(hours=_SHOWN_HOURS)).to_pylist()
    return figures | ({"hours": _table(recent[-_SHOWN:])} if recent else {})


def _said(wrong: list[dict[str, Any]], doubts: list[str], as_of: str) -> str:
    """The check's result in words."""
    said = []
    if wrong:
        said.append(
            f"{len(wrong)} sources and hours do not balance: the examples name blocks and events, `dcp"
            " audit` all of them; docs/architecture.md, decision 11, says what each figure means"
        )
    said += [f"Cannot tell: {doubt}" for doubt in doubts]
    return ". ".join([*said, f"As of {as_of}"])


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


def _finding(row: dict[str, Any], now: datetime) -> dict[str, Any]:
    return {
        "source": row["source_id"],
        "hour": row["hour"].isoformat(timespec="minutes"),
        "what": "; ".join(reasons_of(row, now)),
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
    # Every five minutes; of very many events every fifteen.
    freshness_policy=dg.FreshnessPolicy.time_window(
        warn_window=timedelta(minutes=30), fail_window=timedelta(hours=1)
    ),
    metadata={"dagster/column_schema": column_schema(LEDGER)},
    check_specs=[
        dg.AssetCheckSpec(
            BALANCES,
            asset=LEDGER_KEY,
            blocking=True,
            description="Every event that Kafka acknowledged to a gateway is in a table or on its way;"
            " what is missing is named by source and hour. It fails, too, when that cannot be told.",
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
        description=kept.description,
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
            description=kept.description,
        )
    )
    context.log.info(kept.description)
