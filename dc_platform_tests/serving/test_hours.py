"""Hours of gold in memory: they say what gold's files say, of exactly the files that a version has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dc_platform.contracts.gold import EVENTS_HOURLY
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform_tests.gold.lakes import land
from dc_platform_tests.gold.plain import count
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.lake import silver_row
from dc_platform_tests.serving.planned import Planned
from dc_platform_tests.stack.harness import wait_for

START = NOW - NOW % HOUR
BY_HOUR = {"function": "COUNT", "groupBy": ["timestamp:1h"]}
BY_TYPE = [
    {"function": "COUNT", "groupBy": ["timestamp:1d", "eventType"]},
    {"function": "MIN", "field": "timestamp", "groupBy": ["timestamp:1d", "eventType"]},
    {"function": "MAX", "field": "timestamp", "groupBy": ["timestamp:1d", "eventType"]},
]
OF_A = [{"field": "eventType", "operator": "=", "value": "a"}]


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planned]:
    """Four days of events of two tenants, three sources and two types, some sampled; gold of them."""
    monkeypatch.setattr("dc_platform.gold.run.build", count)
    made = Planned(tmp_path, query_cache_mb=0)
    land(made.lake, [event(n) for n in range(40)])
    made.gold()
    yield made
    made.served.engine.close()


def event(number: int, **columns: Any) -> dict[str, Any]:
    return silver_row(
        number,
        event_time=(START + number * 5 * HOUR // 2) * 1000,
        event_type="ab"[number % 2],
        source_id=f"source-{number % 3}",
        tenant_id="other" if number % 7 == 0 else "default",
        sample_rate=0.3 if number % 5 == 0 else 1.0,
        **columns,
    )


def newest(planned: Planned) -> Snapshot:
    return LakeTable(planned.lake, EVENTS_HOURLY).snapshot()


def held(planned: Planned) -> set[str]:
    """The files whose hours are in memory, after a query over the newest version of gold."""
    planned.ask(planned.view(), aggregations=[BY_HOUR])
    with planned.served.engine._cursors.recent.of(planned.view(), newest(planned)) as found:
        return set(found.hours.files)


def in_memory(planned: Planned, gold: Snapshot) -> set[str]:
    """The same of a version, without a query."""
    with planned.served.engine._cursors.recent.of(planned.view(), gold) as found:
        return set(found.hours.files)


def tables(planned: Planned) -> int:
    """How many tables of hours there are."""
    sql = (
        "select count(*) from duckdb_tables() where database_name = 'recent'"
        " and table_name like 'hours%'"
    )
    with planned.served.engine._cursors.recent.instance.cursor() as cursor:
        return int(cursor.execute(sql).fetchall()[0][0])


def agree(planned: Planned) -> None:
    view = planned.view()
    for tenant in ("default", "other", "nobody"):
        planned.agree(view, tenant, aggregations=[BY_HOUR])
        planned.agree(view, tenant, aggregations=BY_TYPE, filters=OF_A)
        planned.agree(view, tenant, aggregations=BY_TYPE)
        by_source = {"function": "COUNT", "groupBy": ["sourceId"]}
        planned.agree(view, tenant, aggregations=[by_source])
        of_one = [{"field": "sourceId", "operator": "=", "value": "source-1"}]
        planned.agree(view, tenant, aggregations=[BY_HOUR], filters=of_one)
        span = {"from": START + HOUR, "to": START + 30 * HOUR + 1}
        planned.agree(view, tenant, aggregations=[BY_HOUR], **span)


def test_hours_in_memory_are_those_of_gold(planned: Planned) -> None:
    agree(planned)
    wait_for(lambda: held(planned) == set(newest(planned).paths))
    agree(planned)
    # Gold goes on: one day is new, and another one is made anew.
    land(planned.lake, [event(1, kafka_index=1), event(90)])
    agree(planned)
    planned.gold()
    agree(planned)
    wait_for(lambda: held(planned) == set(newest(planned).paths))
    agree(planned)


def test_files_are_not_read_for_what_is_in_memory(planned: Planned) -> None:
    wait_for(lambda: held(planned) == set(newest(planned).paths))
    for path in newest(planned).paths:
        Path(path).unlink()
    assert planned.ask(planned.view(), aggregations=[BY_HOUR])["totalCount"] == 34


def test_a_part_of_the_files_is_enough(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dc_platform.serving.hours._MOST_ROWS", 1)
    wait_for(lambda: len(held(planned)) == 1)
    assert len(newest(planned).paths) > 1
    agree(planned)


def test_what_fails_leaves_nothing_and_is_tried_again(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dc_platform.serving.hours._PAUSE_SECONDS", 0)
    gold = newest(planned)
    lost = Path(min(gold.paths))
    content = lost.read_bytes()
    lost.unlink()
    wait_for(lambda: not in_memory(planned, gold) and len(caplog.records) >= 3)
    lost.write_bytes(content)
    wait_for(lambda: in_memory(planned, gold) == set(gold.paths))
    assert tables(planned) == 1


def test_what_fails_is_not_tried_again_at_once(
    planned: Planned, caplog: pytest.LogCaptureFixture
) -> None:
    gold = newest(planned)
    Path(min(gold.paths)).unlink()
    hours = planned.served.engine._cursors.recent._hours
    wait_for(lambda: not in_memory(planned, gold) and caplog.records and not hours._busy)
    for _ in range(10):
        in_memory(planned, gold)
    assert (len(caplog.records), hours._busy, tables(planned)) == (1, False, 0)


def test_nobody_else_writes_while_they_are_written(
    planned: Planned, caplog: pytest.LogCaptureFixture
) -> None:
    recent, gold = planned.served.engine._cursors.recent, newest(planned)
    with recent.instance.cursor() as cursor, recent._writing:
        cursor.execute("begin")
        cursor.execute("create table recent.other (a int)")
        assert not in_memory(planned, gold)
        cursor.execute("commit")
    wait_for(lambda: in_memory(planned, gold) == set(gold.paths))
    assert not caplog.records


def test_a_table_that_could_not_be_dropped_goes_later(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = planned.served.engine._cursors.recent._hours
    write, failed = hours._write, []

    def once(cursor: duckdb.DuckDBPyConnection, sql: str) -> int:
        if sql.startswith("drop") and not failed:
            failed.append(sql)
            raise duckdb.OutOfMemoryException("no memory")
        return write(cursor, sql)

    monkeypatch.setattr(hours, "_write", once)
    wait_for(lambda: held(planned) == set(newest(planned).paths))
    land(planned.lake, [event(90)])
    planned.gold()
    wait_for(lambda: held(planned) == set(newest(planned).paths) and failed)
    wait_for(lambda: in_memory(planned, newest(planned)) and tables(planned) == 1)


def test_a_query_on_an_instance_that_was_closed_reads_the_files(planned: Planned) -> None:
    planned.served.engine.close()
    gold = newest(planned)
    assert in_memory(planned, gold) == set()
    assert in_memory(planned, gold) == set()
    agree(planned)
