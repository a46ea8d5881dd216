"""The tables of gold: aggregates of silver that dbt builds (`dbt_project/`, docs/gold.md).

Every table says what a column means in its `docs`; `dbt_project/models/gold/schema.yml` says the same,
which a test holds. `grain` are the columns that name a row.
"""

from __future__ import annotations

import pyarrow as pa

from dc_platform.contracts.sketch_tables import SKETCH_TABLES
from dc_platform.contracts.spec import SUM, TIMESTAMP
from dc_platform.contracts.spec import GoldSpec as GoldSpec

# Numbers from this one on are counted as `value_outside`; 10^11 smaller ones still have a sum.
VALUE_LIMIT = 10**18

_VERSION = (
    "Version of silver.events that the row was built from; it still holds at the newest version that"
    " gold covers (`dcp gold status`)."
)
_DATE = "UTC date of the events: the partition."
_EVENT_COUNT = "Events, an event that sampling kept counted 1/sample_rate; rounded per hour."


EVENTS_HOURLY = GoldSpec(
    name="gold.events_hourly",
    description="Events by hour, tenant, source and type: counts, users, and the numbers in"
    " payload.value.",
    columns=pa.schema(
        [
            ("hour", TIMESTAMP),
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("event_type", pa.string()),
            ("event_count", pa.int64()),
            ("row_count", pa.int64()),
            ("weight", SUM),
            ("unique_users", pa.int64()),
            ("value_count", pa.int64()),
            ("value_outside", pa.int64()),
            ("value_sum", SUM),
            ("value_min", pa.float64()),
            ("value_max", pa.float64()),
            ("value_avg", pa.float64()),
            ("value_p50", pa.float64()),
            ("value_p95", pa.float64()),
            ("value_p99", pa.float64()),
            ("late_count", pa.int64()),
            ("first_event_time", TIMESTAMP),
            ("last_event_time", TIMESTAMP),
            ("bytes", pa.int64()),
            ("silver_version", pa.int64()),
            ("hour_date", pa.date32()),
        ]
    ),
    statistics=("hour", "source_id"),
    partition_by="hour_date",
    docs={
        "hour": "Hour (UTC) of event_time.",
        "event_count": _EVENT_COUNT,
        "row_count": "Rows of silver.events.",
        "weight": "Sum of 1/sample_rate, not rounded: what event_count is of, and adds up exactly.",
        "unique_users": "Different payload.userId, or payload.user_id where there is none, that are"
        " text, a number, true or false.",
        "value_count": "Rows whose payload.value is a JSON number below 10^18 (either sign).",
        "value_outside": "Rows whose payload.value is a number of 10^18 or more: they are in no other"
        " value_… column.",
        "value_sum": "Exact sum of the values, each rounded to 9 decimals; null without values.",
        "value_min": "Least value.",
        "value_max": "Greatest value.",
        "value_avg": "value_sum / value_count.",
        "value_p50": "The value at place ceil(0.50 n) of the n values in order.",
        "value_p95": "The value at place ceil(0.95 n) of the n values in order.",
        "value_p99": "The value at place ceil(0.99 n) of the n values in order.",
        "late_count": "Rows that were received more than 3,600 s after their event_time.",
        "first_event_time": "Earliest event_time.",
        "last_event_time": "Latest event_time.",
        "bytes": "Bytes of the payloads, in UTF-8.",
        "silver_version": _VERSION,
        "hour_date": "UTC date of hour: the partition.",
    },
    grain=("hour", "tenant_id", "source_id", "event_type"),
    # One source's rows of a day are in one row group, or two.
    order=("source_id", "tenant_id", "hour", "event_type"),
    added=("weight",),
)

SOURCES_DAILY = GoldSpec(
    name="gold.sources_daily",
    description="What each source sent, by day, with what of it was rejected or late.",
    columns=pa.schema(
        [
            ("tenant_id", pa.string()),
            ("source_id", pa.string()),
            ("event_count", pa.int64()),
            ("row_count", pa.int64()),
            ("unique_users", pa.int64()),
            ("event_types", pa.int64()),
            ("quarantined_count", pa.int64()),
            ("late_count", pa.int64()),
            ("first_event_time", TIMESTAMP),
            ("last_event_time", TIMESTAMP),
            ("bytes", pa.int64()),
            ("silver_version", pa.int64()),
            ("hour_date", pa.date32()),
        ]
    ),
    statistics=("source_id",),
    partition_by="hour_date",
    docs={
        "source_id": "Source that sent the events; empty for rejected records that name none.",
        "event_count": _EVENT_COUNT,
        "row_count": "Rows of silver.events.",
        "unique_users": "Different users of the day (see gold.events_hourly).",
        "event_types": "Different event types.",
        "quarantined_count": "Rows of silver.quarantine that were received on the day.",
        "late_count": "Rows that were received more than 3,600 s after their event_time.",
        "first_event_time": "Earliest event_time; null when all was rejected.",
        "last_event_time": "Latest event_time; null when all was rejected.",
        "bytes": "Bytes of the payloads, in UTF-8.",
        "silver_version": _VERSION,
        "hour_date": _DATE,
    },
    grain=("hour_date", "tenant_id", "source_id"),
)

EVENT_TYPES_TOP = GoldSpec(
    name="gold.event_types_top",
    description="The 100 most frequent event types of each day and tenant.",
    columns=pa.schema(
        [
            ("tenant_id", pa.string()),
            ("rank", pa.int64()),
            ("event_type", pa.string()),
            ("event_count", pa.int64()),
            ("share", pa.float64()),
            ("silver_version", pa.int64()),
            ("hour_date", pa.date32()),
        ]
    ),
    statistics=("rank",),
    partition_by="hour_date",
    docs={
        "rank": "Place by event_count, from 1; of equal counts the event type that sorts first.",
        "event_count": _EVENT_COUNT,
        "share": "event_count by that of all types of the day and tenant, 0 to 1.",
        "silver_version": _VERSION,
        "hour_date": _DATE,
    },
    grain=("hour_date", "tenant_id", "rank"),
)

# What dbt builds.
DBT_TABLES: tuple[GoldSpec, ...] = (EVENTS_HOURLY, SOURCES_DAILY, EVENT_TYPES_TOP)
# And what functions make of the same hours (`gold/producers.py`).
GOLD_TABLES: tuple[GoldSpec, ...] = (*DBT_TABLES, *SKETCH_TABLES)
