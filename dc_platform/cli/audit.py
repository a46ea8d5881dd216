"""`dcp audit`: does the ledger balance? Made anew from the tables, whatever `ops.ledger` says."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dc_platform.cli.client import stack_or_environment
from dc_platform.cli.options import AsJson, DataDir

if TYPE_CHECKING:
    from dc_platform.settings import Settings

_SHOWN = 50
_COLUMNS = (
    *("received", "landed", "duplicates", "rejected", "sampled_out", "gap", "in_flight", "missing"),
)
# Clocks of gateways may be ahead.
_AHEAD_HOURS = 48


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(audit)


def audit(
    hours: Annotated[
        int, typer.Option("--hours", min=0, help="Only the last so many hours; 0: all.")
    ] = 0,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Compare what was acknowledged with what the tables have, by source and hour.

    Exit code 1 when an acknowledged event is missing or lost, one is there too often, or one is still
    in flight an hour after its hour.
    """
    from dc_platform.lake.balance import balance, pin
    from dc_platform.lake.ledger import with_defaults
    from dc_platform.lake.ledger_findings import reasons_of, totals, unbalanced
    from dc_platform.lake.store import Lake

    configured = stack_or_environment(data_dir)
    lake = Lake(configured.lake)
    doubts = _land_acks(configured, lake)
    now = int(time.time() // 3600)
    wanted = range(now - hours + 1, now + _AHEAD_HOURS) if hours else None
    rows = with_defaults(balance(pin(lake), wanted), _now())
    wrong = unbalanced(rows)
    for doubt in doubts:
        print(f"cannot tell: {doubt}", file=sys.stderr)
    if as_json:
        answer = {
            "balanced": not wrong,
            "cannotTell": doubts,
            "totals": totals(rows),
            "unbalanced": [{**_plain(row), "findings": reasons_of(row)} for row in wrong],
            "rows": [_plain(row) for row in rows.drop_columns("examples").to_pylist()],
        }
        print(json.dumps(answer))
    else:
        _print(rows.to_pylist(), totals(rows), wrong)
    if wrong:
        raise typer.Exit(1)


def _land_acks(configured: Settings, lake: Any) -> list[str]:
    """Bring `ops.acks` up to date; gives why what was acknowledged may be more than that."""
    from dc_platform.errors import RetriableError
    from dc_platform.landing.acks import land_acks

    try:
        return list(land_acks(configured, lake).doubts)
    except RetriableError as error:
        return [f"the newest acknowledgements were not read ({error})"]


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    plain = {k: v for k, v in row.items() if k not in ("hour", "processed_at")}
    since = plain.pop("in_flight_since", None)
    if since:
        plain["in_flight_since"] = since.isoformat()
    if plain.get("examples"):
        plain["examples"] = json.loads(plain["examples"])
    return {"hour": row["hour"].isoformat(), **plain}


def _print(rows: list[dict[str, Any]], sums: dict[str, int], wrong: list[dict[str, Any]]) -> None:
    from dc_platform.lake.ledger_findings import reasons_of

    line = "{:<16} {:<36} " + " ".join(f"{{:>{max(len(c), 10)}}}" for c in _COLUMNS)
    print(line.format("hour (UTC)", "source", *_COLUMNS))
    newest = rows[-_SHOWN:]
    if len(rows) > len(newest):
        print(f"… {len(rows) - len(newest)} earlier rows: --json has all")
    for row in newest:
        hour = row["hour"].strftime("%Y-%m-%d %H:%M")
        print(line.format(hour, str(row["source_id"]), *(f"{row[c]:,}" for c in _COLUMNS)))
    print(line.format("all", "", *(f"{sums[c]:,}" for c in _COLUMNS)))
    for row in wrong[:_SHOWN]:
        print(
            f"source {row['source_id']}, hour {row['hour']:%Y-%m-%d %H:%M}:"
            f" {'; '.join(reasons_of(row))}: {row['missing']} missing, {row['gap']} lost in Kafka,"
            f" {row['in_flight']} in flight: {row['examples']}"
        )
    print(f"balanced: {'no' if wrong else 'yes'}")
