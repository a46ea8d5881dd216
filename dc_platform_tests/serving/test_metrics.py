"""GET /api/v1/metrics/{name} over the union, against a count by hand."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import httpx
import numpy as np
import pytest

from dc_platform.contracts.metrics import AggregationType, Definition
from dc_platform.registry.metrics import Metrics
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.serving import metrics as endpoint
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.records import SOURCE, block, gateway_line
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door

MINUTE = 60_000
START = NOW - NOW % 3_600_000
DIMENSIONS = ("country", "metadata.tags.zone")


def events() -> list[dict[str, Any]]:
    chance = random.Random(7)
    return [
        {
            "eventId": some_uuid(number),
            "eventType": chance.choice(["view", "click"]),
            "timestamp": START + chance.randrange(30 * MINUTE),
            "payload": {
                "duration": chance.choice([chance.randrange(1000) / 8, "x", None]),
                "user": f"u{chance.randrange(20)}",
                **({"country": chance.choice(["DE", "it's"])} if number % 5 else {}),
            },
            "metadata": {"tags": {"zone": chance.choice("ab")}},
        }
        for number in range(400)
    ]


EVENTS = events()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    """Half of the events in silver, half in the tail; some of another tenant; metrics of each kind."""
    served = Served(tmp_path_factory.mktemp("served"))
    lines = [gateway_line(json.dumps(event).encode()) for event in EVENTS]
    other = gateway_line(b'{"eventType":"view","payload":{"duration":1,"user":"o"}}')
    served.view = view(
        served.lake,
        [block(lines[:200], 0), block([other], 1, tenant="other")],
        [[block(lines[200:], 2)]],
    )
    made = Door(served)
    for kind in AggregationType:
        field = {"COUNT": None, "UNIQUE": "user"}.get(kind.value, "duration")
        Metrics(made.database).create(Definition(kind.lower(), kind, field, "view", DIMENSIONS))
    return made


def ask(door: Door, name: str, **query: Any) -> httpx.Response:
    query = {("from" if k == "from_" else k): v for k, v in query.items()}
    return request(door.app, "GET", f"/api/v1/metrics/{name}", headers=door.headers, params=query)


def value_of(kind: AggregationType, found: list[dict[str, Any]]) -> float | None:
    if kind is AggregationType.COUNT:
        return float(len(found))
    if kind is AggregationType.UNIQUE:
        return float(len({event["payload"]["user"] for event in found}))
    values = [v for e in found if isinstance(v := e["payload"]["duration"], int | float)]
    if not values:
        return None
    return float(
        {
            "SUM": np.sum,
            "AVG": np.mean,
            "MIN": np.min,
            "MAX": np.max,
            "P50": lambda v: np.quantile(v, 0.5),
            "P95": lambda v: np.quantile(v, 0.95),
            "P99": lambda v: np.quantile(v, 0.99),
        }[kind.value](values)
    )


@pytest.mark.parametrize("kind", list(AggregationType))
@pytest.mark.parametrize(
    ("granularity", "span"), [("1m", MINUTE), ("5m", 5 * MINUTE), ("1h", 60 * MINUTE)]
)
def test_every_aggregation_at_every_granularity(
    door: Door, kind: AggregationType, granularity: str, span: int
) -> None:
    first, last = START + 5 * MINUTE, START + 25 * MINUTE
    answer = ask(
        door,
        kind.lower(),
        from_=first,
        to=last,
        granularity=granularity,
        dimensions="country, metadata.tags.zone",
    )
    assert answer.status_code == 200, answer.text
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for event in EVENTS:
        if event["eventType"] == "view" and first <= event["timestamp"] < last:
            at = event["timestamp"] // span * span
            zone = event["metadata"]["tags"]["zone"]
            groups[at, event["payload"].get("country"), zone].append(event)
    expected = {key: value_of(kind, found) for key, found in groups.items()}
    points = answer.json()["datapoints"]
    found = {
        (p["timestamp"], p["dimensions"].get("country"), p["dimensions"]["metadata.tags.zone"]): p[
            "value"
        ]
        for p in points
    }
    assert len(found) == len(points) > 3
    assert found == pytest.approx({k: v for k, v in expected.items() if v is not None}, rel=1e-9)
    assert [p["timestamp"] for p in points] == sorted(p["timestamp"] for p in points)


def test_without_anything_it_is_all_of_the_tenant(door: Door) -> None:
    counted = ask(door, "count", granularity="365d").json()["datapoints"]
    views = sum(event["eventType"] == "view" for event in EVENTS)
    assert [(p["value"], p["dimensions"]) for p in counted] == [(views, {})]
    [by_source] = ask(door, "count", granularity="365d", dimensions="sourceId").json()["datapoints"]
    assert by_source["dimensions"] == {"sourceId": SOURCE}
    minutes = ask(door, "count").json()["datapoints"]
    assert {p["timestamp"] % MINUTE for p in minutes} == {0}
    assert sum(p["value"] for p in minutes) == views
    later = ask(door, "count", from_="2024-01-01T00:00:00Z").json()
    assert later == {"datapoints": []}


def test_another_tenant_has_its_own_metrics_and_events(door: Door) -> None:
    token = Tokens(door.database).create(Scope.QUERY, tenant_id="other")
    headers = {"Authorization": f"Bearer {token}"}
    path = "/api/v1/metrics/count"
    assert request(door.app, "GET", path, headers=headers).status_code == 404
    Metrics(door.database).create(Definition("count", AggregationType.COUNT), tenant_id="other")
    [point] = request(door.app, "GET", path, headers=headers).json()["datapoints"]
    assert point["value"] == 1


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"granularity": "1w"}, "granularity: a number and s, m, h or d"),
        ({"granularity": "0m"}, "granularity: a number"),
        ({"granularity": "5m; drop"}, "granularity: a number"),
        ({"dimensions": "city"}, "dimensions: sum has country, metadata.tags.zone, sourceId"),
        ({"dimensions": "country') --"}, "dimensions: sum has"),
        ({"from_": "yesterday"}, "from: expected epoch milliseconds"),
        ({"to": "1e3"}, "to: expected epoch milliseconds"),
        ({"from_": 10**16}, "from: 10000000000000000 is not within"),
    ],
)
def test_what_makes_no_sense_is_named(door: Door, query: dict[str, Any], words: str) -> None:
    answer = ask(door, "sum", **query)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(words)


def test_what_is_not_there_or_not_allowed(door: Door) -> None:
    assert ask(door, "nothing").status_code == 404
    assert ask(door, "'; drop table metrics; --").status_code == 404
    assert request(door.app, "GET", "/api/v1/metrics/sum").status_code == 401


def test_too_many_datapoints_are_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_DATAPOINTS", 5)
    answer = ask(door, "count")
    assert (answer.status_code, "more than 5 datapoints" in answer.text) == (422, True)
    assert ask(door, "count", granularity="1h").status_code == 200
