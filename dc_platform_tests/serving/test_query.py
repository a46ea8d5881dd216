"""Queries of design 4.2 against a naive evaluation in Python, and attempts to break out of them."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dc_platform.contracts.fields import QueryError
from dc_platform.serving.answers import answer
from dc_platform.serving.query import Compiled, Query
from dc_platform_tests.gold.lakes import land
from dc_platform_tests.helpers.events import NOW, TRAPS, some_uuid
from dc_platform_tests.helpers.lake import silver_row
from dc_platform_tests.helpers.records import SOURCE, block, gateway_line
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.serving.planned import Planned

BIG = 9_007_199_254_740_992
scalars = st.one_of(
    st.integers(-5, 5),
    st.sampled_from((0.5, 2.5, -1.5, BIG, BIG + 1, BIG + 2, -BIG - 1, 10**19, True, False, None)),
    st.sampled_from(("", "a", "b", "5", "0.5", "true", "nan", "inf", "1e3", str(BIG + 1), *TRAPS)),
)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "n": scalars,
        "user name": scalars,
        "o": st.fixed_dictionaries({}, optional={"a": scalars, "b": st.lists(scalars, max_size=3)}),
        "timestamp": scalars,
        "$p0": scalars,
    },
)
events = st.fixed_dictionaries(
    {
        "eventType": st.sampled_from(("t", "u", "'; drop view events; --")),
        "payload": payloads,
    },
    optional={
        "timestamp": st.integers(NOW - 5, NOW + 5),
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "version": st.sampled_from(("1", "2", "10", "v2")),
                "tags": st.dictionaries(st.sampled_from(("k", "a.b")), st.sampled_from("x15")),
            },
        ),
    },
)
Event = dict[str, Any]


class World:
    """Events, some landed, some in the tail, and the naive truth about them."""

    def __init__(self, served: Served, found: list[Event]) -> None:
        self.served = served
        self.events = [
            {**event, "eventId": some_uuid(number), "sourceId": SOURCE}
            for number, event in enumerate(found)
        ]
        lines = [gateway_line(json.dumps(event).encode()) for event in self.events]
        half = len(lines) // 2
        landed = [block(lines[:half], 0)] if half else []
        served.view = view(served.lake, landed, [[block(lines[half:], 1)]])

    def ask(self, **query: Any) -> dict[str, Any]:
        assert self.served.view is not None
        return answer(
            self.served.engine,
            self.served.view,
            Query.model_validate(query),
            tenant_id="default",
        )


def text_of(value: Any) -> str | None:
    """What `->>` gives."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def field_of(event: Event, field: str) -> str | int | None:
    """The value of a field: times as milliseconds, anything else as text."""
    metadata = event.get("metadata") or {}
    if field == "timestamp":
        return event.get("timestamp", NOW)
    if field in ("eventType", "eventId", "sourceId"):
        return str(event[field])
    if field == "metadata.version":
        return str(metadata.get("version", "1"))
    if field.startswith("metadata.tags."):
        found = (metadata.get("tags") or {}).get(field.removeprefix("metadata.tags."))
        return None if found is None else str(found)
    value: Any = event["payload"]
    for step in re.findall(r"[^.\[\]]+|\[\d+\]", field.removeprefix("payload.")):
        if step.startswith("["):
            at = int(step[1:-1])
            value = value[at] if isinstance(value, list) and at < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return text_of(value)


