"""The tables of gold that Python builds: sketches (docs/sketches.md) and defined metrics
(docs/metrics.md). A row belongs to an hour, by the time of its events.
"""

from __future__ import annotations

import pyarrow as pa

from dc_platform.contracts.spec import SUM, TIMESTAMP, GoldSpec

DIMENSIONS = pa.map_(pa.string(), pa.string())

_SHARED_DOCS = {
    "hour": "Hour (UTC) of the events.",
    "hour_date": "UTC date of hour: the partition.",
    "silver_version": "Version of silver.events that the row was built from.",
    "value_count": "Values, each counted 1 / sample_rate times; rounded.",
    "value_quantiles": "KLL sketch (k 512) of the values, each counted once; null without any.",
}

SKETCHES_HOURLY = GoldSpec(
    name="gold.sketches_hourly",
    description="Distinct users, frequent items and quantiles per hour, source and event type, as"
    " sketches that merge (docs/sketches.md).",
    columns=pa.schema(
        [
            ("hour", TIMESTAMP),
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("event_type", pa.string()),
            ("event_count", pa.int64()),
            ("events_without_user", pa.int64()),
            ("users_hll", pa.binary()),
            ("unique_users_estimate", pa.int64()),
            ("event_types_top", pa.binary()),
            ("items_top", pa.binary()),
            ("value_count", pa.int64()),
            ("value_quantiles", pa.binary()),
            ("p50_estimate", pa.float64()),
            ("p95_estimate", pa.float64()),
            ("p99_estimate", pa.float64()),
            ("silver_version", pa.int64()),
            ("hour_date", pa.date32()),
        ]
    ),
    statistics=("hour", "source_id"),
    partition_by="hour_date",
    docs={
        **_SHARED_DOCS,
        "event_count": "Events, each counted 1 / sample_rate times; rounded.",
        "events_without_user": "Those of event_count whose payload names no user.",
        "users_hll": "HyperLogLog (lg_k 14) of payload.userId, else payload.user_id; null without any.",
        "unique_users_estimate": "Distinct users by users_hll; 0 without any.",
        "event_types_top": "Frequent-items sketch of event_type, weighted by event_count: merged it has"
        " the most frequent types of any set of rows.",
        "items_top": "Frequent-items sketch of the payload's DCP_SKETCH_ITEMS, each counted"
        " 1 / sample_rate times; null without any.",
        "p50_estimate": "Median of payload.value by value_quantiles.",
        "p95_estimate": "95th percentile of payload.value by value_quantiles.",
        "p99_estimate": "99th percentile of payload.value by value_quantiles.",
    },
    grain=("hour", "tenant_id", "source_id", "event_type"),
)

METRICS_HOURLY = GoldSpec(
    name="gold.metrics_hourly",
    description="The defined metrics per hour, source and dimensions (docs/metrics.md).",
    columns=pa.schema(
        [
            ("hour", TIMESTAMP),
            ("metric_id", pa.string()),
            ("metric_version", pa.int32()),
            ("name", pa.string()),
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("aggregation_type", pa.string()),
            ("dimensions", DIMENSIONS),
            ("value", pa.float64()),
            ("value_count", pa.int64()),
            ("value_weight", SUM),
            ("value_sum", SUM),
            ("value_outside", pa.int64()),
            ("value_min", pa.float64()),
            ("value_max", pa.float64()),
            ("p50", pa.float64()),
            ("p95", pa.float64()),
            ("p99", pa.float64()),
            ("value_quantiles", pa.binary()),
            ("uniques_hll", pa.binary()),
            ("silver_version", pa.int64()),
            ("hour_date", pa.date32()),
        ]
    ),
    statistics=("hour", "name", "source_id"),
    partition_by="hour_date",
    docs={
        **_SHARED_DOCS,
        "metric_id": "Identity of the metric.",
        "metric_version": "Version of the definition that the row was made with.",
        "name": "Name of the metric.",
        "aggregation_type": "SUM, AVG, COUNT, MAX, MIN, P50, P95, P99 or UNIQUE.",
        "dimensions": "Values of the definition's dimensions; one that the events lack is left out.",
        "value": "What the metric's aggregation_type says of the row's events.",
        "value_weight": "Sum of 1 / sample_rate of the values, not rounded, without those of"
        " value_outside: value_sum / value_weight is the mean, and of COUNT it is the count.",
        "value_sum": "Sum of the values, each weighted 1 / sample_rate; null for COUNT and UNIQUE.",
        "value_outside": "Values of 1e18 and more (or of -1e18 and less), which value_sum leaves out.",
        "value_min": "Smallest value; null for COUNT and UNIQUE.",
        "value_max": "Greatest value; null for COUNT and UNIQUE.",
        "p50": "Median of the values; null for COUNT and UNIQUE.",
        "p95": "95th percentile of the values; null for COUNT and UNIQUE.",
        "p99": "99th percentile of the values; null for COUNT and UNIQUE.",
        "uniques_hll": "HyperLogLog (lg_k 14) of the values of a UNIQUE metric; null for others.",
    },
    # And the dimensions, a map, which Arrow cannot sort by: rows are made in their order, and sorting
    # by the others leaves them in it.
    grain=("hour", "tenant_id", "name", "source_id"),
    added=("value_weight",),
)

SKETCH_TABLES = (SKETCHES_HOURLY, METRICS_HOURLY)
