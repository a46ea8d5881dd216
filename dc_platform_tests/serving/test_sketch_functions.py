"""Sketches in SQL: merged over hours, of one's own tenant, with bytes of any kind, ended in time."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from dc_platform.contracts.sketch_tables import SKETCHES_HOURLY
from dc_platform.gold import quantiles, sketches
from dc_platform.gold.sketches_hourly import sketches_of
from dc_platform.serving.guard import RefusedError
from dc_platform.serving.refusals import refusal
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform.serving.sql_pool import QueryDiedError, Running
from dc_platform_tests.gold.conftest import HOUR, event
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.lake import commit_rows, silver_table
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door

HOURS = 4
USERS = 3000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Four hours of two sources; a user comes in two of the hours. One source of another tenant."""
    made = Served(tmp_path_factory.mktemp("served"))
    made.view = view(made.lake, [])
    events = [
        event(
            number,
            {"userId": f"u{number % USERS}", "page": f"/{number % 10}", "value": number},
            source_id="ab"[number % 2],
            event_type=f"t{number % 3}",
            event_time=HOUR + timedelta(hours=number // USERS * 2 + number % 2),
        )
        for number in range(2 * USERS)
    ]
    events += [
        event(n, {"userId": f"x{n}", "value": -1}, source_id="c", tenant_id="other")
        for n in range(50)
    ]
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("create schema silver")
        connection.register("shown", silver_table(events))
        connection.execute("create view silver.events as select * from shown")
        hours = [HOUR + timedelta(hours=n) for n in range(HOURS)]
        commit_rows(made.lake, SKETCHES_HOURLY, sketches_of(connection, hours, silver_version=1))
    return made


def test_users_of_many_hours_are_counted_once(served: Served) -> None:
    rows = served.sql(
        "select source_id, hll_estimate(list(users_hll)) as users, sum(unique_users_estimate)"
        " from gold.sketches_hourly where hour >= timestamptz '2025-11-24 16:00:00+00'"
        " group by 1 order by 1"
    )
    # Half of the users are a source's: in each of two hours the same ones.
    assert [row[0] for row in rows] == ["a", "b"]
    for _, users, summed in rows:
        assert users == pytest.approx(USERS / 2, rel=0.02)
        assert summed == pytest.approx(USERS, rel=0.02)
    [(low, estimate, high)] = served.sql(
        "with b as (select hll_bounds(list(users_hll)) as b from gold.sketches_hourly)"
        " select b.lower, b.estimate, b.upper from b"
    )
    assert low <= USERS <= high
    assert low < estimate < high
    [(merged,)] = served.sql(
        "select hll_estimate(list(h)) from"
        " (select hll_merge(list(users_hll)) as h from gold.sketches_hourly group by event_type)"
    )
    assert merged == pytest.approx(estimate)


def test_the_most_frequent_items_and_types(served: Served) -> None:
    [(types, items)] = served.sql(
        "select top_k(list(event_types_top), 2), top_k(list(items_top), 3)"
        " from gold.sketches_hourly where source_id = 'a'"
    )
    assert [(t["item"], t["estimate"]) for t in types] == [("t0", 1000), ("t1", 1000)]
    assert [(i["item"], i["lower"], i["upper"]) for i in items] == [
        (f"/{n}", 600, 600) for n in (0, 2, 4)
    ]


@pytest.mark.parametrize("rank", ["0", "0.5", "0.95::decimal(3, 2)", "0.99::float", "1"])
def test_quantiles_of_many_hours(served: Served, rank: str) -> None:
    [(value,)] = served.sql(
        f"select quantile_estimate(list(value_quantiles), {rank}) from gold.sketches_hourly"
    )
    exact = float(rank.split(":")[0]) * (2 * USERS - 1)
    assert abs(value - exact) <= quantiles.RANK_ERROR * 2 * USERS + 1


def test_a_tenant_merges_its_own_sketches_only(served: Served) -> None:
    sql = (
        "select count(*), hll_estimate(list(users_hll)), quantile_estimate(list(value_quantiles), 0)"
        " from gold.sketches_hourly"
    )
    [(rows, users, low)] = served.sql(sql, tenant="other")
    assert (rows, low) == (1, -1)
    assert users == pytest.approx(50, rel=0.001)
    assert served.sql(sql)[0][2] == 0
    assert served.sql(sql, tenant="nobody") == [(0, None, None)]


def test_nulls_and_single_sketches(served: Served) -> None:
    blob = sketches.hll_of(["a", "b"]).hex()
    [row] = served.sql(
        f"select hll_estimate(unhex('{blob}')), HLL_Estimate([null, unhex('{blob}')]),"
        " hll_estimate(null), hll_estimate([null::blob]), hll_bounds(null), top_k(null, 1),"
        " top_k([null::blob], 1), quantile_estimate([null::blob], 0.5), hll_merge(null)"
    )
    assert row[:2] == (pytest.approx(2), pytest.approx(2))
    assert row[2:] == (None, 0.0, None, None, [], None, None)


BLOBS = {
    "hll_estimate": sketches.hll_of(f"u{n}" for n in range(2000)),
    "top_k": sketches.items_of([("a", 1), ("b", 2)]),
    "quantile_estimate": quantiles.quantiles_of(np.arange(2000.0)),
}
CALLS = {
    "hll_estimate": "hll_estimate([{0}])",
    "top_k": "top_k([{0}], 3)",
    "quantile_estimate": "quantile_estimate([{0}], 0.5)",
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_hostile_bytes_are_an_error_of_one_sentence(served: Served, name: str) -> None:
    chance = random.Random(name)
    for _ in range(40):
        blob = bytearray(BLOBS[name])
        del blob[chance.randrange(len(blob)) :]
        blob += chance.randbytes(chance.randrange(3))
        call = CALLS[name].format(f"unhex('{blob.hex()}')")
        with pytest.raises(duckdb.Error) as refused:
            served.sql(f"select {call}")
        assert refusal(refused.value, bad=400).detail.startswith(f"{name}: ")
    assert served.sql("select 1") == [(1,)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("hll_estimate('text')", "hll_estimate: takes a sketch"),
        ("hll_estimate([1])", "hll_estimate: takes a sketch"),
        ("hll_merge('abc'::blob)", "hll_merge: not a HyperLogLog sketch"),
        ("top_k([]::blob[], 0)", "top_k: k is a whole number"),
        ("top_k([]::blob[], 'x')", "top_k: k is a whole number"),
        ("quantile_estimate([]::blob[], 1.5)", "quantile_estimate: a rank is a number"),
        ("quantile_estimate([]::blob[], 'x')", "quantile_estimate: a rank is a number"),
        ("quantile_estimate([]::blob[], null)", "quantile_estimate: a rank is a number"),
    ],
)
def test_wrong_arguments_are_named(served: Served, call: str, words: str) -> None:
    with pytest.raises(duckdb.Error) as refused:
        served.sql(f"select {call}")
    assert refusal(refused.value, bad=400).detail.startswith(words)


@pytest.mark.parametrize("name", ["dcp_hll_estimate", "DCP_top_k"])
def test_only_our_macros_reach_the_functions_behind_them(served: Served, name: str) -> None:
    with pytest.raises(RefusedError, match="not let through"):
        served.sql(f"select {name}('a'::blob, 1)")


def test_queries_side_by_side(served: Served) -> None:
    wrong: list[object] = []

    def ask(source: str) -> None:
        for _ in range(10):
            [(users,)] = served.sql(
                "select hll_estimate(list(users_hll)) from gold.sketches_hourly"
                f" where source_id = '{source}'"
            )
            if abs(users - USERS / 2) > USERS * 0.01:
                wrong.append(users)

    threads = [threading.Thread(target=ask, args=(source,)) for source in "abab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


# One list, and row after row of the same chunk that merges all of it: minutes of work.
LONG = (
    "select sum(hll_estimate(l)) from (select list(users_hll) as l from gold.sketches_hourly,"
    " range(200)), range(2000)"
)


def test_merging_ends_when_the_time_of_the_query_is_up(served: Served, tmp_path: Path) -> None:
    short = Served(tmp_path, query_timeout_seconds=0.5, lake_uri=served.settings.lake)
    short.view = served.view
    with pytest.raises(QueryTimeoutError, match="DCP_QUERY_TIMEOUT_SECONDS"):
        short.sql(LONG)
    assert short.sql("select hll_estimate([]::blob[])") == [(0.0,)]


def test_merging_ends_when_nobody_waits_for_it(served: Served) -> None:
    assert served.view is not None
    blob = sketches.hll_of(f"u{n}" for n in range(5000)).hex()
    # Rows at once, and then some that take long.
    sql = (
        "select case when i < 150000 then 0 else hll_estimate(l) end from range(200000) t(i),"
        f" (select list(unhex('{blob}')) as l from range(800))"
    )
    queries: list[Running] = []
    with served.engine.run_sql(
        sql, served.view, tenant_id="default", starts=queries.append
    ) as parts:
        next(parts)
        timer = threading.Timer(0.3, queries[0].interrupt)
        timer.start()
        with pytest.raises(QueryDiedError):
            list(parts)
        timer.join()


def test_merging_ends_when_nobody_waits_for_its_first_row(served: Served) -> None:
    assert served.view is not None
    timers = []

    def starts(query: Running) -> None:
        timers.append(threading.Timer(0.3, query.interrupt))
        timers[0].start()

    with (
        pytest.raises(QueryDiedError),
        served.engine.run_sql(LONG, served.view, tenant_id="default", starts=starts) as parts,
    ):
        list(parts)
    timers[0].join()


def test_a_table_of_estimates_and_of_sketches(served: Served) -> None:
    door = Door(served)

    def table(sql: str, limit: int) -> dict[str, Any]:
        body = {"sql": sql, "format": "table", "limit": limit, "parameters": ["c"]}
        answer = request(door.app, "POST", "/api/v1/sql", headers=door.headers, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    merged = table(
        "select source_id, hll_estimate(list(users_hll)) as users from gold.sketches_hourly"
        " where source_id <> ? group by all order by all",
        1,
    )
    assert merged["columns"] == [
        {"name": "source_id", "kind": "text"},
        {"name": "users", "kind": "number"},
    ]
    assert merged["rows"] == [["a", pytest.approx(USERS / 2, rel=0.02)]]
    assert merged["more"]
    # As the dashboard looks at a table.
    whole = table("select * from gold.sketches_hourly where source_id <> ?", 100)
    assert {"name": "users_hll", "kind": "other"} in whole["columns"]
    assert len(whole["rows"]) == 12
    assert not whole["more"]


def test_the_examples_of_the_docs_run(served: Served) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sketches.md").read_text()
    examples = page.split("```sql")[1].split("```")[0]
    statements = [text for text in examples.split(";") if text.strip()]
    assert len(statements) == 5
    for statement in statements:
        served.sql(statement)