def number_of(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def compare(left: Any, operator: str, right: Any) -> bool:
    if left is None or right is None:
        return False
    return bool(
        {
            "=": left == right,
            "!=": left != right,
            "<": left < right,
            "<=": left <= right,
            ">": left > right,
            ">=": left >= right,
        }[operator]
    )


def holds(event: Event, field: str, operator: str, value: Any) -> bool:
    found = field_of(event, field)
    if operator == "exists":
        return (found is not None) == (value is not False)
    if operator in ("in", "not in"):
        within = any(holds(event, field, "=", one) for one in value)
        return within == (operator == "in")
    if operator == "contains":
        return isinstance(found, str) and value in found
    if value is None:
        return (found is None) == (operator == "=")
    if field == "timestamp":
        return compare(found, operator, value)
    if isinstance(value, bool):
        return compare(found, operator, "true" if value else "false")
    if isinstance(value, int | float) and not field.startswith(("event", "source")):
        number, right = number_of(found), float(value)
        if isinstance(found, str) and re.fullmatch(r"-?\d+", found) and abs(value) >= 2**53:
            number, right = int(found), value
        if operator == "!=":
            return found is not None and number != right
        return compare(number, operator, right)
    return compare(found, operator, str(value))


FIELDS = ("n", "payload.n", "user name", "o.a", "o.b[0]", "o.b[1]", "o", "o.b", "payload.timestamp")
COLUMNS = ("eventType", "metadata.version", "metadata.tags.k", "metadata.tags.a.b", "$p0")
filters = st.one_of(
    st.builds(
        lambda f, o, v: {"field": f, "operator": o, "value": v},
        st.sampled_from((*FIELDS, *COLUMNS)),
        st.sampled_from(("=", "!=", "<", "<=", ">", ">=")),
        scalars.filter(lambda value: value is not None),
    ),
    st.builds(
        lambda f, o, v: {"field": f, "operator": o, "value": v},
        st.sampled_from((*FIELDS, *COLUMNS)),
        st.sampled_from(("in", "not in")),
        st.lists(scalars, max_size=4),
    ),
    st.builds(
        lambda f, o: {"field": f, "operator": o, "value": None},
        st.sampled_from((*FIELDS, *COLUMNS)),
        st.sampled_from(("=", "!=", "exists")),
    ),
    st.builds(
        lambda f, v: {"field": f, "operator": "contains", "value": v},
        st.sampled_from((*FIELDS, *COLUMNS)),
        st.sampled_from(("a", "5", "", "%", "'", *TRAPS)),
    ),
    st.builds(
        lambda o, v: {"field": "timestamp", "operator": o, "value": v},
        st.sampled_from(("=", "!=", "<", "<=", ">", ">=")),
        st.integers(NOW - 3, NOW + 3),
    ),
)


MANY: dict[str, list[Any]] = {
    "n": [
        *(None, True, 5, 5.0, 1.5, 2**60, 2**60 + 1, -(2**70), 10**40),
        *("5", "x", "", "a\0b", "é'", "null"),
    ],
    "o": ['{"a":1}', 7],
    "metadata.version": ["1", 9, None, False],
    "metadata.tags.k": ["x", 1, None],
    "sourceId": ["s", None, 3],
    "eventId": [str(some_uuid(1)).upper(), "order-1", 3, True, None],
    "timestamp": [NOW, NOW + 1, "2023-11-14T22:13:20Z", None],
}


def test_a_long_list_finds_what_a_short_one_does(
    directory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = ["5", "5.0", "1.5", "true", f"{2**60}", f"{2**60 + 1}", f"{-(2**70)}", "1e40"]
    payloads += [f"{10**40}", '"5"', '"x"', '""', '"a\\u0000b"', '"é\'"', "null", '"null"', "[1]"]
    lines = [
        b'{"eventType":"t","eventId":"%s","timestamp":%d,"metadata":{"tags":{"k":"x"}},'
        b'"payload":{%s}}'
        % (
            b"order-%d" % n if n % 2 else str(some_uuid(n)).encode(),
            NOW + n,
            f'"n":{payload},"o":{{"a":1}}'.encode() if n % 5 else b"",
        )
        for n, payload in enumerate(payloads, 1)
    ]
    served = Served(directory.mktemp("served"))
    served.view = view(served.lake, [], [[block([gateway_line(line) for line in lines])]])

    def found(field: str, operator: str, values: list[Any]) -> set[Any]:
        only = {"field": field, "operator": operator, "value": values}
        asked = Query.model_validate({"filters": [only]})
        assert served.view is not None
        rows = answer(served.engine, served.view, asked, tenant_id="default")["results"]
        return {row["timestamp"] for row in rows}

    short: dict[Any, set[Any]] = {}
    long: dict[Any, set[Any]] = {}
    for few, kept in ((16, short), (0, long)):
        monkeypatch.setattr("dc_platform.serving.conditions._FEW", few)
        for field, values in MANY.items():
            for operator in ("in", "not in"):
                for some in (values, *([value] for value in values)):
                    kept[(field, operator, repr(some))] = found(field, operator, some)
    assert long == short
    # A scan of so many alternatives has no end.
    many = [*range(5000), *(f"text {n}" for n in range(4999)), "x"]
    assert found("n", "in", many) == found("n", "in", [5, "x"])
    with pytest.raises(QueryError, match="at most 10000 values"):
        found("n", "in", [*many, 1])
    with pytest.raises(QueryError, match="needs a single value"):
        found("n", "in", [*many[:20], {}])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory


@given(
    st.lists(events, max_size=12), st.lists(st.lists(filters, max_size=2), min_size=6, max_size=6)
)
@settings(max_examples=25)
def test_filters_agree_with_python(
    directory: Any, found: list[Event], queries: list[list[dict[str, Any]]]
) -> None:
    world = World(Served(directory.mktemp("served")), found)
    for conditions in queries:
        expected = [
            event
            for event in world.events
            if all(holds(event, c["field"], c["operator"], c["value"]) for c in conditions)
        ]
        expected.sort(key=lambda e: (-e.get("timestamp", NOW), e["eventId"]))
        result = world.ask(filters=conditions)
        assert [event["eventId"] for event in result["results"]] == [
            event["eventId"] for event in expected
        ]
        assert result["totalCount"] == len(expected)


def test_more_of_one_filter_each(directory: Any) -> None:
    """Every field with every operator and value, over events that have every value."""
    values = [-1, 5, 0.5, BIG, BIG + 1, 10**19, True, None, "", "a", "5", "nan", *TRAPS]
    values += ["1" + "0" * 41, "-1" + "0" * 41, "1e400"]
    found: list[Event] = [{"eventType": "t", "payload": {"n": value}} for value in values]
    found += [
        {"eventType": "u", "payload": {}},
        {"eventType": "t", "payload": {"n": [1, {"a": 2}]}},
    ]
    world = World(Served(directory.mktemp("served")), found)
    for operator in ("=", "!=", "<", "<=", ">", ">="):
        for value in values:
            if value is None and operator not in ("=", "!="):
                continue
            asked = {"field": "n", "operator": operator, "value": value}
            result = world.ask(filters=[asked])
            expected = {e["eventId"] for e in world.events if holds(e, "n", operator, value)}
            assert {event["eventId"] for event in result["results"]} == expected, asked


functions = st.sampled_from(("COUNT", "SUM", "AVG", "MIN", "MAX", "P50", "P95", "P99", "UNIQUE"))
aggregations = st.builds(
    lambda field, function, keys: {"field": field, "function": function, "groupBy": keys},
    st.sampled_from(("n", "o.a", "user name", "$p0")),
    functions,
    st.lists(
        st.sampled_from(("eventType", "n", "metadata.tags.k", "o.a")), max_size=2, unique=True
    ),
)


def aggregate(group: list[Event], field: str, function: str) -> Any:
    texts = [text for event in group if (text := field_of(event, field)) is not None]
    if function == "COUNT":
        return len(texts)
    if function == "UNIQUE":
        return len(set(texts))
    numbers = sorted(n for text in texts if (n := number_of(text)) is not None)
    if not numbers:
        return None
    if function in ("SUM", "AVG"):
        total = math.fsum(numbers)
        return total / len(numbers) if function == "AVG" else total
    if function in ("MIN", "MAX"):
        return numbers[0] if function == "MIN" else numbers[-1]
    at = (len(numbers) - 1) * int(function[1:]) / 100
    low, high = numbers[math.floor(at)], numbers[math.ceil(at)]
    return low + (high - low) * (at - math.floor(at))


@given(st.lists(events, max_size=12), st.lists(aggregations, min_size=1, max_size=4))
@settings(max_examples=30)
def test_aggregations_agree_with_python(
    directory: Any, found: list[Event], asked: list[dict[str, Any]]
) -> None:
    world = World(Served(directory.mktemp("served")), found)
    for one in asked:
        result = world.ask(aggregations=[{**one, "as": "value"}])
        groups: dict[tuple[Any, ...], list[Event]] = defaultdict(list)
        if not one["groupBy"]:
            groups[()] = list(world.events)
        for event in world.events:
            key = tuple(field_of(event, name) for name in one["groupBy"])
            if one["groupBy"]:
                groups[key].append(event)
        expected = {
            key: aggregate(members, one["field"], one["function"])
            for key, members in groups.items()
        }
        got = {
            tuple(row[name] for name in one["groupBy"]): row["value"] for row in result["results"]
        }
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            # Doubles are added in any order: what is large may leave that much behind.
            assert (got[key] is None) == (value is None)
            if value is not None:
                assert got[key] == pytest.approx(
                    value, rel=1e-9, abs=1e5 if abs(value) > 99 else 1e-9
                )
        assert len(got) == len(result["results"])
        values = [row["value"] for row in result["results"]]
        present = [value for value in values if value is not None]
        assert values[: len(present)] == sorted(present, reverse=True)
        assert result["totalCount"] == len(world.events)


def test_several_groupings_at_once(directory: Any) -> None:
    found = [{"eventType": t, "payload": {"n": n}} for t, n in (("t", 1), ("t", 2), ("u", 3))]
    world = World(Served(directory.mktemp("served")), found)
    result = world.ask(
        aggregations=[
            {"function": "count"},
            {"function": "sum", "field": "n", "groupBy": ["eventType"]},
            {"function": "Max", "field": "n", "groupBy": ["eventType"], "as": "most"},
            {"function": "COUNT", "field": "*", "as": "$p0"},
        ]
    )
    assert result["results"] == [
        {"count": 3, "$p0": 3},
        {"eventType": "t", "sum_n": 3.0, "most": 2.0},
        {"eventType": "u", "sum_n": 3.0, "most": 3.0},
    ]


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("=", 10, {"10", "10.0"}),
        ("!=", 10, {"9", "v2"}),
        (">", 9, {"10", "10.0"}),
        ("<=", 9.5, {"9"}),
        ("in", [9, "v2"], {"9", "v2"}),
        ("not in", [9, "v2"], {"10", "10.0"}),
        (">", "9", {"v2"}),
        ("=", "10", {"10"}),
    ],
)
@pytest.mark.parametrize("field", ["metadata.version", "metadata.tags.k"])
def test_versions_and_tags_are_compared_with_numbers(
    directory: Any, field: str, operator: str, value: Any, expected: set[str]
) -> None:
    if not _versions:
        found: list[Event] = [
            {"eventType": "t", "payload": {}, "metadata": {"version": v, "tags": {"k": v}}}
            for v in ("9", "10", "10.0", "v2")
        ]
        _versions.append(World(Served(directory.mktemp("served")), found))
    asked = [{"field": field, "operator": operator, "value": value}]
    results = _versions[0].ask(filters=asked)["results"]
    assert {event["metadata"]["version"] for event in results} == expected


