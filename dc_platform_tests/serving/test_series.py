"""Gaps, moving averages and comparisons of a metric, against counting by hand."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from typing import Any

import numpy as np
import pytest

from dc_platform.contracts.metrics import AggregationType, Definition, MetricError
from dc_platform.registry.metrics import Metrics
from dc_platform.serving.series import Datapoints, Shape, averaged, shaped
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.serving import Served
from dc_platform_tests.helpers.serving_http import Door

HOUR = 3_600_000
DAY = 24 * HOUR
FIRST = 1_700_006_400_000 // DAY * DAY


def point(at: int, value: float | None, country: str | None = None) -> dict[str, Any]:
    dimensions = {} if country is None else {"country": country}
    return {"timestamp": FIRST + at * HOUR, "value": value, "dimensions": dimensions}


def series(
    points: Datapoints, shape: Shape, from_: int | None, to: int | None, most: int = 1000
) -> Datapoints:
    """`from_` and `to` in hours."""

    def ask(from_us: int | None, to_us: int | None) -> Datapoints:
        # As the metric's SQL does: whole spans, of events within the range.
        low = -(1 << 62) if from_us is None else from_us
        high = 1 << 62 if to_us is None else to_us
        return [
            p
            for p in points
            if low // HOUR <= p["timestamp"] * 1000 // HOUR and p["timestamp"] * 1000 < high
        ]

    def us(hours: int | None) -> int | None:
        return None if hours is None else (FIRST + hours * HOUR) * 1000

    return shaped(ask, shape, from_us=us(from_), to_us=us(to), span=HOUR, most=most)


def values(found: Datapoints, name: str = "value") -> list[Any]:
    return [p[name] for p in found]


POINTS = [point(1, 10), point(4, 40), point(5, 2**60 + 1)]


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("none", [10, 40, 2**60 + 1]),
        ("null", [None, 10, None, None, 40, 2**60 + 1, None]),
        ("zero", [0, 10, 0, 0, 40, 2**60 + 1, 0]),
        ("previous", [None, 10, 10, 10, 40, 2**60 + 1, float(2**60)]),
        ("linear", [None, 10, 20, 30, 40, 2**60 + 1, None]),
    ],
)
def test_gaps(fill: Any, expected: list[Any]) -> None:
    found = series(POINTS, Shape(fill), 0, 7)
    assert values(found) == expected
    if fill != "none":
        assert [p["timestamp"] for p in found] == [FIRST + n * HOUR for n in range(7)]
        # Without a range the series begins and ends with its datapoints.
        assert values(series(POINTS, Shape(fill), None, None)) == expected[1:6]


def test_every_series_has_every_span() -> None:
    points = [point(0, 1, "DE"), point(2, 2, "FR"), point(2, 5, None)]
    found = series(points, Shape("zero"), 0, 3)
    assert [(p["timestamp"] - FIRST) // HOUR for p in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    by = {(p["dimensions"].get("country"), (p["timestamp"] - FIRST) // HOUR): p for p in found}
    assert (by["DE", 0]["value"], by["FR", 2]["value"], by[None, 2]["value"]) == (1, 2, 5)
    assert (by["FR", 0]["value"], by["DE", 2]["value"]) == (0, 0)
    assert series([], Shape("zero"), 0, 3) == []


def test_an_average_begins_before_the_range() -> None:
    points = [point(n, n) for n in range(10)]
    assert values(series(points, Shape("none", 3), 4, 7), "average") == [3, 4, 5]
    assert values(series(points, Shape("none", 3), None, 4), "average") == [0, 0.5, 1, 2]
    # Gaps count for nothing, unless they are filled.
    assert values(series(POINTS[:2], Shape("null", 4), 0, 6), "average") == [
        None,
        10,
        10,
        10,
        25,
        40,
    ]
    assert values(series(POINTS[:2], Shape("zero", 4), 3, 5), "average") == [2.5, 12.5]
    assert values(series(POINTS[:2], Shape("none", 4), 0, 6), "average") == [10, 25]


def test_a_long_average_takes_little_memory() -> None:
    tracemalloc.start()
    found = averaged(np.arange(100_000.0).reshape(1, -1), 1000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[0, [0, 999, 99_999]].tolist() == [0, 499.5, 99_499.5]
    assert most < 20 * 2**20
    assert averaged(np.ones((2, 0)), 5).shape == (2, 0)


def test_a_comparison_is_with_the_same_span_before() -> None:
    points = [point(n, n + 1) for n in range(30)] + [point(40, 3)]
    found = series(points, Shape("none", 1, DAY), 24, 48)
    assert [(p["value"], p["previous"], p["change"]) for p in found] == [
        *((n + 1, n + 1 - 24, 24) for n in range(24, 30)),
        (3, 17, -14),
    ]
    # Nothing before: nothing to compare with.
    first = series(points, Shape("none", 1, DAY), 0, 1)
    assert [(p["value"], p["previous"], p["change"]) for p in first] == [(1, None, None)]
    zero = series(points, Shape("zero", 1, DAY), 30, 32)
    assert [(p["value"], p["previous"], p["change"]) for p in zero] == [(0, 7, -7), (0, 8, -8)]
    # A series that was there before, and is no more.
    gone = [point(0, 4, "DE"), point(24, 6, "FR")]
    found = series(gone, Shape("zero", 1, DAY), 24, 25)
    assert {(p["dimensions"]["country"], p["value"], p["previous"]) for p in found} == {
        ("DE", 0, 4),
        ("FR", 6, 0),
    }
    assert len(series(points, Shape("null", 1, DAY), None, None)) == 41


def test_by_hand_for_random_series() -> None:
    chance = random.Random(3)
    points = [
        point(n, chance.randrange(100), c)
        for n in range(60)
        for c in ("a", "b")
        if chance.random() < 0.6
    ]
    known = {(p["dimensions"]["country"], (p["timestamp"] - FIRST) // HOUR): p for p in points}

    def at(country: str, hour: int) -> float:
        return known[country, hour]["value"] if (country, hour) in known else 0

    for p in series(points, Shape("zero", 5, 10 * HOUR), 20, 50):
        hour, country = (p["timestamp"] - FIRST) // HOUR, p["dimensions"]["country"]
        assert p["value"] == at(country, hour)
        assert p["average"] == pytest.approx(sum(at(country, hour - n) for n in range(5)) / 5)
        assert p["previous"] == at(country, hour - 10)
        assert p["change"] == p["value"] - p["previous"]


def test_too_much_is_refused() -> None:
    with pytest.raises(MetricError, match="more than 5 datapoints"):
        series(POINTS, Shape("zero"), 0, 7, most=5)
    for shape in (Shape("zero"), Shape("none", 2), Shape("none", 1, DAY)):
        with pytest.raises(MetricError, match="more than 1000 datapoints"):
            series([], shape, -(10**6), 10**6)
    with pytest.raises(MetricError, match="multiple of the granularity"):
        series(POINTS, Shape("none", 1, 60_000), 0, 7)


def test_over_http(served: Served) -> None:
    door = Door(served)
    Metrics(door.database).create(Definition("events", AggregationType.COUNT))
    start = NOW // 60_000 * 60_000
    query = {
        "from": start - 120_000,
        "to": start + 180_000,
        "fill": "zero",
        "window": 2,
        "compare": "1m",
    }

    def ask(**more: Any) -> Any:
        path = "/api/v1/metrics/events"
        return request(door.app, "GET", path, headers=door.headers, params={**query, **more})

    points = ask().json()["datapoints"]
    counts = values(points)
    assert (len(points), sum(counts)) == (5, 12)
    assert values(points, "previous") == [0, *counts[:-1]]
    assert values(points, "average")[1:] == [(a + b) / 2 for a, b in itertools.pairwise(counts)]
    for more, words in (
        ({"fill": "magic"}, "fill should be 'none'"),
        ({"window": 0}, "window should be"),
        ({"compare": "1y"}, "compare: a number and m, h, d or w"),
        ({"compare": "1m", "granularity": "1h"}, "compare: a multiple of the granularity"),
    ):
        answer = ask(**more)
        assert answer.status_code == 422
        assert words in answer.json()["detail"]
    door.database.close()
