"""The query of design 4.2: its body, and the statements that answer it. Pure.

No text of a person reaches SQL: values, names of tags and payload paths are parameters, and columns are
numbered; what they are called comes back in with the answer.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from dc_platform.contracts.fields import Parameters, QueryError
from dc_platform.serving.conditions import (
    Equality,
    Operator,
    condition_sql,
    equality,
    microseconds,
)
from dc_platform.serving.groupings import Grouping, Part, topped

Function = Literal["COUNT", "SUM", "AVG", "MIN", "MAX", "P50", "P95", "P99", "UNIQUE", "TOPK"]


def whole(value: Any) -> Any:
    """Checks a text, or each of a list: JSON can escape half of a character, which no text in a table
    has.
    """
    for each in value if isinstance(value, list) else [value]:
        try:
            if isinstance(each, str):
                each.encode()
        except UnicodeEncodeError:
            raise PydanticCustomError(
                "text", "Input should be text without half of a surrogate pair"
            ) from None
    return value


def _comparable(value: Any) -> Any:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, float) and not math.isfinite(each):
            raise PydanticCustomError("number", "Input should be a finite number")
    return whole(value)


class Filter(BaseModel):
    """One condition; all conditions must hold."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(min_length=1, max_length=512)
    operator: Operator
    value: Annotated[Any, AfterValidator(_comparable)] = None

    @field_validator("operator", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return " ".join(value.lower().split()) if isinstance(value, str) else value


class Aggregation(BaseModel):
    """One aggregate, per value of `groupBy`; `k` is how many values TOPK gives."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    field: str | None = Field(default=None, max_length=512)
    function: Function
    group_by: Annotated[list[str], AfterValidator(whole)] = Field(
        default_factory=list, alias="groupBy", max_length=16
    )
    alias: str | None = Field(default=None, alias="as", max_length=128)
    k: int = Field(default=10, ge=1, le=1000)

    @field_validator("function", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.strip().upper() if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """What it is called in the results: `avg_duration`, `count`."""
        function = self.function.lower()
        return self.alias or (
            function if self.field in (None, "", "*") else f"{function}_{self.field}"
        )


class Order(BaseModel):
    """What results are ordered by: `timestamp` of events; a name of a group's results."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(min_length=1, max_length=640)
    direction: Literal["asc", "desc"] = "asc"


class Query(BaseModel):
    """The body of POST /api/v1/query; the time range is [from, to)."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    from_: int | float | str | None = Field(default=None, alias="from")
    to: int | float | str | None = None
    filters: list[Filter] = Field(default_factory=list, max_length=64)
    aggregations: list[Aggregation] = Field(default_factory=list, max_length=32)
    order_by: list[Order] = Field(default_factory=list, alias="orderBy", max_length=8)
    limit: int = Field(default=1000, ge=0, le=100_000)
    cursor: str | None = Field(default=None, max_length=2048)
    explain: bool = False


# There are hardly more types. Where there are, what matches is counted apart.
_FEW_TYPES = 1000


@dataclass(frozen=True)
class Statement:
    """SQL over the relation `events`, with its parameters. The first `columns` of what it gives are
    called so; is there one more, it is the number of events that match, or with `adds_up` of those of
    the row. `equalities` hold for all events that it looks at.

    `parts`: what it is over `events` and `hours`, rows of gold.events_hourly; None where these cannot
    answer it, which `why` says. `hours`: what it is over these alone. `by_source`: whether it names the
    source of an hour.
    """

    sql: str
    parameters: dict[str, Any]
    columns: Sequence[str]
    from_us: int | None
    to_us: int | None
    parts: str | None = None
    hours: str | None = None
    why: str | None = None
    by_source: bool = True
    adds_up: bool = False
    equalities: Sequence[Equality] = ()


class Compiled:
    """The statements of a query. `sampled`: whether an event may weigh more than 1."""

    def __init__(self, query: Query, *, sampled: bool = True) -> None:
        self._query = query
        self._sampled = sampled
        self.from_us = microseconds("from", query.from_)
        self.to_us = microseconds("to", query.to)
        self.after = _position(query.cursor)
        if query.aggregations and query.cursor is not None:
            raise QueryError("cursor: groups come on one page; ask for more of them with limit")
        self.statements = self._aggregates() if query.aggregations else [self._events()]

    @cached_property
    def count(self) -> Statement:
        """Counts what matches, before the limit."""
        return self._groups(Grouping((), Parameters()), ["count"], ungrouped=True)

    # --- events ---

    @property
    def newest_first(self) -> bool:
        """The order of events."""
        orders = self._query.order_by
        if orders and (len(orders) > 1 or orders[0].field != "timestamp"):
            raise QueryError("orderBy: events are ordered by timestamp alone, asc or desc")
        return not orders or orders[0].direction == "desc"

    def _events(self) -> Statement:
        parameters = Parameters()
        where = self._conditions(parameters)
        direction, earlier = ("desc", "<") if self.newest_first else ("asc", ">")
        from_us, to_us = self.from_us, self.to_us
        if self.after is not None:
            at, event_id, source_id = self.after
            moment = f"make_timestamptz({at})"
            id_, source = parameters.name(event_id), parameters.name(source_id)
            where.append(
                f"(event_time {earlier} {moment} or (event_time = {moment} and (event_id > {id_}"
                f" or (event_id = {id_} and source_id > {source}))))"
            )
            # Files of earlier pages need not be opened.
            if self.newest_first:
                to_us = at + 1 if to_us is None else min(to_us, at + 1)
            else:
                from_us = at if from_us is None else max(from_us, at)
        sql = (
            f"select {EVENT_COLUMNS} from events{_where(where)}"
            f" order by event_time {direction}, event_id, source_id limit {self._query.limit + 1}"
        )
        names = EVENT_COLUMNS.split(", ")
        return Statement(
            sql,
            parameters,
            names,
            from_us,
            to_us,
            why="events are asked for",
            equalities=self._equalities(),
        )

    # --- groups ---

    def _aggregates(self) -> list[Statement]:
        groups: dict[tuple[str, ...], list[Aggregation]] = {}
        tops: list[Statement] = []
        for aggregation in self._query.aggregations:
            keys = tuple(aggregation.group_by)
            if aggregation.function == "TOPK":
                tops.append(self._top(keys, aggregation))
            else:
                groups.setdefault(keys, []).append(aggregation)
        found = []
        for keys, members in groups.items():
            grouping = Grouping(keys, Parameters(), sampled=self._sampled)
            for member in members:
                grouping.add(member.function, member.field)
            found.append(self._groups(grouping, [member.name for member in members]))
        known = {name for statement in found for name in statement.columns}
        known |= {name for statement in tops for name in statement.columns[:-1]}
        lists = {statement.columns[-1] for statement in tops}
        for order in self._query.order_by:
            if order.field not in known and order.field in lists:
                raise QueryError(
                    f"orderBy: {order.field!r} is a list of values; order by its groupBy, or by a"
                    " COUNT beside it"
                )
            if order.field not in known:
                raise QueryError(
                    f"orderBy: {order.field!r} is no column of the results; there are"
                    f" {', '.join(sorted(known))}"
                )
        return [*found, *tops]

    def _groups(
        self, grouping: Grouping, names: Sequence[str], *, ungrouped: bool = False
    ) -> Statement:
        if ungrouped:
            grouping.add_rows()
        where = _where(self._conditions(grouping.parameters))
        columns = (*grouping.keys, *names)
        order = "" if ungrouped else grouping.order_sql(self._ordered_by(columns))
        tail = f"{order} limit {self._query.limit + 1}" if not ungrouped else ""
        fields = [condition.field for condition in self._query.filters]
        why = grouping.why_not_hourly(fields)
        # Types are few, and to add up what all have is a tenth quicker here.
        of_all = self._query.limit < _FEW_TYPES or not set(grouping.keys) <= {"eventType"}

        def sql(part: Part) -> str:
            return grouping.sql(part, where, of_all=of_all) + tail

        return Statement(
            sql(Part.PLAIN),
            grouping.parameters,
            columns,
            self.from_us,
            self.to_us,
            None if why else sql(Part.MERGED),
            None if why else sql(Part.HOURS),
            why,
            by_source="sourceId" in (*grouping.keys, *fields),
            adds_up=not of_all,
            equalities=self._equalities(),
        )

    def _top(self, keys: tuple[str, ...], aggregation: Aggregation) -> Statement:
        parameters = Parameters()
        sql = topped(
            keys,
            aggregation.field,
            aggregation.k,
            parameters,
            lambda: _where(self._conditions(parameters)),
            self._ordered_by(keys),
        )
        limit = f" limit {self._query.limit + 1}"
        return Statement(
            sql + limit,
            parameters,
            (*keys, aggregation.name),
            self.from_us,
            self.to_us,
            why="TOPK is not in gold.events_hourly",
            equalities=self._equalities(),
        )

    def _ordered_by(self, columns: Sequence[str]) -> list[tuple[int, str]]:
        return [
            (columns.index(order.field), order.direction)
            for order in self._query.order_by
            if order.field in columns
        ]

    def _conditions(self, parameters: Parameters) -> list[str]:
        conditions = []
        if self.from_us is not None:
            conditions.append(f"event_time >= make_timestamptz({self.from_us})")
        if self.to_us is not None:
            conditions.append(f"event_time < make_timestamptz({self.to_us})")
        return conditions + [condition_sql(f, parameters) for f in self._query.filters]

    def _equalities(self) -> list[Equality]:
        found = map(equality, self._query.filters)
        return [each for each in found if each is not None]


EVENT_COLUMNS = (
    "event_id, client_event_id, source_id, event_time, event_type, payload, received_at,"
    " processed_at, schema_version, tags, flags"
)


def _where(conditions: Sequence[str]) -> str:
    return f" where {' and '.join(conditions)}" if conditions else ""


_Position = tuple[int, str, str]
_encode = msgspec.json.Encoder().encode
_positions = msgspec.json.Decoder(_Position)


def cursor_of(event_us: int, event_id: str, source_id: str) -> str:
    """The cursor of what comes after an event."""
    return base64.urlsafe_b64encode(_encode((event_us, event_id, source_id))).decode()


def _position(cursor: str | None) -> _Position | None:
    if cursor is None:
        return None
    try:
        at, event_id, source_id = _positions.decode(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError):
        raise QueryError("cursor: send the nextCursor of an answer, as it was") from None
    if not -62_135_596_800_000_000 <= at < 253_402_300_800_000_000:
        raise QueryError("cursor: send the nextCursor of an answer, as it was")
    return at, event_id, source_id
