"""Rows of gold.metrics_hourly: the defined metrics over silver's events of some hours, a pure function.

Sums are exact (decimal(38, 9)), so they do not depend on the order of the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from dc_platform.contracts.fields import Parameters
from dc_platform.contracts.metrics import (
    OUTSIDE_SQL,
    SUM_SQL,
    WEIGHTS_SQL,
    AggregationType,
    DefinedMetric,
    aggregate_sql,
    rounded,
    values_sql,
)
from dc_platform.contracts.sketch_tables import METRICS_HOURLY
from dc_platform.gold.hours import each_hour, of_hour, within
from dc_platform.gold.quantiles import quantiles_of
from dc_platform.gold.sketches import hll_of

# Groups that are in Python at once.
_BATCH_ROWS = 256
_NUMBERS = {
    "value_sum": SUM_SQL,
    "value_outside": OUTSIDE_SQL,
    "value_min": "min(value)",
    "value_max": "max(value)",
    "p50": "quantile_cont(value, 0.5)",
    "p95": "quantile_cont(value, 0.95)",
    "p99": "quantile_cont(value, 0.99)",
}


def metrics_of(
    connection: duckdb.DuckDBPyConnection,
    hours: Iterable[datetime],
    metrics: Sequence[DefinedMetric],
    *,
    silver_version: int,
) -> pa.Table:
    """The table's rows for the hours and metrics, in order; `connection` has a view `silver.events`.

    A source, and a combination of dimensions, without a value in the hour has no row.
    """
    tables = [METRICS_HOURLY.columns.empty_table()]
    for hour in each_hour(hours):
        shared = of_hour(hour, silver_version)
        for metric in sorted(metrics, key=lambda m: (m.tenant_id, m.definition.name)):
            rows = [row | shared for row in _rows(connection, hour, metric)]
            tables.append(pa.Table.from_pylist(rows, schema=METRICS_HOURLY.columns))
    return pa.concat_tables(tables)


def _rows(
    connection: duckdb.DuckDBPyConnection, hour: datetime, metric: DefinedMetric
) -> Iterator[dict[str, Any]]:
    definition = metric.definition
    of_metric = {
        "metric_id": metric.metric_id,
        "metric_version": metric.version,
        "name": definition.name,
        "tenant_id": metric.tenant_id,
        "aggregation_type": definition.aggregation_type.value,
    }
    plain = ["source_id", "value", "value_count", "value_weight"]
    plain += _NUMBERS if definition.aggregation_type.of_numbers else []
    dimensions = [f"d{n}" for n in range(len(definition.dimensions))]
    parameters = Parameters()
    sql = _sql(hour, metric, parameters)
    for batch in connection.execute(sql, parameters).to_arrow_reader(_BATCH_ROWS):
        groups = zip(
            batch.select(plain).to_pylist(),
            zip(*(batch[name].to_pylist() for name in dimensions), strict=True)
            if dimensions
            else [()] * batch.num_rows,
            batch["sketched"],
            strict=True,
        )
        for row, values, sketched in groups:
            named = zip(definition.dimensions, values, strict=True)
            yield (
                row
                | of_metric
                | {"dimensions": [(k, v) for k, v in named if v is not None]}
                | _sketch(definition.aggregation_type, sketched.values)
            )


def _sketch(kind: AggregationType, values: pa.Array | None) -> dict[str, bytes]:
    if values is None:
        return {}
    if kind is AggregationType.UNIQUE:
        return {"uniques_hll": hll_of(values.to_pylist())}
    return {"value_quantiles": quantiles_of(values.to_numpy())}


def _sql(hour: datetime, metric: DefinedMetric, parameters: Parameters) -> str:
    definition = metric.definition
    kind = definition.aggregation_type
    where = [within(hour, parameters), f"tenant_id = {parameters.name(metric.tenant_id)}"]
    values = values_sql(definition, definition.dimensions, "silver.events", where, parameters)
    keys = ", ".join(["source_id", *(f"d{n}" for n in range(len(definition.dimensions)))])
    sketched = "null::varchar[]"
    if kind is AggregationType.UNIQUE:
        sketched = "list(distinct value)"
    elif kind.of_numbers:
        sketched = "list(value)"
    numbers = _NUMBERS if kind.of_numbers else {}
    columns = [
        keys,
        f"{aggregate_sql(kind)} as value",
        f"{rounded('true')} as value_count",
        f"coalesce({WEIGHTS_SQL}, 0) as value_weight",
        *(f"{sql} as {name}" for name, sql in numbers.items()),
        f"{sketched} as sketched",
    ]
    return f"select {', '.join(columns)} from ({values}) as v group by {keys} order by {keys}"
