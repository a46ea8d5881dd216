"""The values of a defined metric over time: of hours that gold.metrics_hourly has as silver has them,
and of the events of the rest.

Only what adds up comes from gold: COUNT, SUM, AVG, MIN and MAX, in spans of whole hours, once gold has
the definition as it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from dc_platform.contracts.fields import Parameters, span_sql
from dc_platform.contracts.metrics import (
    SUM_SQL,
    WEIGHTS_SQL,
    WHOLE,
    DefinedMetric,
    aggregate_sql,
    values_sql,
)
from dc_platform.contracts.sketch_tables import METRICS_HOURLY
from dc_platform.serving.engine import Engine
from dc_platform.serving.plan import Plan, explained, plan
from dc_platform.serving.view import View

# Not a dimension of the definition, and always there.
SOURCE = "sourceId"
_HOUR = 3600
_COLUMNS = "hour, source_id, dimensions, value_weight, value_sum, value_min, value_max"
_PARTS = {
    "value_weight": WEIGHTS_SQL,
    "value_sum": SUM_SQL,
    "value_min": "min(value)",
    "value_max": "max(value)",
}


class MetricPlan:
    """The statement of a metric over a view. Times are in epoch microseconds, spans in seconds."""

    def __init__(
        self,
        engine: Engine,
        view: View,
        metric: DefinedMetric,
        *,
        from_us: int | None,
        to_us: int | None,
        seconds: int,
        dimensions: Sequence[str],
        limit: int,
    ) -> None:
        self._engine, self._view, self._metric = engine, view, metric
        self._range = (from_us, to_us)
        self._seconds = seconds
        self._dimensions = dimensions
        self._keys = ", ".join(["moment", *(f"d{n}" for n in range(len(dimensions)))])
        self._limit = limit
        self._hit = False
        self._chosen: Plan | str | None = None

    def table(self) -> pa.Table:
        """`moment` (epoch milliseconds), d0, d1, …, `value`; in order of all but the last."""
        metric, cache = self._metric, self._engine.answers
        parameters = Parameters()
        values = self._values(parameters)
        sql = self._ordered(
            f"select {self._keys}, {aggregate_sql(metric.definition.aggregation_type)} as value"
            f" from ({values}) as s group by {self._keys}"
        )
        key = cache.key(self._view, *self._range, metric.tenant_id, sql, parameters)
        found = cache.get(key)
        self._hit = found is not None
        if found is None:
            self._chosen = self._choose()
            found = self._run(sql, parameters, values)
            cache.put(key, found)
        return found

    def _run(self, sql: str, parameters: Parameters, values: str) -> pa.Table:
        tenant_id = self._metric.tenant_id
        if isinstance(self._chosen, Plan):
            select = self._merged(values, parameters)
            of_metric = [
                f"metric_id = {parameters.name(self._metric.metric_id)}",
                f"metric_version = {parameters.name(self._metric.version)}",
            ]
            parameters["tenant"] = tenant_id
            sql_of = partial(self._chosen.sql, select, _COLUMNS, of_metric)
            return self._engine.run_planned(sql_of, self._view, parameters)
        from_us, to_us = self._range
        return self._engine.run_on_events(
            sql,
            self._view,
            tenant_id=tenant_id,
            parameters=parameters,
            from_us=from_us,
            to_us=to_us,
        )

    def _choose(self) -> Plan | str:
        metric = self._metric
        kind = metric.definition.aggregation_type
        if kind not in WHOLE:
            return f"{kind} of hours does not add up"
        if self._seconds % _HOUR:
            return "the granularity is not of whole hours"
        gold = self._engine.coverage(METRICS_HOURLY).of(self._view.silver)
        if gold is not None and (gold.definitions is None or gold.definitions < metric.changed_at):
            return "gold.metrics_hourly does not have this definition yet"
        return plan(self._view, gold, *self._range)

    def _values(self, parameters: Parameters) -> str:
        from_us, to_us = self._range
        where = []
        if from_us is not None:
            where.append(f"event_time >= make_timestamptz({parameters.name(from_us)}::bigint)")
        if to_us is not None:
            where.append(f"event_time < make_timestamptz({parameters.name(to_us)}::bigint)")
        definition = self._metric.definition
        values = values_sql(definition, self._dimensions, "events", where, parameters)
        return f"select {span_sql('event_time', self._seconds)} as moment, * from ({values}) as v"

    def _merged(self, values: str, parameters: Parameters) -> str:
        kind = self._metric.definition.aggregation_type
        names = list(_PARTS) if kind.of_numbers else ["value_weight"]
        parts = ", ".join(f"{_PARTS[name]} as {name}" for name in names)
        dimensions = [
            "source_id" if name == SOURCE else f"dimensions[{parameters.name(name)}]"
            for name in self._dimensions
        ]
        keys = [f"{span_sql('hour', self._seconds)} as moment"]
        keys += [f"{sql} as d{n}" for n, sql in enumerate(dimensions)]
        merged = {
            name: f"{'sum' if name in ('value_weight', 'value_sum') else name[-3:]}({name})"
            for name in _PARTS
        }
        return self._ordered(
            f"select {self._keys}, {WHOLE[kind].format(**merged)} as value"
            f" from (select {self._keys}, {parts} from ({values}) as s group by {self._keys}"
            f" union all select {', '.join([*keys, *names])} from hours) group by {self._keys}"
        )

    def _ordered(self, select: str) -> str:
        return f"{select} order by {self._keys} limit {self._limit}"

    def shown(self) -> dict[str, Any]:
        """For people: `explain`, after `table`."""
        chosen = self._choose() if self._chosen is None else self._chosen
        return {
            "silverVersion": self._view.silver.version,
            "cache": "hit" if self._hit else "miss",
            **explained(self._view, chosen, *self._range),
        }