_versions: list[World] = []


def test_a_flag_is_found_by_its_name_or_how_it_begins(tmp_path: Path) -> None:
    made = Planned(tmp_path)
    flags = [["late"], ["verylate", "warn:a:range"], ["warn:ab:type", "late"], [], None]
    land(made.lake, [silver_row(n, flags=given) for n, given in enumerate(flags)])

    def found(operator: str, value: Any) -> set[int]:
        asked = [{"field": "metadata.flags", "operator": operator, "value": value}]
        results = made.ask(made.view(), filters=asked)["results"]
        return {n for n in range(5) if some_uuid(n) in {event["eventId"] for event in results}}

    assert found("contains", "late") == {0, 2}
    assert found("contains", "warn:a") == set()
    assert found("contains", "warn:a:range") == {1}
    assert found("starts with", "warn:") == {1, 2}
    assert found("starts with", "warn:a:") == {1}
    assert found("starts with", "late") == {0, 2}
    assert found("exists", True) == {0, 1, 2, 3}
    with pytest.raises(QueryError, match="use contains, starts with, or exists"):
        found("ends with", "late")


def test_an_event_comes_back_as_it_was_sent(directory: Any) -> None:
    payload = b'{"price":1.10, "u":"\\u00e9"}'
    raw = b'{"eventType":"t","eventId":"order-1","timestamp":5,"metadata":{"tags":{"k":"x"}},'
    served = Served(directory.mktemp("served"))
    served.view = view(
        served.lake, [], [[block([gateway_line(raw + b'"payload":' + payload + b"}")])]]
    )
    [event] = answer(served.engine, served.view, Query(), tenant_id="default")["results"]
    assert bytes(event["payload"]) == payload
    decoded = msgspec.json.decode(msgspec.json.encode(event))
    assert decoded["timestamp"] == 5
    assert decoded["clientEventId"] == "order-1"
    assert decoded["metadata"] == {
        "receivedAt": NOW,
        "processedAt": None,
        "version": "1",
        "tags": {"k": "x"},
        "flags": ["late"],
    }
    for operator, value, found in (
        ("contains", "late", 1),
        ("contains", "warn", 0),
        ("exists", False, 0),
    ):
        only = {"field": "metadata.flags", "operator": operator, "value": value}
        asked = Query.model_validate({"filters": [only]})
        counted = answer(served.engine, served.view, asked, tenant_id="default")
        assert counted["totalCount"] == found


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (NOW, None, [3, 2]),
        (NOW + 1, None, [3]),
        (None, NOW, [1, 0]),
        (NOW - 1, NOW + 1, [2, 1]),
        ("2023-11-14T22:13:20Z", None, [3, 2]),
        ("2023-11-14 22:13:20", None, [3, 2]),
        ("2023-11-15T00:13:20.001+02:00", None, [3]),
        ("2023-11-14", "2023-11-15", [3, 2, 1, 0]),
        (NOW + 0.5, None, [3]),
        (NOW, NOW, []),
        ("0001-01-01T00:00:00-14:00", "9999-12-31T23:59:59+14:00", [3, 2, 1, 0]),
    ],
)
def test_the_range_is_half_open(directory: Any, start: Any, end: Any, expected: list[int]) -> None:
    times = (NOW - 2, NOW - 1, NOW, NOW + 1)
    found = [{"eventType": "t", "payload": {}, "timestamp": at} for at in times]
    world = World(Served(directory.mktemp("served")), found)
    result = world.ask(**{"from": start, "to": end})
    assert [event["eventId"] for event in result["results"]] == [some_uuid(n) for n in expected]


