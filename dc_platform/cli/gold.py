"""`dcp gold`: the aggregates, built and published by hand; what they cover."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of

if TYPE_CHECKING:
    from dc_platform.gold.run import Report
    from dc_platform.settings import Settings


class Target(StrEnum):
    """What dbt runs on."""

    DUCKDB = "duckdb"
    TRINO = "trino"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(help="The aggregates of docs/gold.md.", no_args_is_help=True)
    group.command()(build)
    group.command()(status)
    app.add_typer(group, name="gold")


def build(
    target: Annotated[Target, typer.Option("--target", help="What dbt runs on.")] = Target.DUCKDB,
    hours: Annotated[
        str, typer.Option("--hours", help="Build these hours anew: 2024-05-17T08..2024-05-17T11.")
    ] = "",
    days: Annotated[
        str, typer.Option("--days", help="Build these days anew: 2024-05-17..2024-05-18.")
    ] = "",
    full: Annotated[bool, typer.Option("--full", help="Build every hour anew.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Build what gold lacks, or hours by hand; test it; publish it. Nothing is written when nothing
    differs.

    On Trino the tables of DCP_GOLD_TRINO_CATALOG and DCP_GOLD_TRINO_SCHEMA are written: every hour,
    unless some are named.
    """
    from dc_platform.gold.producers import extras_of
    from dc_platform.gold.run import keep_gold, rebuild_all, rebuild_hours
    from dc_platform.lake.store import Lake
    from dc_platform.points import armed

    span = _span(hours, days, full=full)
    configured = _settings(data_dir)
    lake, cache = Lake(configured.lake), configured.data_dir / "gold"
    reached = armed(configured.crash_at)
    if target is Target.TRINO:
        _on_trino(configured, span, as_json=as_json)
        return
    extras = extras_of(configured)
    if span is not None:
        report = rebuild_hours(lake, cache, *span, extras, reached=reached)
    else:
        report = (rebuild_all if full else keep_gold)(lake, cache, extras, reached=reached)
    _show(report, as_json=as_json)


def status(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Which versions gold covers, and what is pending."""
    from dc_platform.contracts.gold import GOLD_TABLES
    from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE
    from dc_platform.gold.pending import Pinned, date_of, pending
    from dc_platform.lake.store import Lake

    pinned = Pinned(Lake(_settings(data_dir).lake))
    work = pending(pinned)
    answer: dict[str, Any] = {
        "covered": {s.name: pinned.covered(s) for s in (SILVER_EVENTS, SILVER_QUARANTINE)},
        "newest": {name: table.version for name, table in pinned.followed.items()},
        "rows": {s.name: pinned.gold[s.name].snapshot().rows for s in GOLD_TABLES},
        "pendingHours": len(work.hours),
        "pendingDays": [date_of(day).isoformat() for day in sorted(work.days)],
        "everything": work.everything,
    }
    if as_json:
        print(json.dumps(answer))
        return
    for name, version in answer["covered"].items():
        covered = "nothing" if version is None else f"version {version}"
        print(f"{name}: covered {covered}, newest version {answer['newest'][name]}")
    for name, rows in answer["rows"].items():
        print(f"{name}: {rows:,} rows")
    shown = ", ".join(answer["pendingDays"][:10]) or "nothing"
    print(f"pending: {len(work.hours):,} hours; days: {shown}")


def _settings(data_dir: Path | None) -> Settings:
    """Those of the stack in the directory when there is one, else of the environment."""
    from dc_platform.cli.client import stack_info
    from dc_platform.errors import ConfigurationError

    configured = settings_of(data_dir)
    try:
        lake = stack_info(configured.data_dir)["lake"]
    except ConfigurationError:
        return configured
    return settings_of(configured.data_dir, lake_uri=lake)


def _span(hours: str, days: str, *, full: bool) -> tuple[int, int] | None:
    """First and last epoch hour that were named."""
    from dc_platform.errors import ConfigurationError

    if sum((bool(hours), bool(days), full)) > 1:
        raise ConfigurationError("--hours, --days and --full: write one of them")
    if not hours and not days:
        return None
    option, text = ("--hours", hours) if hours else ("--days", days)
    first, dots, last = text.partition("..")
    try:
        ends = [_hour(part, whole_day=bool(days)) for part in (first, last if dots else first)]
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: {error}; write FROM..TO in UTC") from error
    begin, end = ends[0], ends[1] + (23 if days else 0)
    if end < begin:
        raise ConfigurationError(f"{option} {text}: the end is before the beginning")
    return begin, end


def _hour(text: str, *, whole_day: bool) -> int:
    if whole_day:
        return (date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()) * 24
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() // 3600)


def _on_trino(configured: Settings, span: tuple[int, int] | None, *, as_json: bool) -> None:
    from dc_platform.cli.client import trino_url
    from dc_platform.gold.trino import Place, build_on_trino
    from dc_platform.lake.store import Lake

    place = Place(
        trino_url(configured), configured.gold_trino_catalog, configured.gold_trino_schema
    )
    cache = configured.data_dir / "gold"
    outcomes = build_on_trino(Lake(configured.lake), cache, place, span)
    tests = sum(outcome.kind == "test" for outcome in outcomes)
    if as_json:
        print(json.dumps({"catalog": place.catalog, "schema": place.schema, "tests": tests}))
    else:
        print(
            f"{len(outcomes) - tests} tables in {place.catalog}.{place.schema}, {tests} tests hold"
        )


def _show(report: Report, *, as_json: bool) -> None:
    answer: dict[str, Any] = {
        "hours": report.hours,
        "days": len(report.days),
        "rowsRead": report.rows_read,
        "published": {
            name: {
                "days": len(report.changed_days(name)),
                "rows": sum(done.rows for done in of_table),
                "bytes": sum(done.bytes for done in of_table),
            }
            for name, of_table in report.tables.items()
        },
        "tests": sum(outcome.kind == "test" for outcome in report.outcomes),
        "silverVersion": report.silver_version,
        "seconds": report.seconds,
        "cpuSeconds": report.cpu_seconds,
    }
    if as_json:
        print(json.dumps(answer))
        return
    if not report.days:
        print("nothing is pending")
        return
    print(
        f"{report.hours:,} hours of {len(report.days):,} days from silver version"
        f" {report.silver_version}, {answer['tests']} tests hold, {report.seconds:.1f} s"
    )
    for name, done in answer["published"].items():
        print(f"{name}: {done['days']:,} days changed, {done['rows']:,} rows")
