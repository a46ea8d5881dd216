"""What is asked: each class of question in the words of each of those who answer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from dc_platform.bench.query_lake import DAY_MS, DAYS, HOUR_MS, SOURCES, USERS, source_id, user_id

_QUARTER_MS = 15 * 60_000
# Questions that come before those that are timed.
WARM_UP = 3
_HOUR_SQL = f"epoch_ms(event_time) // {HOUR_MS}"
_HOUR_CLICKHOUSE = f"intDiv(toUnixTimestamp64Milli(event_time), {HOUR_MS})"


@dataclass(frozen=True)
class Asked:
    """One question: to serving [path, body], to DuckDB and ClickHouse SQL. `events` and `hourly` stand
    in the SQL for the tables.
    """

    api: tuple[str, dict[str, Any]]
    duckdb: str
    clickhouse: str


@dataclass(frozen=True)
class Kind:
    """A class of questions. `most` are asked by one client, `most_16` by 16, each for `seconds` at
    most. `peers`: those who answer it beside serving.
    """

    name: str
    questions: Sequence[Asked]
    most: int
    most_16: int
    seconds: float
    peers: tuple[str, ...] = ("duckdb", "clickhouse")


def kinds(end_ms: int, now_ms: int) -> list[Kind]:
    """The classes over a lake of 30 days that ends at `end_ms` (epoch milliseconds), with an hour
    before `now_ms` beside it.
    """
    random = Random(6)
    return [
        _kind("recent", lambda n: _recent(n, now_ms), 200, 4_000, 10.0),
        _kind("source", lambda n: _source(random, end_ms), 100, 400, 10.0),
        _kind("needle", lambda n: _needle(random, end_ms), 40, 100, 20.0),
        _kind("rollup", lambda n: _rollup(n, end_ms), 100, 1_000, 10.0),
        _kind("rollup_raw", lambda n: _rollup_raw(n, end_ms), 5, 16, 30.0),
        _kind("historical", lambda n: _historical(n, end_ms), 5, 16, 30.0),
    ]


def _kind(name: str, ask: Callable[[int], Asked], most: int, most_16: int, seconds: float) -> Kind:
    # As many questions as are asked, so that no cache of answers is measured.
    questions = [ask(n) for n in range(WARM_UP + most + most_16)]
    return Kind(name, questions, most, most_16, seconds)


def _recent(number: int, now_ms: int) -> Asked:
    start, end = now_ms - _QUARTER_MS + number, now_ms + 60_000
    body = {
        "from": start,
        "to": end,
        "filters": [{"field": "eventType", "operator": "=", "value": "click"}],
        "aggregations": [{"function": "COUNT", "groupBy": ["sourceId"], "as": "events"}],
        "limit": 20,
    }
    grouped = "group by source_id order by n desc, source_id limit 20"
    return Asked(
        ("/api/v1/query", body),
        f"select source_id, count(*) as n from events where {_between(start, end)}"
        f" and event_type = 'click' {grouped}",
        f"select source_id, toUInt32(count()) as n from events where {_between_clickhouse(start, end)}"
        f" and event_type = 'click' {grouped}",
    )


def _source(random: Random, end_ms: int) -> Asked:
    # Squared, as the lake's skew is: a source is asked for as often as it sends.
    source = source_id(int(random.random() ** 2 * SOURCES))
    start = end_ms - random.randrange(1, DAYS + 1) * DAY_MS
    end = start + DAY_MS
    body = {
        "from": start,
        "to": end,
        "filters": [{"field": "sourceId", "operator": "=", "value": source}],
        "aggregations": [{"function": "COUNT", "groupBy": ["eventType"], "as": "events"}],
    }
    rest = f"source_id = '{source}' group by event_type order by n desc, event_type"
    return Asked(
        ("/api/v1/query", body),
        f"select event_type, count(*) as n from events where {_between(start, end)} and {rest}",
        "select event_type, toUInt32(count()) as n from events where"
        f" {_between_clickhouse(start, end)} and {rest}",
    )


def _needle(random: Random, end_ms: int) -> Asked:
    # Of the half with fewer events: 17 to 26 among 100,000,000.
    user = user_id(random.randrange(USERS // 2, USERS))
    start = end_ms - DAYS * DAY_MS
    body = {
        "from": start,
        "to": end_ms,
        "filters": [{"field": "userId", "operator": "=", "value": user}],
        "limit": 100,
    }
    rest = "order by event_time desc, event_id limit 100"
    columns = "event_id, source_id, event_time, event_type, payload"
    return Asked(
        ("/api/v1/query", body),
        f"select {columns} from events where {_between(start, end_ms)}"
        f" and (payload->>'$.userId') = '{user}' {rest}",
        f"select {columns} from events where {_between_clickhouse(start, end_ms)}"
        f" and user = '{user}' {rest}",
    )


def _rollup(number: int, end_ms: int) -> Asked:
    # A condition that all rows meet, and no two questions alike.
    other = f"none-{number}"
    body = {
        "from": end_ms - DAYS * DAY_MS,
        "to": end_ms,
        "filters": [{"field": "eventType", "operator": "!=", "value": other}],
        "aggregations": [{"function": "COUNT", "groupBy": ["timestamp:1h"]}],
    }
    rest = f"where event_type <> '{other}' group by h order by h"
    return Asked(
        ("/api/v1/query", body),
        f"select epoch_ms(hour) as h, sum(event_count) as n from hourly {rest}",
        f"select h * {HOUR_MS} as ms, toUInt32(sum(event_count)) as n from hourly {rest}",
    )


def _rollup_raw(number: int, end_ms: int) -> Asked:
    start = end_ms - DAYS * DAY_MS - number
    return _over_events("", start, end_ms)


def _historical(number: int, end_ms: int) -> Asked:
    start = end_ms - DAYS * DAY_MS - number
    return _over_events("event_type, ", start, end_ms)


def _over_events(keys: str, start: int, end: int) -> Asked:
    rest = f"group by {keys}h order by {keys}h"
    columns = f"{keys}{_HOUR_SQL} as h, count(*) as n"
    sql = f"select {columns} from events where {_between(start, end)} {rest}"
    clickhouse = (
        f"select {keys}toUInt32({_HOUR_CLICKHOUSE}) as h, toUInt32(count()) as n from events where"
        f" {_between_clickhouse(start, end)} {rest}"
    )
    return Asked(("/api/v1/sql", {"sql": sql}), sql, clickhouse)


def _between(start: int, end: int) -> str:
    return (
        f"event_time >= make_timestamptz({start * 1000})"
        f" and event_time < make_timestamptz({end * 1000})"
    )


def _between_clickhouse(start: int, end: int) -> str:
    return (
        f"event_time >= fromUnixTimestamp64Milli({start})"
        f" and event_time < fromUnixTimestamp64Milli({end})"
    )


def comparable(kind: str, answer: list[list[Any]]) -> list[tuple[str, ...]]:
    """An answer in a form that all share: of events their ids, else the rows as text."""
    if kind == "needle":
        return [(str(row[0]),) for row in answer]
    return [tuple(str(value) for value in row) for row in answer]