def test_times_are_exact_to_the_microsecond() -> None:
    for text in ("0001-01-01T00:00:00.000001", "9999-12-31T23:59:59.999999"):
        at = datetime.fromisoformat(text).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        expected = (at.days * 86_400 + at.seconds) * 10**6 + at.microseconds
        assert Compiled(Query.model_validate({"from": text})).from_us == expected


HOSTILE = [
    '"',
    "'",
    "n' or '1' = '1",
    'n" or "1" = "1',
    "n) or (1 = 1",
    "n; drop view events",
    "events.tenant_id",
    "tenant_id",
    "$p0",
    "$.n",
    "*",
    "**",
    "n\\",
    "\\",
    "n\x00",
    "n[",
    "n[-1]",
    "n[#-1]",
    "n[*]",
    "n[99999999999]",
    "n..m",
    ".n",
    "n.",
    "[0]",
    "payload.",
    "metadata.tags.' or 1=1 --",
    "metadata.tags.",
    "--",
    "/*",
    "\U0001f600",
    "x" * 512,
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["filter", "value", "field", "group", "alias"])
def test_names_and_values_never_become_sql(directory: Any, name: str, place: str) -> None:
    """Another tenant's event is there to be found; no query finds it, none fails in the engine."""
    served = hostile_world(directory)
    query: dict[str, Any] = {
        "filter": {"filters": [{"field": name, "operator": "!=", "value": "x"}]},
        "value": {"filters": [{"field": "n", "operator": "!=", "value": name}]},
        "field": {"aggregations": [{"function": "MAX", "field": name}]},
        "group": {"aggregations": [{"function": "COUNT", "groupBy": [name]}]},
        "alias": {"aggregations": [{"function": "COUNT", "as": name[:128], "groupBy": ["n"]}]},
    }[place]
    assert served.view is not None
    try:
        result = answer(
            served.engine, served.view, Query.model_validate(query), tenant_id="default"
        )
    except QueryError:
        return
    assert result["totalCount"] <= 1
    assert b"secret" not in msgspec.json.encode(result)


