"""The sandbox from outside: a real serving process, attempts over HTTP, and an answer after each.

The process has small limits, so what is meant to exhaust something does so soon.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from dc_platform.contracts.reports import Report
from dc_platform.lake.reference import References
from dc_platform.registry.database import opened
from dc_platform.registry.reports import Reports
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform_tests.helpers.records import block, strange
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.serving.conftest import lines
from dc_platform_tests.serving.test_guard import ATTEMPTS, NAMES
from dc_platform_tests.stack.harness import free_ports, wait_for

# What nobody of tenant default may ever see; the type of the other tenant's events.
SECRET = "classified"
DEEP = "(repeat('[', 200000) || repeat(']', 200000))"
DEEPER = "(repeat('{\"a\":', 200000) || '1' || repeat('}', 200000))"
PAIRS = "range(1000000) a, range(1000000) b"
VISIBLE = {400, 404, 413, 422, 503, 504, 507}

MEMORY = [
    "select length(repeat('x', 100000000 + i % 2)) from range(2048) t(i)",
    "select length(repeat('x', 3000000000))",
    "select len(range(500000000))",
    "select len(list_resize([1], 1000000000))",
    "select length(string_agg(repeat('x', 1000000))) from range(4000)",
    "select len(list(i)) from range(300000000) t(i)",
    "with recursive r as (select repeat('x', 16) as s, 1 as n union all select s || s, n + 1 from r"
    " where n < 40) select max(length(s)) from r",
    "select length(a||a||a||a) from (select b||b||b||b as a from"
    " (select c||c||c||c as b from (select repeat('x', 10000000) as c from range(2048))))",
    "select length(json_group_array(repeat('x', 100000))) from range(40000)",
    "select length(array_to_string(list_transform(range(20000), lambda x: repeat('x', 200000)), ','))",
    "select histogram(i) from range(100000000) t(i)",
    "select map_from_entries(list((i, i))) from range(100000000) t(i)",
    "select approx_top_k(i, 1000000000) from range(10) t(i)",
    "select reservoir_quantile(i, 0.5, 1000000000) from range(10) t(i)",
    f"select length(json_pretty({DEEP}))",
]
# DuckDB does not look at an interrupt within a function, nor while it binds.
STARS = "select *, *, *, *, *, *, *, *, *, * from "
HANGS = [
    "select sum(levenshtein(repeat('x', 20000), repeat('y', 20000) || i)) from range(2048) t(i)",
    "select sum(jaro_winkler_similarity(repeat('x', 90000), repeat('y', 90000) || i))"
    " from range(2048) t(i)",
    "select len([1].list_transform(lambda x: list_sum(range(100000).list_transform("
    "lambda y: list_sum(range(100000))))))",
    "select length((repeat('9', 1000000)::bignum)::varchar)",
    "select len(generate_series(timestamp '0001-01-01', timestamp '9999-01-01',"
    " interval '1 microsecond'))",
    f"select count(*) from ({(STARS + '(') * 6}select 1{')' * 7}",
    "with "
    + ", ".join(
        f"t{n} as (select {'[' * 150}v{']' * 150} as v from {f't{n - 1}' if n else '(select 1 as v)'})"
        for n in range(10)
    )
    + " select * from t9",
]
DISK = [
    "select * from range(30000000) t(i) order by hash(i) desc",
    "select hash(i), count(*) from range(30000000) t(i) group by 1 order by 1",
    "select count(*) from (select distinct i || repeat('x', 100) from range(10000000) t(i))",
    "select max(n) from (select row_number() over (order by hash(i)) as n from range(30000000) t(i))",
]
TIME = [
    f"select count(*) from {PAIRS} where a.range * b.range = -1",
    f"select * from {PAIRS} where a.range * b.range = -1",
    "with recursive r as (select 1 as n union all select n from r) select count(*) from r",
    "with recursive r as (select 1 as n union all select n + 1 from r) select max(n) from r",
    "select count(*) from "
    + " natural join ".join(f"range(2) t{n}" for n in range(40))
    + f", {PAIRS} where a.range * b.range = -1",
]
CRASH = [
    "select list_aggr(range(3000), 'bitstring_agg') from range(3000) t(i)",
    f"select json_structure({DEEP})",
    f"select json_group_structure({DEEP})",
    f"select json_contains({DEEP}, '1')",
    f"select json_merge_patch({DEEPER}, {DEEPER})",
    f"select {DEEP}::json::variant",
    f"select ({DEEP}::json)::variant[]",
    f"select cast_to_type({DEEP}::json, null::variant)",
    f"select from_json({DEEP}, '\"VARIANT\"')",
    f"select json_transform({DEEP}, '[\"VARIANT\"]')",
    "select variant_extract(1, 'a')",
    f"select [1].list_transform(lambda x: json_structure({DEEP}))",
    'select json_deserialize_sql(\'{"statements":[{"node":{}}]}\')',
    "select json_serialize_sql('select 1')",
    "select finalize('\\xff'::blob)",
    "select combine('\\xff'::blob, '\\xff'::blob)",
    "select __internal_decompress_string(1::utinyint)",
    "select __internal_compress_string_hugeint(repeat('a', 100))",
    "select st_geomfromwkb('\\x01\\xff\\xff\\xff\\xff'::blob)",
    "select lead(i, -9223372036854775808) over () from range(3) t(i)",
    "select from_json('[]', repeat('[', 20000) || '\"INT\"' || repeat(']', 20000))",
    "select json_transform('[]', '" + "[" * 20_000 + '"INT"' + "]" * 20_000 + "')",
    "select hll_estimate('\\xff\\xff'::blob)",
    "select top_k('\\x00'::blob, 9223372036854775807)",
    "select quantile_estimate(repeat('x', 100000)::blob, 2)",
    "select 1" + " union all select 1" * 4000,
    "select 1" + " union select 1" * 4000,
    "select " + ", ".join(f"(select {n})" for n in range(5000)),
    "select count(*) from " + " natural join ".join(f"range(2) t{n}" for n in range(200)),
    "select count(*) from " + ", ".join(["events"] * 100),
    "select * from " + "(select * from " * 1500 + "(select 1)" + ")" * 1500,
    "select " + "(" * 40_000 + "1" + ")" * 40_000,
    "select " + "[" * 40_000 + "]" * 40_000,
    "select " + "not " * 20_000 + "true",
    "select null::int" + "[]" * 40_000,
    "select null::" + "struct(a " * 5000 + "int" + ")" * 5000,
    "select count(*) from (select 1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i, 10 j, 11 k, 12 l, 13 m,"
    " 14 n, 15 o, 16 p, 17 q) group by cube(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q)",
    "select array_value(1, 2)::int[1000000000]",
    "select " + "x" * 100_001,
    "select '\ud800'".encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    + " from nowhere",
]
REACH = [
    "select * from events at (version => 99999999999)",
    "select * from events at (version => (select 1))",
    "select * from events at (timestamp => getenv('HOME'))",
    "select * from bronze.events at (version => 0)",
    "select * from ref.hidden",
    'select * from REF."hidden"',
    "select * from typed.hidden",
    'select * from ref."hidden""; drop"',
    'select * from "ref.hidden"',
    'select * from "silver"."events".x',
    "select * from memory.main.events",
    # Where the newest rows of all tenants are.
    "select * from recent.rows_1",
    "select * from recent.main.rows_1",
    "select * from rows_1",
    'select * from "recent.rows_1"',
    "select * from needles",
    "select * from temp.main.dcp_silver__events",
    "select * from system.information_schema.tables",
    "select * from information_schema.columns",
    "select * from dcp_silver__events",
    "select * from dcp_events__at_0",
    "select dcp_hll_estimate('x'::blob, 1)",
    "select * from 's3://bucket/key'",
    "select * from 'https://example.com/x.parquet'",
    "select * from read_parquet('https://example.com/x.parquet')",
    "select * from read_csv('http://169.254.169.254/latest/meta-data')",
    "select * from postgres_scan('host=x', 'a', 'b')",
    "select * from sql_auto_complete('sel')",
    "select * from seq_scan('events')",
    "select * from repeat('x', 1000000000)",
    "select * from summary(events)",
    "select * from arrow_scan(1, 2, 3)",
    "select * from pandas_scan(1)",
    "select * from python_map_function(1)",
    "select * from parquet_kv_metadata('{file}')",
    "select * from parquet_file_metadata('{file}')",
    "select * from parquet_bloom_probe('{file}', 'a', 1)",
    "select * from parquet_full_metadata('{file}')",
    "select * from duckdb_logs()",
    "select * from enable_logging()",
    "select * from which_secret('x', 's3')",
    "select * from test_vector_types(null::int)",
]
# Let through, and of no use: nothing of another tenant is in the answer.
SHADOWS = [
    "select * from events",
    "select * from silver.events",
    "select * from bronze.events",
    "select * from silver.quarantine",
    "select * from events at (version => {version})",
    "select * from silver.events at (version => {version})",
    "select * from events where tenant_id = 'other'",
    "select * from events where tenant_id <> 'default' or true",
    "select * from silver.events s full join silver.events t using (tenant_id)",
    "with events as (select * from silver.events) select * from events",
    "with silver as (select 1) select * from silver.events",
    'with "silver.events" as (select * from events) select * from "silver.events"',
    "with tenant_id as (select 'other' as x) select * from events where tenant_id in (from tenant_id)",
    'select * from events "dcp_silver__events"',
    "select e.* from events e, lateral (from silver.events s where s.tenant_id <> e.tenant_id) t",
    "select min(event_type), max(event_type), count(*) from silver.events group by tenant_id",
    "select * from (summarize bronze.events)",
    "select * from events tablesample 100%",
    "select case when tenant_id = 'other' then error(payload) end from silver.events",
    "select (payload || event_type)::int from silver.events where tenant_id = 'other'",
    "select list(event_type), histogram(tenant_id) from bronze.events",
    "select * from ops.ledger",
    "select * from ops.acks",
    "select * from ops.tombstones",
    "select * from ops.deletions",
    "select * from gold.events_hourly",
]


class Sandbox:
    """A serving process over a lake of two tenants."""

    def __init__(self, directory: Path) -> None:
        served = Served(directory)
        landed = [
            block(lines(0, 8), 0),
            block(lines(90, 91, SECRET), 1, tenant="other"),
            strange(b"nonsense", 2),
        ]
        served.view = view(served.lake, landed)
        self.version = served.view.silver.version
        self.file = served.view.silver.paths[0]
        hidden = pa.table({"key": ["a"], "value": [SECRET]})
        References(served.lake).put("other", "hidden", hidden, key="key")
        with opened(served.settings.registry) as database:
            self.token = Tokens(database).create(Scope.QUERY)
            self.other = Tokens(database).create(Scope.QUERY, tenant_id="other")
            report = Report("hidden", f"select '{SECRET}' as v")
            Reports(database).create(report, by="cli", tenant_id="other")
        [port, nowhere] = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(timeout=120)
        small = {
            "QUERY_TIMEOUT_SECONDS": "1",
            "SQL_MEMORY_MB": "64",
            "QUERY_TEMP_MB": "128",
            "SERVING_MEMORY_MB": "1536",
            "SQL_TENANT_CONCURRENCY": "2",
            "QUERY_WAIT_SECONDS": "0.1",
            "LOG_LEVEL": "ERROR",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dc_platform.serving", "--port", str(port)],
            env={
                **os.environ,
                **{f"DCP_{name}": value for name, value in small.items()},
                "DCP_DATA_DIR": str(directory),
                "DCP_KAFKA_BOOTSTRAP": f"127.0.0.1:{nowhere}",
            },
            # It says twice a second that there is no Kafka.
            stderr=subprocess.DEVNULL,
        )
        wait_for(self.answers, seconds=120)

    def answers(self) -> bool:
        """Whether a plain query has its answer."""
        try:
            return self.sql("select count(*) as n from silver.events").text == '[{"n":8}]\n'
        except httpx.ConnectError:
            assert self.process.poll() is None
            return False

    def sql(self, sql: str, token: str | None = None, **body: Any) -> httpx.Response:
        sql = sql.replace("{file}", self.file).replace("{version}", str(self.version))
        sql = sql.replace("{kelvin}", self.file.replace("k", "\u212a"))
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return self.client.post(
            f"{self.url}/api/v1/sql", headers=headers, json={"sql": sql, **body}
        )

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        assert self.process.wait(60) in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path_factory.mktemp("sandbox"))
    try:
        yield made
    finally:
        made.close()


def test_there_are_enough_attempts() -> None:
    attempts = [*ATTEMPTS, *NAMES, *MEMORY, *HANGS, *DISK, *TIME, *CRASH, *REACH, *SHADOWS]
    assert len(set(attempts)) == len(attempts) >= 200


@pytest.mark.parametrize(
    "attempts",
    [[*ATTEMPTS, *NAMES], REACH, CRASH, MEMORY, HANGS, DISK, TIME],
    ids=["writing", "reach", "crash", "memory", "hangs", "disk", "time"],
)
def test_attempts_are_refused_and_serving_answers_after_each(
    sandbox: Sandbox, attempts: list[str]
) -> None:
    for sql in attempts:
        answer = None
        try:
            answer = sandbox.sql(sql)
        except httpx.RemoteProtocolError:
            # The rows had begun; the answer breaks off.
            assert attempts is TIME, sql
        if answer is not None:
            assert answer.status_code in VISIBLE, (sql[:200], answer.text[:200])
            assert len(answer.json()["detail"]) > 10, sql[:200]
            assert SECRET not in answer.text
            assert "hidden;" not in answer.text
        wait_for(sandbox.answers)


def test_nothing_of_another_tenant_is_seen(sandbox: Sandbox) -> None:
    for sql in SHADOWS:
        answer = sandbox.sql(sql)
        assert answer.status_code in (200, 400), sql
        assert SECRET not in answer.text, sql
        assert '"other"' not in answer.text, sql
    assert sandbox.sql("select event_type from events", sandbox.other).json() == [
        {"event_type": SECRET}
    ]
    headers = {"Authorization": f"Bearer {sandbox.token}"}
    run = sandbox.client.get(f"{sandbox.url}/api/v1/reports/hidden/run", headers=headers)
    assert (run.status_code, SECRET in run.text) == (404, False)
    assert sandbox.sql("select * from events", asOf=sandbox.version).text.count(SECRET) == 0


@pytest.mark.parametrize("sql", [TIME[0], HANGS[0], CRASH[0]], ids=["long", "hangs", "crashes"])
def test_heavy_queries_of_one_tenant_keep_no_other_from_its_answers(
    sandbox: Sandbox, sql: str
) -> None:
    """Two of sixteen run, the others get 429; the other tenant is answered all the while."""
    statuses: list[int] = []

    def ask() -> None:
        answer = httpx.post(
            f"{sandbox.url}/api/v1/sql",
            headers={"Authorization": f"Bearer {sandbox.token}"},
            json={"sql": sql},
            timeout=120,
        )
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    answers = 0
    while any(thread.is_alive() for thread in threads) or not answers:
        assert sandbox.sql("select 1 as n from silver.events", sandbox.other).json() == [{"n": 1}]
        answers += 1
    assert len(statuses) == 16
    # Or the guard does not let it through.
    assert set(statuses) <= {400, 429, 503, 504}
    wait_for(sandbox.answers)
