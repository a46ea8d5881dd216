"""Rows of gold.sketches_hourly: a pure function of silver's events of some hours.

DuckDB groups, counts and takes duplicates out; Python is handed distinct users, counted items and
arrays of numbers, never events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from dc_platform.contracts.fields import Parameters, json_path, number_sql
from dc_platform.contracts.metrics import rounded
from dc_platform.contracts.sketch_tables import SKETCHES_HOURLY
from dc_platform.contracts.weights import WEIGHT_SQL
from dc_platform.gold.hours import each_hour, of_hour, within
from dc_platform.gold.quantiles import quantiles, quantiles_of
from dc_platform.gold.sketches import MAX_ITEM_CHARACTERS, hll_estimate, hll_of, items_of

USER_FIELDS = ("userId", "user_id")
VALUE_FIELD = "value"
ITEM_FIELDS = ("page", "url")
# Groups that are in Python at once.
_BATCH_ROWS = 256
_KEYS = ("tenant_id", "source_id", "event_type")
_COUNTS = ("event_count", "events_without_user", "value_count")


def sketches_of(
    connection: duckdb.DuckDBPyConnection,
    hours: Iterable[datetime],
    *,
    silver_version: int,
    item_fields: Sequence[str] = ITEM_FIELDS,
) -> pa.Table:
    """The table's rows for the hours, in order; `connection` has a view `silver.events`.

    Of `item_fields` (payload paths) the first that an event has is its item. The same events give the
    same bytes, in whatever order they come.
    """
    tables = [SKETCHES_HOURLY.columns.empty_table()]
    for hour in each_hour(hours):
        shared = of_hour(hour, silver_version)
        rows = [row | shared for row in _rows(connection, hour, item_fields)]
        tables.append(pa.Table.from_pylist(rows, schema=SKETCHES_HOURLY.columns))
    return pa.concat_tables(tables)


def _rows(
    connection: duckdb.DuckDBPyConnection, hour: datetime, item_fields: Sequence[str]
) -> Iterator[dict[str, Any]]:
    parameters = Parameters()
    sql = _sql(hour, item_fields, parameters)
    for batch in connection.execute(sql, parameters).to_arrow_reader(_BATCH_ROWS):
        for number, row in enumerate(batch.select([*_KEYS, *_COUNTS]).to_pylist()):
            yield row | _sketches(row, batch, number)


def _sketches(row: dict[str, Any], batch: pa.RecordBatch, number: int) -> dict[str, Any]:
    """The columns that Python adds to one group."""
    users, items, weights, values = (
        batch[name][number].values for name in ("users", "items", "weights", "values")
    )
    found: dict[str, Any] = {
        "unique_users_estimate": 0,
        "event_types_top": items_of([(row["event_type"], row["event_count"])]),
    }
    if users is not None:
        found["users_hll"] = hll_of(users.to_pylist())
        found["unique_users_estimate"] = round(hll_estimate([found["users_hll"]]))
    if items is not None:
        found["items_top"] = items_of(zip(items.to_pylist(), weights.to_pylist(), strict=True))
    if values is not None:
        sketch = quantiles_of(values.to_numpy())
        estimates = quantiles([sketch], (0.5, 0.95, 0.99))
        names = ("p50_estimate", "p95_estimate", "p99_estimate")
        found |= {"value_quantiles": sketch, **dict(zip(names, estimates or (), strict=True))}
    return found


def _sql(hour: datetime, item_fields: Sequence[str], parameters: Parameters) -> str:
    fields = (VALUE_FIELD, *USER_FIELDS, *item_fields)
    # One look into the payload for all paths.
    paths = parameters.name([json_path(field) for field in fields])
    user, item = (
        f"nullif(coalesce({', '.join([*(f'f[{n}]' for n in numbers), 'null::varchar'])}), '')"
        for numbers in (range(2, 4), range(4, 4 + len(item_fields)))
    )
    keys = ", ".join(_KEYS)
    return f"""
with picked as (
    select {keys}, {WEIGHT_SQL} as weight,
        try(json_extract_string(payload, {paths}::varchar[])) as f
    from silver.events where {within(hour, parameters)}
),
events as (
    select {keys}, weight, {user} as "user", left({item}, {MAX_ITEM_CHARACTERS}) as item,
        {number_sql("f[1]")} as value
    from picked
),
totals as (
    select {keys}, round(sum(weight))::bigint as event_count,
        {rounded('"user" is null')} as events_without_user,
        {rounded("value is not null")} as value_count,
        list(distinct "user") filter ("user" is not null) as users,
        list(value) filter (value is not null) as values
    from events group by all
),
counted as (
    select {keys}, item, round(sum(weight))::bigint as weight
    from events where item is not null group by all
),
items as (
    select {keys}, list(item order by item) as items, list(weight order by item) as weights
    from counted group by all
)
select totals.*, items, weights from totals left join items using ({keys}) order by {keys}
"""