_hostile: list[Served] = []


def hostile_world(directory: Any) -> Served:
    if not _hostile:
        served = Served(directory.mktemp("served"))
        own = gateway_line(b'{"eventType":"t","payload":{"n":1}}')
        secret = gateway_line(b'{"eventType":"secret","payload":{"n":"secret"}}')
        blocks = [block([own], 0), block([secret], 1, tenant="other")]
        served.view = view(served.lake, blocks[:1], [blocks[1:]])
        _hostile.append(served)
    return _hostile[0]


@pytest.mark.parametrize(
    "query",
    [
        {"filters": [{"field": "metadata.tags", "operator": "=", "value": "x"}]},
        {"filters": [{"field": "metadata.flags", "operator": "=", "value": "late"}]},
        {"filters": [{"field": "n", "operator": "in", "value": "x"}]},
        {"filters": [{"field": "n", "operator": "contains", "value": 5}]},
        {"filters": [{"field": "n", "operator": "<", "value": None}]},
        {"filters": [{"field": "n", "operator": "=", "value": {"a": 1}}]},
        {"filters": [{"field": "timestamp", "operator": "=", "value": "soon"}]},
        {"filters": [{"field": "timestamp", "operator": "=", "value": True}]},
        {"aggregations": [{"function": "SUM"}]},
        {"from": 10**20},
        {"to": float("inf")},
        {"from": float("nan")},
        {"from": "yesterday"},
        {"from": "0001-01-01T00:00:00+14:00"},
        {"to": "9999-12-31T23:59:59-14:00"},
    ],
)
def test_what_makes_no_sense_is_said_so(query: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        Compiled(Query.model_validate(query))


@pytest.mark.parametrize(
    "query",
    [
        {"filters": [{"field": "", "operator": "=", "value": 1}]},
        {"filters": [{"field": "n", "operator": "like", "value": 1}]},
        {"filters": [{"field": "n", "operator": "=", "value": 1, "more": 2}]},
        {"aggregations": [{"function": "STDDEV", "field": "n"}]},
        {"limit": -1},
        {"limit": 100_001},
        {"unknown": 1},
        {"from": [1]},
        {"filters": [{"field": "n", "operator": "=", "value": math.nan}]},
        {"filters": [{"field": "n", "operator": "in", "value": [1, math.inf]}]},
        {"filters": [{"field": "n", "operator": "=", "value": "x\ud800"}]},
        {"filters": [{"field": "n", "operator": "in", "value": ["\udc00"]}]},
        {"filters": [{"field": "metadata.tags.\ud800", "operator": "exists"}]},
        {"aggregations": [{"function": "MAX", "field": "\ud800"}]},
        {"aggregations": [{"function": "COUNT", "groupBy": ["\ud800"]}]},
        {"aggregations": [{"function": "COUNT", "as": "\ud800"}]},
        {"orderBy": [{"field": "\ud800"}]},
    ],
)
def test_what_is_no_query_is_refused(query: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Query.model_validate(query)


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), 2**126, -(2**130), 1.5e308, 2**53],
    ids=["1e400", "-1e400", "2^126", "-2^130", "1.5e308", "2^53"],
)
def test_numbers_of_any_size_can_be_asked_for(directory: Any, value: float) -> None:
    served = hostile_world(directory)
    assert served.view is not None
    for operator, count in (("=", 0), ("<" if value > 0 else ">", 1)):
        query = Query.model_validate(
            {"filters": [{"field": "n", "operator": operator, "value": value}]}
        )
        result = answer(served.engine, served.view, query, tenant_id="default")
        assert result["totalCount"] == count


