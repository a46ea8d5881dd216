"""Rows of gold.metrics_hourly against a recomputation in Polars."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest

from dc_platform.contracts.metrics import AggregationType, DefinedMetric, Definition
from dc_platform.contracts.sketch_tables import METRICS_HOURLY
from dc_platform.gold.metrics_hourly import metrics_of
from dc_platform.gold.quantiles import RANK_ERROR, quantiles
from dc_platform.gold.sketches import hll_estimate
from dc_platform_tests.gold.conftest import HOUR, Show, event

HOURS = [HOUR + timedelta(hours=n) for n in range(2)]
Row = dict[str, Any]


def metric(kind: AggregationType, *dimensions: str, **members: Any) -> DefinedMetric:
    definition = Definition(f"m_{kind.lower()}", kind, dimensions=dimensions, **members)
    return DefinedMetric(f"id-{kind}", "default", 3, 1, 0, definition)


def events(count: int, seed: int) -> list[Row]:
    chance = random.Random(seed)
    made = []
    for number in range(count):
        duration = chance.choice(
            [chance.lognormvariate(2, 2), chance.randrange(-50, 50), 0.1, 1e16, None, "7.5", "x"]
        )
        payload: Row = {"duration": duration, "user": f"u{chance.randrange(400)}"}
        if chance.random() < 0.8:
            payload["geo"] = {"country": chance.choice(["DE", "FR", "'; drop"])}
        made.append(
            event(
                number,
                payload,
                source_id=chance.choice("ab"),
                event_type=chance.choice(["view", "click"]),
                event_time=HOUR + timedelta(seconds=chance.randrange(3 * 3600)),
                tags=[("region", chance.choice("xy"))],
                sample_rate=chance.choice([1.0, 0.5, 0.1]),
            )
        )
    return [*made, event(count, {"duration": 1}, tenant_id="other")]


def frame(rows: list[Row]) -> pl.DataFrame:
    """The events that count, flat."""
    flat = []
    for row in rows:
        payload = json.loads(row["payload"])
        try:
            value = float(payload["duration"])
        except (TypeError, ValueError):
            value = None
        at = row["event_time"]
        flat.append(
            {
                "hour": at.replace(minute=0, second=0, microsecond=0)
                if isinstance(at, datetime)
                else HOUR,
                "tenant_id": row["tenant_id"],
                "source_id": row["source_id"],
                "event_type": row["event_type"],
                "country": (payload.get("geo") or {}).get("country"),
                "region": dict(row.get("tags") or []).get("region"),
                "user": payload.get("user"),
                "value": value,
                "weight": 1 / row["sample_rate"],
            }
        )
    made = pl.DataFrame(flat)
    return made.filter(pl.col("hour").is_in(HOURS), pl.col("tenant_id") == "default")


def expected(
    data: pl.DataFrame, kind: AggregationType, keys: list[str]
) -> dict[tuple[Any, ...], float]:
    value, weight = pl.col("value"), pl.col("weight")
    weighted = {
        "COUNT": weight.sum().round(),
        "SUM": (value * weight).sum(),
        "AVG": (value * weight).sum() / weight.sum(),
        "MIN": value.min(),
        "MAX": value.max(),
        "P50": value.quantile(0.5, "linear"),
        "P95": value.quantile(0.95, "linear"),
        "P99": value.quantile(0.99, "linear"),
        "UNIQUE": pl.col("user").n_unique(),
    }[kind.value]
    grouped = data.group_by(["hour", "source_id", *keys]).agg(weighted.alias("result"))
    return {tuple(row[:-1]): row[-1] for row in grouped.iter_rows()}


@pytest.mark.parametrize("kind", list(AggregationType))
@pytest.mark.parametrize("seed", [1, 2])
def test_every_aggregation_is_what_polars_says(
    connection: duckdb.DuckDBPyConnection, show: Show, kind: AggregationType, seed: int
) -> None:
    rows = events(4000, seed)
    show(rows)
    data = frame(rows).filter(pl.col("event_type") == "view")
    field = "user" if kind is AggregationType.UNIQUE else "duration"
    if kind.of_numbers:
        data = data.filter(pl.col("value").is_not_null())
    if kind is AggregationType.COUNT:
        field = None  # type: ignore[assignment]
    defined = metric(kind, "geo.country", "metadata.tags.region", field=field, event_type="view")
    made = metrics_of(connection, HOURS, [defined], silver_version=5)
    assert made.schema == METRICS_HOURLY.columns
    truth = expected(data, kind, ["country", "region"])
    found = {}
    for row in made.to_pylist():
        dimensions = dict(row["dimensions"])
        key = (
            row["hour"],
            row["source_id"],
            dimensions.get("geo.country"),
            dimensions["metadata.tags.region"],
        )
        found[key] = row
        assert (row["metric_id"], row["metric_version"], row["name"]) == (
            *(defined.metric_id, 3, defined.definition.name),
        )
        assert (row["tenant_id"], row["silver_version"]) == ("default", 5)
        assert row["hour_date"] == row["hour"].date()
    assert found.keys() == truth.keys()
    for key, row in found.items():
        assert row["value"] == pytest.approx(truth[key], rel=1e-12, abs=1e-6)
        if kind.of_numbers:
            assert row["value_min"] <= row["p50"] <= row["p95"] <= row["p99"] <= row["value_max"]
        else:
            assert (row["value_sum"], row["p99"], row["value_quantiles"]) == (None, None, None)
        if kind is AggregationType.UNIQUE:
            assert hll_estimate([row["uniques_hll"]]) == pytest.approx(row["value"], rel=0.001)


def test_percentiles_merge_over_hours(connection: duckdb.DuckDBPyConnection, show: Show) -> None:
    rows = events(6000, 3)
    show(rows)
    made = metrics_of(
        connection, HOURS, [metric(AggregationType.P99, field="duration")], silver_version=1
    )
    merged = quantiles(made["value_quantiles"].to_pylist(), [0.99])
    values = frame(rows)["value"].drop_nulls().sort()
    assert merged is not None
    low = (values < merged[0]).sum() / len(values)
    high = (values <= merged[0]).sum() / len(values)
    assert low - RANK_ERROR <= 0.99 <= high + RANK_ERROR


def test_sums_do_not_depend_on_the_order(connection: duckdb.DuckDBPyConnection, show: Show) -> None:
    rows = [event(n, {"v": v}) for n, v in enumerate([0.1] * 1000 + [1e17, -1e17, 1e-9] * 300)]
    kinds = [AggregationType.SUM, AggregationType.AVG, AggregationType.P95]
    defined = [metric(kind, field="v") for kind in kinds]
    show(rows)
    first = metrics_of(connection, [HOUR], defined, silver_version=1)
    assert [str(v) for v in first["value_sum"].to_pylist()] == ["100.000000300"] * 3
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        show(rows)
        assert metrics_of(connection, [HOUR], defined, silver_version=1).equals(first)


def test_numbers_that_no_sum_holds_are_counted_beside_it(
    connection: duckdb.DuckDBPyConnection, show: Show
) -> None:
    show([event(n, {"v": v}) for n, v in enumerate([1, 2, 1e18, -1e300])])
    kinds = [AggregationType.AVG, AggregationType.MIN, AggregationType.SUM]
    defined = [metric(kind, field="v") for kind in kinds]
    average, least, total = metrics_of(connection, [HOUR], defined, silver_version=1).to_pylist()
    assert (average["value"], least["value"], total["value"]) == (1.5, -1e300, 3.0)
    assert (total["value_count"], total["value_outside"], total["value_max"]) == (4, 2, 1e18)


def test_no_values_are_no_rows(connection: duckdb.DuckDBPyConnection, show: Show) -> None:
    show([event(1, {"v": "x", "u": ""})])
    defined = [
        metric(AggregationType.SUM, field="v"),
        metric(AggregationType.UNIQUE, field="u"),
        metric(AggregationType.COUNT, field="nothing"),
    ]
    assert metrics_of(connection, [HOUR], defined, silver_version=1).num_rows == 0
    assert metrics_of(connection, [HOUR], [], silver_version=1).num_rows == 0
    assert metrics_of(connection, [], defined, silver_version=1).num_rows == 0
