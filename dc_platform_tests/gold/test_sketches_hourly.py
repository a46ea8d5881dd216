"""Rows of gold.sketches_hourly against a count by hand, event by event."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from dc_platform.contracts.sketch_tables import SKETCHES_HOURLY
from dc_platform.gold.quantiles import RANK_ERROR, quantiles
from dc_platform.gold.sketches import hll_estimate, top_items
from dc_platform.gold.sketches_hourly import sketches_of
from dc_platform_tests.gold.conftest import HOUR, Show, event

Row = dict[str, Any]


def events(count: int, seed: int = 1) -> list[Row]:
    """Of three hours, three sources (two tenants) and three types; some sampled."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        payload: Row = {"value": round(chance.lognormvariate(3, 1), 3)}
        if chance.random() < 0.8:
            payload[chance.choice(("userId", "user_id"))] = chance.choice(
                [chance.randrange(300), f"u{chance.randrange(50)}", None, ""]
            )
        if chance.random() < 0.5:
            payload[chance.choice(("page", "url"))] = f"/{int(chance.paretovariate(1))}"
        if chance.random() < 0.1:
            payload["value"] = chance.choice(["nan", "7", None, [], "1e999", True])
        source = chance.choice("abc")
        made.append(
            event(
                number,
                payload,
                source_id=source,
                tenant_id="other" if source == "c" else "default",
                event_type=chance.choice(["view", "click", "é'\";--"]),
                event_time=HOUR + timedelta(microseconds=chance.randrange(3 * 3600 * 10**6)),
                sample_rate=0.25 if source == "b" else 1.0,
            )
        )
    return made


