"""What SQL is let through: a SELECT over our tables, of one's own tenant, and nothing else."""

from __future__ import annotations

import contextlib

import duckdb
import pytest

from dc_platform.serving.guard import TABLES, Guard, RefusedError
from dc_platform_tests.helpers.serving import Served

# Statements that write, read files, reach settings, catalogs, the process or other tenants.
ATTEMPTS = [
    # writing
    "insert into events values (1)",
    "insert into silver.events select * from silver.events",
    "update events set event_type = 'x'",
    "delete from events",
    "truncate events",
    "create table x as select 1",
    "create or replace view events as select 1",
    "create temp table x (a int)",
    "create macro m() as 1",
    "create schema s",
    "create type t as enum ('a')",
    "create sequence s",
    "create secret (type s3)",
    "drop view dcp_events",
    "drop table events",
    "alter table events rename to e",
    "merge into events using events on true when matched then delete",
    "comment on table events is 'x'",
    "copy events to '/tmp/x.csv'",
    "copy (select 1) to '/tmp/x.parquet'",
    "copy events from '/tmp/x.csv'",
    "export database '/tmp/x'",
    "import database '/tmp/x'",
    "select * into x from events",
    "vacuum",
    "checkpoint",
    "force checkpoint",
    "analyze",
    # settings, catalogs, extensions, prepared statements
    "set memory_limit = '1TB'",
    "set enable_external_access = true",
    "reset all",
    "pragma database_list",
    "pragma version",
    "pragma show_tables",
    "attach '/tmp/x.db' as x",
    "detach memory",
    "use memory",
    "install httpfs",
    "load httpfs",
    "call pragma_version()",
    "begin",
    "commit",
    "prepare p as select 1",
    "execute p",
    "deallocate p",
    "explain select 1",
    "explain analyze select * from events",
    "show tables",
    "show all tables",
    "show databases",
    "describe",
    "show variables",
    # several statements
    "select 1; select 2",
    "select 1; drop view dcp_events",
    "",
    ";",
    "-- nothing",
    "this is no sql",
    # files
    "select * from '/etc/passwd'",
    'select * from "/etc/passwd"',
    "select * from read_csv('/etc/passwd')",
    "select * from read_csv_auto('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('/etc/*')",
    "select * from read_json('/etc/passwd')",
    "select * from read_ndjson_objects('/etc/passwd')",
    "select * from read_parquet('{file}')",
    "select * from parquet_scan('{file}')",
    "select * from parquet_metadata('{file}')",
    "select * from parquet_schema('{file}')",
    "select * from '{file}'",
    'select * from "{file}"',
    "select * from glob('/**')",
    "select * from sniff_csv('/etc/passwd')",
    "select * from sqlite_scan('/tmp/x', 'y')",
    "select * from delta_scan('/tmp')",
    "select (select content from read_text('/etc/passwd'))",
    "select * from events where event_type in (select content from read_text('/etc/passwd'))",
    "select * from (select * from read_text('/etc/passwd'))",
    "select 1 union all select content from read_text('/etc/passwd')",
    "with x as (select * from read_text('/etc/passwd')) select * from x",
    "describe select * from '{file}'",
    "summarize '{file}'",
    "select * from (pivot '{file}' on event_type in ('t') using count(*))",
    "select * from events order by (select content from read_text('/etc/passwd'))",
    "select count(*) filter (where 1 in (select 1 from '{file}')) from events",
    # names of WITH that DuckDB does not see where they are used
    'with "{file}" as (select * from "{file}") select * from "{file}"',
    'with a as (select * from "{file}"), "{file}" as (select 1) select * from a',
    'with a as (with "{file}" as (select 1) select 1) select * from "{file}"',
    'select * from (with "{file}" as (select 1) select 1) x, "{file}"',
    'with recursive "{file}" as (select * from "{file}" union all select * from "{file}")'
    ' select * from "{file}"',
    'with "{kelvin}" as (select 1) select * from "{file}"',
    "with tail as (select * from tail) select * from tail",
    "with dcp_events as (select * from dcp_events) select * from dcp_events",
    "with dcp_events as (select 1) select * from events",
    "with duckdb_views as (select * from duckdb_views) select * from duckdb_views",
    # the engine's own tables and functions
    "select * from tail",
    "select * from dcp_events",
    "select * from temp.dcp_events",
    "select * from memory.main.dcp_events",
    "select * from information_schema.tables",
    "select * from pg_catalog.pg_class",
    "select * from sqlite_master",
    "select * from duckdb_settings",
    "select * from duckdb_settings()",
    "select * from duckdb_secrets()",
    "select * from duckdb_temporary_files()",
    "select * from duckdb_views()",
    "select * from pragma_database_list()",
    "select * from query('select 1')",
    "select * from query_table('events')",
    "select * from silver.quarantine at (version => 1)",
    "select * from gold.events",
    "select * from silver.tail",
    "select * from main.events",
    "select getenv('HOME')",
    "select 'HOME'.getenv()",
    "select main.getenv('HOME')",
    "select current_setting('temp_directory')",
    "select getvariable('x')",
    "select nextval('s')",
    "select write_log('x')",
    "select sleep_ms(100000)",
    "select pg_sleep(100)",
    "select pg_get_viewdef(1)",
    "select json_serialize_plan('select 1')",
    "select * from json_execute_serialized_sql('x')",
    "select setseed(0.5)",
    "select * from checkpoint()",
    "select * from force_checkpoint()",
    "select * from events where getenv('HOME') = 'x'",
    "select list_transform([1], lambda x: getenv('HOME'))",
    "select count(*) over (order by current_setting('threads')) from events",
    # parameters that DuckDB writes back without quotes
    'select $"1, tenant_id, event_type from recent.rows_1 --"',
    'select $"a b"',
    # joins of which it forgets the brackets
    "select * from (values (1)) a(x) natural join"
    " ((values (1, 2)) b(x, y) join (values (1, 2)) c(x, y) using (x))",
    # aggregates by name, and what they and others must not get
    "select list_aggr([1, 2], 'reservoir_quantile', 0.5, 2000000000)",
    "select list_aggregate([1, 2], 'Reservoir_Quantile', 0.5)",
    "select [1, 2].array_aggr('reservoir_quantile', 0.5)",
    "select l.list_aggr('bitstring_agg') from (select range(3000) as l) t",
    "select main.aggregate(range(3000), 'bitstring_agg')",
    "select list_aggr([1, 2], 'su' || 'm')",
    "select list_aggr([1, 2], ?)",
    "select from_json('[]', '[' || '\"INT\"' || ']')",
    "select p.from_json(repeat('[', 20000)) from (select '[]' as p) t",
    "select json_transform('[]', '" + "[" * 257 + '"INT"' + "]" * 257 + "')",
    "select json_transform_strict('[]', '\"" + "x" * 10_000 + "\"')",
    "select lag(i, -9223372036854775808) over () from range(3) t(i)",
    "select lead(i, i) over () from range(3) t(i)",
    "select lag(i, 2147483649) over () from range(3) t(i)",
]

