"""The engine: bounded in time, memory and reach, and each query in a world of its own."""

from __future__ import annotations

import threading
from pathlib import Path

import duckdb
import pytest

from dc_platform.serving.rows import QueryTimeoutError
from dc_platform.serving.view import View
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.landing import batch, committer
from dc_platform_tests.helpers.records import block, gateway_line
from dc_platform_tests.helpers.serving import SPILLING, Served, table_of, view

ENDLESS = "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range = -1"
# Rows at once, and then none for ever.
STREAM = (
    "select i from range(200000) t(i) union all"
    " select a.range from range(1000000) a, range(1000000) b where a.range * b.range = -1"
)


def line(number: int) -> bytes:
    return gateway_line(
        b'{"eventId":"%s","eventType":"t","timestamp":%d,"payload":{"n":%d}}'
        % (some_uuid(number).encode(), NOW + number, number)
    )


@pytest.mark.parametrize("sql", [ENDLESS, STREAM])
def test_a_query_ends_when_its_time_is_up(tmp_path: Path, sql: str) -> None:
    served = Served(tmp_path, query_timeout_seconds=0.5)
    served.view = view(served.lake, [])
    with pytest.raises(QueryTimeoutError, match="DCP_QUERY_TIMEOUT_SECONDS"):
        served.sql(sql)
    assert served.sql("select 1") == [(1,)]


def test_an_error_in_the_middle_of_the_rows_is_the_engines(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.view = view(served.lake, [])
    with pytest.raises(duckdb.Error, match="no such luck"):
        served.sql(
            "select case when i = 150000 then error('no such luck') else i::varchar end"
            " from range(200000) t(i)"
        )


def test_a_query_that_needs_too_much_memory_fails_alone(tmp_path: Path) -> None:
    served = Served(tmp_path, sql_memory_mb=64, query_threads=1)
    served.view = view(served.lake, [])
    for sql in (
        "select list(repeat('x', 1000) || i) from range(1000000) t(i)",
        "select i, null from range(200000) t(i) union all"
        " select 1, list(repeat('x', 1000) || i) from range(1000000) t(i)",
    ):
        with pytest.raises(duckdb.OutOfMemoryException):
            served.sql(sql)
    assert served.sql("select 1") == [(1,)]


def test_queries_side_by_side_see_their_own_tenant_and_moment(tmp_path: Path) -> None:
    served = Served(tmp_path)
    blocks = [
        block([line(n) for n in range(20)], 0),
        block([line(n) for n in range(100, 107)], 1, tenant="other"),
    ]
    old = view(served.lake, blocks[:1])
    new = view(served.lake, [], [blocks[1:]])
    wrong: list[object] = []

    def ask(tenant: str, which: View, expected: int) -> None:
        for _ in range(15):
            answer = served.engine.run_sql(
                "select count(*) as n from events", which, tenant_id=tenant
            )
            found = table_of(answer)["n"][0].as_py()
            if found != expected:
                wrong.append((tenant, found, expected))

    asked = [("default", old, 20), ("other", old, 0), ("default", new, 20), ("other", new, 7)]
    threads = [threading.Thread(target=ask, args=arguments) for arguments in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_view_of_an_older_version_stays_readable(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.view = view(served.lake, [block([line(1)], 0)])
    writer = committer(served.lake)
    writer.land(batch([block([line(2)], 1)]))
    assert served.sql("select count(*) from events") == [(1,)]
    assert served.sql("select count(*) from silver.events") == [(1,)]


def test_tables_beside_silver_follow_their_newest_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dc_platform.serving.engine._SNAPSHOT_SECONDS", -1.0)
    served = Served(tmp_path)
    served.view = view(served.lake, [block([line(1)], 0)])
    assert served.sql("select count(*) from bronze.events") == [(1,)]
    committer(served.lake).land(batch([block([line(1), line(2)], 1)]))
    assert served.sql("select count(*) from bronze.events") == [(3,)]


def test_paths_with_quotes_and_spaces(tmp_path: Path) -> None:
    served = Served(tmp_path / 'it\'s a "lake"')
    served.view = view(
        served.lake, [block([line(1)], 0)], [[block([line(2)], 1)]], spill=served.tail_directory
    )
    assert served.sql("select count(*) from events") == [(2,)]


def test_a_query_may_spill_to_so_much_of_the_disk(tmp_path: Path) -> None:
    served = Served(tmp_path, sql_memory_mb=64, query_memory_mb=64, query_temp_mb=6)
    served.view = view(served.lake, [])
    with pytest.raises(duckdb.OutOfMemoryException, match="max_temp_directory_size"):
        served.sql(SPILLING)
    with (
        pytest.raises(duckdb.OutOfMemoryException, match="max_temp_directory_size"),
        served.engine.run_own(SPILLING, {}),
    ):
        pass
    enough = Served(tmp_path, sql_memory_mb=64, query_temp_mb=6_000)
    enough.view = served.view
    assert enough.sql(SPILLING) == [(1_000_000,)]


def test_a_relative_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    served = Served(Path("data"))
    served.view = view(
        served.lake, [block([line(1)], 0)], [[block([line(2)], 1)]], spill=served.tail_directory
    )
    assert served.sql("select count(*) from events") == [(2,)]


def test_the_tenant_is_a_value(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.view = view(served.lake, [block([line(1)], 0, tenant="it's")])
    assert served.sql("select count(*) from events", tenant="it's") == [(1,)]
    assert served.sql("select count(*) from events", tenant="' or 1=1 --") == [(0,)]
