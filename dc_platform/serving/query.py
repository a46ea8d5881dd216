"""The query of design 4.2 to SQL. Pure: names become quoted paths (`contracts/fields.py`), values
become parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dc_platform.contracts.fields import (
    TIMES,
    Parameters,
    QueryError,
    column_of,
    field_sql,
    number_sql,
    numeric_sql,
    quoted,
)
from dc_platform.contracts.identity import canonical_uuid

Operator = Literal[
    "=", "==", "!=", "<>", "<", "<=", ">", ">=", "in", "not in", "contains", "exists"
]
Function = Literal["COUNT", "SUM", "AVG", "MIN", "MAX", "P50", "P95", "P99", "UNIQUE"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# From here on a double no longer tells an integer from its neighbours.
_EXACT = 2**53
_HUGE = 2**126
_COMPARISONS = {
    "=": "=",
    "==": "=",
    "!=": "<>",
    "<>": "<>",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}


class Filter(BaseModel):
    """One condition; all conditions must hold."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(min_length=1, max_length=512)
    operator: Operator
    value: Any = None

    @field_validator("operator", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value


class Aggregation(BaseModel):
    """One aggregate, per value of `groupBy`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    field: str | None = Field(default=None, max_length=512)
    function: Function
    group_by: list[str] = Field(default_factory=list, alias="groupBy", max_length=16)
    alias: str | None = Field(default=None, alias="as", max_length=128)

    @field_validator("function", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.strip().upper() if isinstance(value, str) else value


class Query(BaseModel):
    """The body of POST /api/v1/query; the time range is [from, to)."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    from_: int | float | str | None = Field(default=None, alias="from")
    to: int | float | str | None = None
    filters: list[Filter] = Field(default_factory=list, max_length=64)
    aggregations: list[Aggregation] = Field(default_factory=list, max_length=32)
    limit: int = Field(default=1000, ge=0, le=100_000)


class Statement(NamedTuple):
    """SQL and the parameters that it names."""

    sql: str
    parameters: dict[str, Any]


class Compiled:
    """The statements of a query. `count` counts what matches, before the limit."""

    def __init__(self, query: Query) -> None:
        self._parameters = Parameters()
        self._query = query
        self.from_us = microseconds("from", query.from_)
        self.to_us = microseconds("to", query.to)
        self.count = self._statement(lambda where: f"select count(*) from events{where}")
        if query.aggregations:
            self.statements = self._aggregates(query)
        else:
            self.statements = [self._statement(self._events)]

    def _statement(self, sql: Callable[[str], str]) -> Statement:
        self._parameters = Parameters()
        text = sql(self._where(self._query))
        return Statement(text, self._parameters)

    def _events(self, where: str) -> str:
        return (
            f"select {EVENT_COLUMNS} from events{where}"
            f" order by event_time desc, event_id limit {self._query.limit}"
        )

    def _where(self, query: Query) -> str:
        conditions = []
        if self.from_us is not None:
            conditions.append(f"event_time >= make_timestamptz({self.from_us})")
        if self.to_us is not None:
            conditions.append(f"event_time < make_timestamptz({self.to_us})")
        conditions += [self._condition(f) for f in query.filters]
        return f" where {' and '.join(conditions)}" if conditions else ""

    def _condition(self, condition: Filter) -> str:
        column = column_of(condition.field)
        operator, value = condition.operator, condition.value
        if column == "tags" and operator != "exists":
            raise QueryError("filter on metadata.tags: name the tag, as in metadata.tags.region")
        if column == "flags" and operator not in ("contains", "exists"):
            raise QueryError("filter on metadata.flags: use contains, or exists")
        if operator == "exists":
            text = field_sql(condition.field, self._parameters)
            return f"{text} is {'not ' if value is not False else ''}null"
        if operator in ("in", "not in"):
            if not isinstance(value, list):
                raise QueryError(f"filter on {condition.field!r}: {operator!r} needs a list")
            choices = [self._compare(condition.field, column, "=", v) for v in value]
            any_of = f"({' or '.join(choices)})" if choices else "false"
            return any_of if operator == "in" else f"not coalesce({any_of}, false)"
        if operator == "contains":
            if not isinstance(value, str):
                raise QueryError(f"filter on {condition.field!r}: 'contains' needs a string")
            text = field_sql(condition.field, self._parameters)
            return f"contains({text}::varchar, {self._parameters.name(value)})"
        return self._compare(condition.field, column, _COMPARISONS[operator], value)

    def _compare(self, field: str, column: str | None, operator: str, value: Any) -> str:
        if value is None:
            text = field_sql(field, self._parameters)
            if operator in ("=", "<>"):
                return f"{text} is {'not ' if operator == '<>' else ''}null"
            raise QueryError(f"filter on {field!r}: {operator!r} needs a value")
        if isinstance(value, list | dict):
            raise QueryError(f"filter on {field!r}: {operator!r} needs a single value")
        if column in TIMES:
            at = microseconds(field, value)
            return f"{column} {operator} make_timestamptz({at})"
        text = field_sql(field, self._parameters)
        if isinstance(value, bool):
            value = "true" if value else "false"
        if column == "event_id" and operator in ("=", "<>"):
            return self._compare_id(operator, str(value))
        if isinstance(value, int | float) and column is None:
            return self._compare_number(text, operator, value)
        return f"{text} {operator} {self._parameters.name(str(value))}"

    def _compare_id(self, operator: str, value: str) -> str:
        """An id that a client gave is kept as it is when it is a UUID, else beside the event's own."""
        canonical = canonical_uuid(value)
        if canonical is not None:
            return f"event_id {operator} {self._parameters.name(canonical)}"
        same = "is not distinct from" if operator == "=" else "is distinct from"
        return f"client_event_id {same} {self._parameters.name(value)}"

    def _compare_number(self, text: str, operator: str, value: float) -> str:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
        rounded = f"{number_sql(text)} {operator} {self._parameters.name(number)}"
        if not isinstance(value, int) or not _EXACT <= abs(value) < _HUGE:
            return rounded
        # Ids of 64 bits are integers that a double would confuse.
        exact = f"try_cast({text} as hugeint) {operator} {self._parameters.name(value)}::hugeint"
        return f"case when regexp_full_match({text}, '-?[0-9]+') then {exact} else {rounded} end"

    def _aggregates(self, query: Query) -> list[Statement]:
        groups: dict[tuple[str, ...], list[Aggregation]] = {}
        for aggregation in query.aggregations:
            groups.setdefault(tuple(aggregation.group_by), []).append(aggregation)
        return [
            self._statement(partial(self._grouped, keys, members))
            for keys, members in groups.items()
        ]

    def _grouped(self, keys: tuple[str, ...], members: list[Aggregation], where: str) -> str:
        columns = []
        for key in keys:
            column = field_sql(key, self._parameters)
            columns.append(f"{column} as {quoted(key)}")
        columns += [
            f"{self._aggregate(a)} as {quoted(a.alias or default_name(a))}" for a in members
        ]
        by = f" group by {', '.join(str(i + 1) for i in range(len(keys)))}" if keys else ""
        order = f" order by {len(keys) + 1} desc nulls last" if keys else ""
        ties = "".join(f", {i + 1}" for i in range(len(keys)))
        limit = self._query.limit
        return f"select {', '.join(columns)} from events{where}{by}{order}{ties} limit {limit}"

    def _aggregate(self, aggregation: Aggregation) -> str:
        field, function = aggregation.field, aggregation.function
        if function == "COUNT":
            if not field or field == "*":
                return "count(*)"
            return f"count({field_sql(field, self._parameters)})"
        if not field or field == "*":
            raise QueryError(f"aggregation {function} needs a field")
        if function == "UNIQUE":
            return f"count(distinct {field_sql(field, self._parameters)})"
        column = column_of(field)
        if column is not None and column not in TIMES and function in ("MIN", "MAX"):
            value = column
        else:
            value = numeric_sql(field, self._parameters)
        if function in ("P50", "P95", "P99"):
            return f"quantile_cont({value}, {int(function[1:]) / 100})"
        return f"{function.lower()}({value})"


EVENT_COLUMNS = (
    "event_id, client_event_id, source_id, event_time, event_type, payload, received_at,"
    " processed_at, schema_version, tags, flags"
)


def default_name(aggregation: Aggregation) -> str:
    """Name of an aggregate in the results: `avg_duration`, `count`."""
    function = aggregation.function.lower()
    if aggregation.field in (None, "", "*"):
        return function
    return f"{function}_{aggregation.field}"


def microseconds(name: str, value: Any) -> int | None:
    """Epoch milliseconds or ISO 8601 (UTC when it has no zone) to epoch microseconds."""
    if value is None:
        return None
    if isinstance(value, bool):
        raise QueryError(f"{name}: expected epoch milliseconds or ISO 8601, got {value!r}")
    if isinstance(value, int | float):
        if not -62_135_596_800_000 <= value <= 253_402_300_799_999:
            raise QueryError(f"{name}: {value} is not within the years 1 to 9999")
        return int(value * 1000)
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise QueryError(
            f"{name}: expected epoch milliseconds or ISO 8601, got {value!r}"
        ) from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return (at - _EPOCH) // timedelta(microseconds=1)