# A relation's name before `.*`, which DuckDB writes back without quotes: with them there is none such.
NAMES = [
    'select "tenant_id, event_type, count(*) from recent.rows_1 group by all --".* from events',
    "select \"tenant_id from read_parquet('{file}') --\".* from events",
    "select \"value from duckdb_settings() where name = 'allowed_directories' --\".* from events",
    "select \"1 as x; copy (select 42 as a) to '/tmp/owned.parquet'; select 7 --\".* from events",
    'select "1 as x; delete from recent.rows_1; select count(*) from recent.rows_1 --".* from events',
    'select columns("1) from recent.rows_1 --".*) from events',
]


@pytest.mark.parametrize("sql", ATTEMPTS)
def test_attempts_are_refused(served: Served, sql: str) -> None:
    assert served.view is not None
    file = served.view.silver.paths[0]
    assert "k" in file
    sql = sql.replace("{file}", file).replace("{kelvin}", file.replace("k", "\u212a"))
    with pytest.raises(RefusedError) as refused:
        served.sql(sql)
    assert str(refused.value)


@pytest.mark.parametrize("sql", NAMES)
def test_a_name_is_a_name(served: Served, sql: str) -> None:
    assert served.view is not None
    with pytest.raises(duckdb.BinderException, match="not found"):
        served.sql(sql.replace("{file}", served.view.silver.paths[0]))