def number_of(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found = float(value)
    return found if np.isfinite(found) else None


def by_hand(rows: list[Row]) -> dict[tuple[Any, ...], Row]:
    groups: dict[tuple[Any, ...], Row] = defaultdict(
        lambda: {"count": 0, "nobody": 0, "users": set(), "items": Counter(), "values": []}
    )
    for row in rows:
        hour = row["event_time"].replace(minute=0, second=0, microsecond=0)
        group = groups[hour, row["tenant_id"], row["source_id"], row["event_type"]]
        payload = json.loads(row["payload"])
        weight = round(1 / row["sample_rate"])
        group["count"] += weight
        user = next((payload[n] for n in ("userId", "user_id") if payload.get(n) is not None), None)
        if user in (None, ""):
            group["nobody"] += weight
        else:
            group["users"].add(str(user))
        item = next((payload[n] for n in ("page", "url") if payload.get(n)), None)
        if item is not None:
            group["items"][item] += weight
        value = number_of(payload["value"])
        if value is not None:
            group["values"].append((value, weight))
    return groups


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_say_what_a_count_by_hand_says(
    connection: duckdb.DuckDBPyConnection, show: Show, seed: int
) -> None:
    rows = events(6000, seed)
    show(rows)
    hours = [HOUR + timedelta(hours=n) for n in (2, 0, 0)]
    made = sketches_of(connection, hours, silver_version=7)
    assert made.schema == SKETCHES_HOURLY.columns
    keys = ("hour", "tenant_id", "source_id", "event_type")
    expected = {key: group for key, group in by_hand(rows).items() if key[0] in hours}
    found = {tuple(row[name] for name in keys): row for row in made.to_pylist()}
    assert list(found) == sorted(expected)
    for key, group in expected.items():
        row = found[key]
        assert (row["silver_version"], row["hour_date"]) == (7, key[0].date())
        assert row["event_count"] == group["count"]
        assert row["events_without_user"] == group["nobody"]
        assert row["unique_users_estimate"] == pytest.approx(len(group["users"]), rel=0.001)
        assert hll_estimate([row["users_hll"]]) == pytest.approx(len(group["users"]), rel=0.001)
        assert top_items([row["event_types_top"]], 5) == [(key[3], *[group["count"]] * 3)]
        items = {i.item: i.estimate for i in top_items([row["items_top"]], 1000)}
        assert items == group["items"]
        assert row["value_count"] == sum(weight for _, weight in group["values"])
        values = np.sort([value for value, _ in group["values"]])
        for name, rank in (("p50_estimate", 0.5), ("p95_estimate", 0.95), ("p99_estimate", 0.99)):
            assert [row[name]] == quantiles([row["value_quantiles"]], [rank])
            low, high = (np.searchsorted(values, row[name], side) for side in ("left", "right"))
            assert low / len(values) - RANK_ERROR <= rank <= high / len(values) + RANK_ERROR


def test_the_same_events_in_another_order_give_the_same_bytes(
    connection: duckdb.DuckDBPyConnection, show: Show
) -> None:
    rows = [
        event(n, {"userId": f"u{n % 2500}", "page": f"/{n % 1700}", "value": n % 999 / 7})
        for n in range(20_000)
    ]
    show(rows)
    first = sketches_of(connection, [HOUR], silver_version=1)
    # More users than a set of coupons holds, more items than a sketch, more values than runs.
    assert len(first["users_hll"][0].as_py()) > 16_000
    assert top_items([first["items_top"][0].as_py()], 9999)[0].upper > 12
    for threads, seed in ((1, 1), (4, 2)):
        connection.execute(f"set threads = {threads}")
        random.Random(seed).shuffle(rows)
        show(rows)
        assert sketches_of(connection, [HOUR], silver_version=1).equals(first)


def test_events_that_lack_everything(connection: duckdb.DuckDBPyConnection, show: Show) -> None:
    show([event(1, {}), event(2, {"userId": {"a": 1}, "url": "x" * 300}, event_type="u")])
    bare, odd = sketches_of(connection, [HOUR], silver_version=1).to_pylist()
    assert (bare["event_count"], bare["events_without_user"]) == (1, 1)
    assert (bare["unique_users_estimate"], bare["value_count"]) == (0, 0)
    for name in ("users_hll", "items_top", "value_quantiles", "p50_estimate", "p99_estimate"):
        assert bare[name] is None
    assert odd["unique_users_estimate"] == 1
    assert top_items([odd["items_top"]], 1)[0].item == "x" * 256


def test_items_are_of_the_fields_that_are_asked_for(
    connection: duckdb.DuckDBPyConnection, show: Show
) -> None:
    show([event(n, {"page": "p", "a": {"b c": f"i{n % 2}"}, "d": ["e"]}) for n in range(6)])

    def items(*fields: str) -> list[tuple[str, int]]:
        made = sketches_of(connection, [HOUR], silver_version=1, item_fields=fields)
        blob = made["items_top"][0].as_py()
        return [] if blob is None else [(i.item, i.estimate) for i in top_items([blob], 9)]

    assert items("nothing", "a.b c") == [("i0", 3), ("i1", 3)]
    assert items("payload.d[0]") == [("e", 6)]
    assert items() == []


def test_no_hours_and_no_events_are_no_rows(
    connection: duckdb.DuckDBPyConnection, show: Show
) -> None:
    show([event(1, {})])
    assert sketches_of(connection, [], silver_version=1).num_rows == 0
    later = sketches_of(connection, [HOUR + timedelta(hours=1)], silver_version=1)
    assert (later.num_rows, later.schema) == (0, SKETCHES_HOURLY.columns)


def test_an_hour_ends_before_the_next_begins(
    connection: duckdb.DuckDBPyConnection, show: Show
) -> None:
    end = HOUR + timedelta(hours=1)
    edges = [HOUR - timedelta(microseconds=1), HOUR, end - timedelta(microseconds=1), end]
    show([event(n, {}, event_time=at) for n, at in enumerate(edges)])
    made = sketches_of(connection, [HOUR], silver_version=1)
    assert made["event_count"].to_pylist() == [2]
    assert pa.types.is_timestamp(made.schema.field("hour").type)
