"""120 days of flights and telemetry: what the tiers make of them, and that every engine reads across
their borders. The figures of docs/retention.md are printed by this test.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, TableSpec
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, table_sql
from dc_platform.retention.tiers import bytes_by_tier
from dc_platform.stack import ports
from dc_platform.stack.trino import LocalTrino
from dc_platform_tests.helpers.compaction import compact_all
from dc_platform_tests.helpers.days import land_days
from dc_platform_tests.helpers.landing import committer
from dc_platform_tests.helpers.retention import registry, run_of

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAYS = 120
PER_DAY = 3_000
SPECS = (SILVER_EVENTS, BRONZE_EVENTS)
# Days are in each tier, and some near each border.
BY_DAY = (
    "select cast(date_trunc('day', event_time) as date) as day, event_type, count(*),"
    " count(distinct event_id), sum(length(payload)) from {} group by 1, 2 order by 1, 2"
)
NEEDLE = "select count(*) from {} where event_type = 'cpu' and event_time between {} and {}"


def in_duckdb(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    rows = f"({table_sql(SILVER_EVENTS, LakeTable(lake, SILVER_EVENTS).snapshot())})"
    with scratch() as connection:
        return connection.execute(sql.replace("{}", rows, 1)).fetchall()


def between(first: datetime, last: datetime, literal: str) -> str:
    times = [literal.format(at.strftime("%Y-%m-%d %H:%M:%S")) for at in (first, last)]
    return NEEDLE.replace("between {} and {}", f"between {times[0]} and {times[1]}")


def sizes(lake: Lake) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["table"], row["tier"]): row for row in bytes_by_tier(lake)}


@pytest.mark.lakehouse
@pytest.mark.trino
@pytest.mark.timeout(1800)
def test_retention_and_tiers_on_120_days(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    raw = land_days(lake, TODAY - timedelta(days=DAYS), DAYS, PER_DAY, files=6)
    landed = sizes(lake)
    writer = committer(lake, [0], memory_mb=64)
    compact_all(lake, writer, now=datetime.now(UTC).timestamp())
    writer.close()
    compacted = sizes(lake)
    retention = registry(tmp_path)
    retention.set_policy("default", "load", retention_days=100, archive_after_days=30)
    run = run_of(tmp_path, retention)
    before = in_duckdb(lake, BY_DAY)
    planned = [p for p in run.plan() if p.action == "delete" and p.table == SILVER_EVENTS.name]
    [outcome] = run.run(who="test", at_once=True)
    assert outcome.waits is None
    assert sum(p.rows for p in planned) == outcome.erased[SILVER_EVENTS.name].rows > 0
    kept = in_duckdb(lake, BY_DAY)
    gone = {row[:2] for row in before} - {row[:2] for row in kept}
    assert {kind for _, kind in gone} == {"load"}
    assert len(gone) in (DAYS - 101, DAYS - 100)
    run.move()
    assert in_duckdb(lake, BY_DAY) == kept
    tiered = sizes(lake)
    assert all(tiered[SILVER_EVENTS.name, tier]["rows"] for tier in ("hot", "warm", "cold"))
    trino = LocalTrino(
        tmp_path / "trino",
        ports.choose(needed=("trino",), remembered={}, auto=True)["trino"],
        lake=lake.uri,
        bootstrap="127.0.0.1:1",
        topic="none",
        memory_mb=2048,
    )
    with trino:
        shown = [
            (datetime.fromisoformat(day).date(), *rest)
            for day, *rest in trino.query(BY_DAY.format("lake.silver.events"))
        ]
        assert shown == kept
        for border in (7, 90):
            days = TODAY - timedelta(days=border + 2), TODAY - timedelta(days=border - 2)
            ours = in_duckdb(lake, between(*days, "timestamptz '{} UTC'"))
            theirs = trino.query(
                between(*days, "timestamp '{} UTC'").replace("{}", "lake.silver.events", 1)
            )
            assert [list(row) for row in ours] == theirs
            assert ours[0][0] > 0
    report(raw, landed, compacted, tiered)


def report(raw: int, *stages: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The table of docs/retention.md."""
    landed, compacted, tiered = stages
    events = landed[SILVER_EVENTS.name, "hot"]["rows"]
    each = raw / events
    print(f"\n{events:,} events, {raw:,} bytes of JSON, {each:.0f} each")
    print("| table | files | bytes an event | JSON to it |\n| --- | --- | --- | --- |")

    def line(spec: TableSpec, name: str, row: dict[str, Any]) -> None:
        size = row["bytes"] / row["rows"]
        print(f"| {spec.name} | {name} ({row['files']}) | {size:.0f} | {each / size:.1f} |")

    for spec in SPECS:
        line(spec, "as they landed", landed[spec.name, "hot"])
        line(spec, "compacted", compacted[spec.name, "hot"])
        for tier in ("warm", "cold"):
            line(spec, tier, tiered[spec.name, tier])