def test_there_are_enough_attempts() -> None:
    assert len(set(ATTEMPTS)) == len(ATTEMPTS) >= 60


# SQL → its rows; the served lake has events 0 to 11, 8 of them in silver.
LEGITIMATE = {
    "select count(*) from events": [(12,)],
    "SELECT COUNT(*) FROM Events": [(12,)],
    'select count(*) from "events"': [(12,)],
    "select count(*) from silver.events": [(8,)],
    "select count(*) from bronze.events": [(10,)],
    "select count(*), min(reason) from silver.quarantine": [(2, "malformed_json")],
    "select count(*) from ops.landing_border": [(2,)],
    "select sum(event_count), sum(value_sum) from gold.events_hourly": [(None, None)],
    "select count(*) from gold.sources_daily, gold.event_types_top": [(0,)],
    "select count(*) from ops.ledger semi join ops.acks using (source_id)": [(0,)],
    "select 1": [(1,)],
    "select 1;": [(1,)],
    "/* a */ select 1 -- b": [(1,)],
    "values (1), (2)": [(1,), (2,)],
    "from range(3)": [(0,), (1,), (2,)],
    "table events limit 0": [],
    "from events select count(*)": [(12,)],
    "select e.event_type, count(*) from events e group by 1": [("t", 12)],
    "select events.event_type from events limit 1": [("t",)],
    "select silver.events.event_type from silver.events limit 1": [("t",)],
    "select count(*) from silver.events s join events e using (source_id, event_id)": [(8,)],
    "select count(*) from events e left join silver.events s on s.event_id = e.event_id"
    " where s.event_id is null": [(4,)],
    "select sum((payload ->> '$.n')::int) from events": [(66,)],
    "select sum(n) from (select (payload ->> 'n')::int as n from events)": [(66,)],
    "select max(json_extract(payload, '$.d')::double) from events": [(11.5,)],
    "with a as (select count(*) as n from events) select n from a": [(12,)],
    "with a as (select 1 as x), b as (select x + 1 as x from a) select * from a, b": [(1, 2)],
    "with events as (select * from events limit 3) select count(*) from events": [(3,)],
    "with A as (select 1) select * from a": [(1,)],
    "with a as (select 1) select (select * from a)": [(1,)],
    "with a as (select 5 as n) select count(*) from events, a where (payload ->> 'n')::int < n": [
        (5,)
    ],
    "with recursive r as (select 1 as i union all select i + 1 from r where i < 4)"
    " select sum(i) from r": [(10,)],
    "select count(*) from events where event_id in (select event_id from silver.events)": [(8,)],
    "select count(*) from events e where exists (select 1 from silver.events s"
    " where s.event_id = e.event_id)": [(8,)],
    "select row_number() over (order by event_time) as r from events qualify r <= 2": [(1,), (2,)],
    "select count(*) filter (where event_time >= timestamptz '2023-11-14 22:13:25+00') from events": [
        (7,)
    ],
    "select date_trunc('day', event_time)::date::varchar as d, count(*) from events group by all"
    " order by all": [("2023-11-14", 12)],
    "select count(distinct source_id) from events having count(*) > 5": [(1,)],
    "select case when 1 = 1 then 'it''s' end": [("it's",)],
    "select 'ü€\U0001f600', '\n'": [("ü€\U0001f600", "\n")],
    "select unnest([1, 2])": [(1,), (2,)],
    "select list_transform([1, 2], lambda x: x * 2)": [([2, 4],)],
    "select [x + 1 for x in [1, 2]]": [([2, 3],)],
    "select {'a': 1}.a, [1, 2][2], map {'k': 'v'}['k']": [(1, 2, "v")],
    "select sum(i) from range(10) t(i) where i between 2 and 4": [(9,)],
    "select count(*) from events using sample 100 percent": [(12,)],
    "select * from (values ('a', 1)) t(name, n)": [("a", 1)],
    "select 1 union all select 2 order by 1 desc": [(2,), (1,)],
    "select 1 intersect select 1": [(1,)],
    "select event_type, count(*) from events group by grouping sets ((event_type), ())"
    " order by 1 nulls last": [("t", 12), (None, 12)],
    "select * from (pivot silver.events on event_type in ('t') using count(*) group by tenant_id)": [
        ("default", 8)
    ],
    "select column_name from (describe silver.events) limit 1": [("tenant_id",)],
    "select count(*) from (summarize events)": [(19,)],
    "select try_cast('x' as int), coalesce(null, 2), nullif(1, 1)": [(None, 2, None)],
    "select 170141183460469231731687303715884105727::hugeint = 2::hugeint ^ 1": [(False,)],
    "select interval '1 day' + date '2024-01-01' = timestamp '2024-01-02'": [(True,)],
    "select '1 AND 2' like '% AND %', 'a%' like 'a\\%' escape '\\'": [(True, True)],
    "select regexp_extract('abc-12', '([a-z]+)-(\\d+)', 2)": [("12",)],
    "select * from json_each('[1, 2]')": None,
    "select count(*) from events e, lateral (select e.event_type as x) t where x = 't'": [(12,)],
    "select count(*) from events e1 join events e2 on e1.event_id = e2.event_id": [(12,)],
    "select e.event_id is not null from events e asof join silver.events s"
    " on e.event_time >= s.event_time limit 1": [(True,)],
    "select count(*) from events where payload like '%\"n\":7%'": [(1,)],
    "select pg_typeof(1), typeof(1)": [("integer", "INTEGER")],
    "select max(processed_at) is not null, current_date is not null from events": [(True, True)],
    # what DuckDB writes back in another way than it reads it
    'select "a b".* from (select 1 as x) as "a b"': [(1,)],
    'select "a"" --".* from (select 1 as x) as "a"" --"': [(1,)],
    'select "select".* exclude ("x y") from (select 1 as "x y", 2 as z) as "select"': [(2,)],
    'select ({"a\'b": 1})."a\'b"': [(1,)],
    "select s.\"a'b\" from (select {'a''b': 2} as s) t": [(2,)],
    "select typeof(1e10), 1e400 > 1e308, 1e0 is true": [("DOUBLE", True, True)],
    "select true is not false, null::boolean is unknown": [(True, True)],
    "select a.x, b.y, c.y from (values (1), (2)) a(x) cross join (values (1)) b(y)"
    " left join (values (1, 7)) c(x, y) using (x) order by x": [(1, 1, 7), (2, 1, None)],
    "select count(*) from (values (1)) a(x) left join"
    " ((values (1)) b(x) cross join range(3)) on a.x = b.x": [(3,)],
    "select count(*) from range(2), lateral (select range as r) t,"
    " (range(3) u join range(2) v on true)": [(12,)],
    "select u.x from (select [1, 2] as l) t cross join unnest(t.l) u(x) left join"
    " (select 1 as x) c using (x) order by 1": [(1,), (2,)],
    "select x, z, sum(n) from (values (1, 2, 3)) t(x, z, n) group by rollup (x), z order by 1 nulls"
    " last": [(1, 2, 3), (None, 2, 3)],
    "select count(*) from (select * from (values (1), (2)) valueslist) t, (values (3)) u": [(2,)],
    # names in the casts of types that Arrow has not
    'select \'101\'::bit as "a"" , --b",'
    " {'x\" int), y(': '1'::bit, 'z--': 'p'::enum('p', 'q'')')} as s": [
        ("101", {'x" int), y(': "1", "z--": "p"})
    ],
    # calls that are looked at
    "select list_aggr([1, 2], 'SUM'), [3, 4].list_aggregate('max')": [(3, 4)],
    "select l.list_aggr('quantile_cont', 0.5) from (select [1, 2] as l) t": [(1.5,)],
    'select from_json(\'{"a": [1]}\', \'{"a": ["INT"]}\').a': [([1],)],
    "select lag(i) over (), lag(i, 1, 9) over (), lead(i, -1) over () from range(2) t(i)": [
        (None, 9, None),
        (0, 0, 0),
    ],
}