def test_the_limit_cuts_results_and_not_the_count(directory: Any) -> None:
    found = [{"eventType": "t", "payload": {"n": n}} for n in range(9)]
    world = World(Served(directory.mktemp("served")), found)
    assert len(world.ask(limit=4)["results"]) == 4
    assert world.ask(limit=4)["totalCount"] == 9
    assert world.ask(limit=0)["results"] == []


def test_groups_add_up_to_the_count_or_it_is_counted_apart(
    directory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [{"eventType": "tuvvw"[n % 5], "payload": {"n": n % 3}} for n in range(11)]
    world = World(Served(directory.mktemp("served"), query_cache_mb=0), found)
    counted: list[str] = []
    run = world.served.engine.run_on_events

    def noted(sql: str, *asked: Any, **more: Any) -> Any:
        counted.append(sql)
        return run(sql, *asked, **more)

    monkeypatch.setattr(world.served.engine, "run_on_events", noted)
    by_type = {"function": "COUNT", "groupBy": ["eventType"]}
    top = {"function": "TOPK", "field": "eventType"}
    of_n = {"function": "AVG", "field": "n", "groupBy": ["eventType"]}
    for many in (1, 10_000):
        monkeypatch.setattr("dc_platform.serving.query._FEW_TYPES", many)
        for asked in ([by_type], [of_n], [by_type, of_n], [{"function": "COUNT"}]):
            for limit in (1, 3, 4, 5):
                counted.clear()
                answered = world.ask(aggregations=asked, limit=limit)
                groups = 1 if asked == [{"function": "COUNT"}] else 4
                assert answered["totalCount"] == 11
                assert len(answered["results"]) == min(limit, groups)
                assert answered.get("more", False) == (limit < groups)
                assert len(counted) == 1 + (many == 1 and limit < groups)
        # One grouping is cut, another one tells.
        both = [by_type, top, {"function": "COUNT", "as": "all"}]
        assert world.ask(aggregations=both, limit=2)["totalCount"] == 11
        by_n = {"function": "COUNT", "groupBy": ["n"]}
        assert world.ask(aggregations=[by_n], limit=2)["totalCount"] == 11
        nothing = [{"field": "eventType", "operator": "=", "value": "none"}]
        assert world.ask(aggregations=[by_type], filters=nothing)["totalCount"] == 0
