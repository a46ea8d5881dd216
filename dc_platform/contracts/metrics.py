"""A metric (design 3.5): what is measured, in which events, by which dimensions; and its SQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dc_platform.contracts.fields import (
    TIMES,
    Parameters,
    QueryError,
    column_of,
    field_sql,
    numeric_sql,
)
from dc_platform.contracts.weights import SUMMED_SQL, WEIGHT_SQL, rounded_sql, sum_sql

# A name can stand in the condition of an alert: cpu_usage > 80.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
MAX_DIMENSIONS = 16
_SUMMED = SUMMED_SQL.format("weighted")


class AggregationType(StrEnum):
    """What becomes of the values."""

    SUM = "SUM"
    AVG = "AVG"
    COUNT = "COUNT"
    MAX = "MAX"
    MIN = "MIN"
    P50 = "P50"
    P95 = "P95"
    P99 = "P99"
    UNIQUE = "UNIQUE"

    @property
    def of_numbers(self) -> bool:
        """Whether the values are numbers."""
        return self not in (AggregationType.COUNT, AggregationType.UNIQUE)


class MetricError(QueryError):
    """The definition, or what is asked of it, makes no sense; the message names the member."""


@dataclass(frozen=True)
class Definition:
    """A metric as people define it; raises MetricError.

    `field` and `dimensions` are fields as in queries (`contracts/fields.py`). COUNT may go without a
    field: then it counts events.
    """

    name: str
    aggregation_type: AggregationType
    field: str | None = None
    event_type: str | None = None
    dimensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise MetricError(
                "name: letters, digits and _, at most 128, not a digit first: cpu_usage"
            )
        if self.field is None:
            if self.aggregation_type is not AggregationType.COUNT:
                raise MetricError(f"field: {self.aggregation_type} needs one, as in duration")
        else:
            _check("field", self.field)
        if self.event_type is not None and not 0 < len(self.event_type) <= 256:
            raise MetricError("eventType: 1 to 256 characters")
        if len(self.dimensions) > MAX_DIMENSIONS:
            raise MetricError(f"dimensions: at most {MAX_DIMENSIONS}")
        if len(set(self.dimensions)) != len(self.dimensions):
            raise MetricError("dimensions: each once")
        for dimension in self.dimensions:
            _check("dimensions", dimension)
            if column_of(dimension) in TIMES:
                raise MetricError(f"dimensions: {dimension} is a time; ask with a granularity")


def _check(member: str, field: str) -> None:
    if not 0 < len(field) <= 512:
        raise MetricError(f"{member}: 1 to 512 characters")
    if column_of(field) in ("payload", "tags", "flags"):
        raise MetricError(f"{member}: name what is in {field}, as in {field}.region")
    try:
        field_sql(field, Parameters())
    except QueryError as error:
        raise MetricError(f"{member}: {error}") from None


@dataclass(frozen=True)
class DefinedMetric:
    """A definition in the registry, at one of its versions. `changed_at` is the registry's version
    with that change.
    """

    metric_id: str
    tenant_id: str
    version: int
    changed_at: int
    created_ms: int
    definition: Definition

    def shown(self) -> dict[str, Any]:
        """As JSON, for people."""
        return {
            "metricId": self.metric_id,
            "name": self.definition.name,
            "aggregationType": self.definition.aggregation_type.value,
            "field": self.definition.field,
            "eventType": self.definition.event_type,
            "dimensions": list(self.definition.dimensions),
            "version": self.version,
        }


def rounded(condition: str) -> str:
    """The number of events for which the condition holds, sampling's left out counted."""
    return rounded_sql(f"sum(weight) filter ({condition})")


def values_sql(
    definition: Definition,
    dimensions: Sequence[str],
    relation: str,
    where: Sequence[str],
    parameters: Parameters,
) -> str:
    """A SELECT of `event_time`, `source_id`, `weight`, `value`, `weighted` and the dimensions as `d0`,
    `d1`, …, one row for each event that has a value.
    """
    number = definition.aggregation_type.of_numbers
    if definition.field is None:
        value = "true"
    elif number:
        value = numeric_sql(definition.field, parameters)
    else:
        # The empty text is none, for a sketch of distinct values as well.
        value = f"nullif({field_sql(definition.field, parameters)}::varchar, '')"
    columns = [
        f"{field_sql(dimension, parameters)}::varchar as d{n}"
        for n, dimension in enumerate(dimensions)
    ]
    conditions = [*where]
    if definition.event_type is not None:
        conditions.append(f"event_type = {parameters.name(definition.event_type)}")
    picked = ", ".join(
        ["event_time", "source_id", f"{WEIGHT_SQL} as weight", f"{value} as value", *columns]
    )
    weighted = "value * weight::double" if number else "null::double"
    return (
        f"select *, {weighted} as weighted from (select {picked} from {relation}"
        f" where {' and '.join(conditions) or 'true'}) where value is not null"
    )


SUM_SQL = sum_sql("weighted")
# Weights of the values; without those that SUM_SQL leaves out.
WEIGHTS_SQL = f"sum(weight) filter (weighted is null or {_SUMMED})"
OUTSIDE_SQL = rounded(f"not {_SUMMED}")


def aggregate_sql(kind: AggregationType) -> str:
    """The metric's value, DOUBLE, over rows of `values_sql`."""
    parts = {
        "value_weight": WEIGHTS_SQL,
        "value_sum": SUM_SQL,
        "value_min": "min(value)",
        "value_max": "max(value)",
    }
    if kind is AggregationType.UNIQUE:
        return "count(distinct value)::double"
    if kind in WHOLE:
        return WHOLE[kind].format(**parts)
    return f"quantile_cont(value, {int(kind[1:]) / 100})"


# What can be put together of parts: of hours, of gold and of the rest. Adding a zero makes one of the
# two zeros that are the least value by turns.
WHOLE = {
    AggregationType.COUNT: f"{rounded_sql('{value_weight}')}::double",
    AggregationType.SUM: "({value_sum})::double",
    AggregationType.AVG: "({value_sum})::double / ({value_weight})::double",
    AggregationType.MIN: "{value_min}::double + 0e0",
    AggregationType.MAX: "{value_max}::double + 0e0",
}