@pytest.mark.parametrize("sql", LEGITIMATE)
def test_legitimate_queries_are_right(served: Served, sql: str) -> None:
    found = served.sql(sql)
    expected = LEGITIMATE[sql]
    if expected is not None:
        assert found == expected


def test_parameters_are_values(served: Served) -> None:
    assert served.sql("select count(*) from events where event_type = ?", "t") == [(12,)]
    assert served.sql("select $2, $1", "a", 5) == [(5, "a")]
    assert served.sql("select ?", "'; drop view dcp_events; --") == [
        ("'; drop view dcp_events; --",)
    ]


def test_a_tenant_sees_only_its_own(served: Served) -> None:
    for table, own, other in (("events", 12, 2), ("silver.events", 8, 1), ("bronze.events", 10, 1)):
        count = f"select count(*) from {table}"
        assert served.sql(count) == [(own,)]
        assert served.sql(count, tenant="other") == [(other,)]
        assert served.sql(count, tenant="x' or 'a' = 'a") == [(0,)]
        secret = f"select count(*) from {table} where event_type = 'secret'"
        assert served.sql(secret) == [(0,)]
    assert served.sql("select distinct tenant_id from events", tenant="other") == [("other",)]


def test_a_query_without_our_tables_needs_none() -> None:
    assert Guard().check("select 1").tables == frozenset()
    assert Guard().check("select * from EVENTS, silver.Events").tables == {
        "events",
        "silver.events",
    }
    assert "events" in TABLES


def test_what_runs_is_one_select() -> None:
    guard = Guard()
    strange = 'select "x"".* from y; --".* from events "x"".* from y; --"'
    for sql in [*LEGITIMATE, strange, "select $a_1 + $b"]:
        [statement] = duckdb.extract_statements(guard.check(sql).sql)
        assert statement.type == duckdb.StatementType.SELECT, sql


@pytest.mark.parametrize(
    "sql",
    [
        "select " + "(" * 5_000 + "1" + ")" * 5_000,
        "select " + "-" * 900 + "1",
        "select " + "(select " * 300 + "1" + ")" * 300,
        "select " + " + ".join(["1"] * 5_000),
        "select " + "[" * 400 + "]" * 400,
        "select 1 where " + " or ".join(f"{n} = {n}" for n in range(3_000)),
        "select " + "case when true then " * 400 + "1" + " end" * 400,
    ],
)
def test_deep_or_long_sql_is_answered_or_refused(served: Served, sql: str) -> None:
    with contextlib.suppress(RefusedError, duckdb.Error):
        served.sql(sql)


def test_nothing_was_written_to_the_engine(served: Served) -> None:
    """After all attempts the process has the views of no query, and its settings."""
    cursor = served.engine._cursors.recent.instance.cursor()
    rows = cursor.execute("select view_name from duckdb_views() where not internal").fetchall()
    assert rows == []
    with pytest.raises(duckdb.Error):
        cursor.execute("set enable_external_access = true")
    with pytest.raises(duckdb.PermissionException):
        cursor.execute("select * from read_text('/etc/hostname')")
