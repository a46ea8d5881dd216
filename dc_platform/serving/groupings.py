"""Groups of events and their aggregates to SQL, whole or put together of parts. Pure.

An aggregate is made of parts, sums and extremes that one group of rows gives. Parts of different rows
add up: what gold has of an hour, and what the events of other hours give. Quantiles, different values
and most frequent values do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from dc_platform.contracts.fields import (
    TIMES,
    Parameters,
    QueryError,
    column_of,
    field_sql,
    numeric_sql,
    seconds_of,
    span_sql,
)
from dc_platform.contracts.weights import SUMMED_SQL, WEIGHT_SQL, rounded_sql, sum_sql, weights_sql

# Fields that gold.events_hourly has as they are.
HOURLY_FIELDS = frozenset({"eventType", "sourceId"})
_HOUR = 3600


class Part(Enum):
    """Where the rows come from: `events` alone, `hours` alone, or both."""

    PLAIN = "plain"
    HOURS = "hours"
    MERGED = "merged"


class _Piece(NamedTuple):
    """A part: of rows, how it is put together, of rows of gold (None: not there)."""

    of_rows: str
    merge: str | None
    of_hours: str | None


class Key(NamedTuple):
    """A member of groupBy; `seconds` is the length of its spans, if it is a time in spans."""

    sql: str
    seconds: int | None = None


def key_of(name: str, parameters: Parameters) -> Key:
    """`eventType`, `country`, `timestamp:1h`; raises QueryError."""
    field, colon, span = name.rpartition(":")
    column = column_of(field)
    if not colon or column not in TIMES:
        return Key(field_sql(name, parameters))
    seconds = seconds_of(span)
    if seconds is None:
        raise QueryError(
            f"groupBy {name!r}: after the colon a number and s, m, h or d, as in {field}:5m"
        )
    assert column is not None
    return Key(span_sql(column, seconds), seconds)


class Grouping:
    """Aggregates that share a groupBy, one row per group; `parameters` are those of its SQL. `sampled`:
    whether an event may weigh more than 1.
    """

    def __init__(
        self, keys: Sequence[str], parameters: Parameters, *, sampled: bool = True
    ) -> None:
        self._sampled = sampled
        self.keys = tuple(keys)
        self.parameters = parameters
        self._keys = [key_of(key, parameters) for key in keys]
        self._values: dict[tuple[str, bool], tuple[str, str]] = {}
        self._pieces: dict[_Piece, str] = {}
        self._finals: list[str] = []
        self._lacking: str | None = None

    # --- what is asked for ---

    def add(self, function: str, field: str | None) -> None:
        """An aggregate, by the name that the API has for it; raises QueryError."""
        if function == "COUNT":
            self._finals.append(rounded_sql(self._weights(field)))
            return
        if not field or field == "*":
            raise QueryError(f"aggregation {function} needs a field")
        if function in ("SUM", "AVG"):
            self._lack(f"{function} of {field}")
            value = self._value(field, numeric=True)
            weighted = f"({value} * weight::double)"
            total = f"({self._piece(sum_sql(weighted))})::double"
            if function == "AVG":
                summed = weights_sql(SUMMED_SQL.format(weighted))
                total += f" / ({self._piece(summed)})::double"
            self._finals.append(total)
        elif function in ("MIN", "MAX"):
            self._finals.append(self._extreme(function.lower(), field))
        else:
            self._lack(f"{function} of {field}")
            if function == "UNIQUE":
                value = self._value(field)
                self._finals.append(self._piece(f"count(distinct {value})"))
            else:
                value = self._value(field, numeric=True)
                share = int(function[1:]) / 100
                self._finals.append(self._piece(f"quantile_cont({value}, {share})"))

    def add_rows(self) -> None:
        """The number of rows, not weighted."""
        self._finals.append("n::bigint")

    def _weights(self, field: str | None) -> str:
        if not field or field == "*":
            return self._piece(weights_sql(sampled=self._sampled), "sum", "sum(weight)")
        self._lack(f"COUNT of {field}")
        there = f"{self._value(field)} is not null"
        return self._piece(weights_sql(there, sampled=self._sampled))

    def _extreme(self, side: str, field: str) -> str:
        column = column_of(field)
        if column == "event_time":
            stored = {"min": "first_event_time", "max": "last_event_time"}[side]
            value = self._value(field, numeric=True)
            return self._piece(f"{side}({value})", side, f"{side}(epoch_ms({stored}))")
        self._lack(f"{side.upper()} of {field}")
        numeric = column is None or column in TIMES
        return self._piece(f"{side}({self._value(field, numeric=numeric)})")

    def _value(self, field: str, *, numeric: bool = False) -> str:
        if (field, numeric) not in self._values:
            sql = (numeric_sql if numeric else field_sql)(field, self.parameters)
            self._values[field, numeric] = (f"v{len(self._values)}", sql)
        return self._values[field, numeric][0]

    def _piece(self, of_rows: str, merge: str | None = None, of_hours: str | None = None) -> str:
        piece = _Piece(of_rows, merge, of_hours)
        return self._pieces.setdefault(piece, f"p{len(self._pieces)}")

    def _lack(self, what: str) -> None:
        self._lacking = self._lacking or what

    # --- SQL ---

    def why_not_hourly(self, fields: Iterable[str]) -> str | None:
        """Why gold.events_hourly cannot answer it, with filters on `fields`; None if it can."""
        for name, key in zip(self.keys, self._keys, strict=True):
            whole = key.seconds is not None and key.seconds % _HOUR == 0
            if name not in HOURLY_FIELDS and not (whole and name.startswith("timestamp:")):
                return f"gold.events_hourly is not grouped by {name}"
        for field in fields:
            if field not in HOURLY_FIELDS:
                return f"gold.events_hourly cannot be filtered by {field}"
        return f"gold.events_hourly does not have {self._lacking}" if self._lacking else None

    def sql(self, part: Part, where: str, *, of_all: bool = True) -> str:
        """A SELECT of c0, c1, … and, last, the number of rows `of_all` groups, or of each."""
        keys = [f"k{n}" for n in range(len(self._keys))]
        columns = [*keys, *self._finals]
        shown = ", ".join(f"{column} as c{n}" for n, column in enumerate(columns))
        parts = self._of_hours(where) if part is Part.HOURS else self._of_events(where)
        if part is Part.MERGED:
            parts = self._merged([parts, self._of_hours(where)])
        total = "sum(n) over ()" if of_all else "n"
        return f"select {shown}, ({total})::bigint as total from ({parts})"

    def order_sql(self, asked: Sequence[tuple[int, str]]) -> str:
        """As it was asked for; else by time, the first aggregate (greatest first), the other keys."""
        return _order_sql(self._keys, asked, [f"c{len(self._keys)} desc nulls last"])

    def _of_events(self, where: str) -> str:
        values = [f"{sql} as {name}" for name, sql in self._values.values()]
        if any("weight::double" in piece.of_rows for piece in self._pieces):
            values.append(f"{WEIGHT_SQL} as weight")
        pieces = [f"{piece.of_rows} as {name}" for piece, name in self._pieces.items()]
        pieces.append("count(*) as n")
        if not values:
            # DuckDB takes 0.1 ms to plan each SELECT within another.
            return self._grouped(pieces, f"events{where}", self._named_keys())
        rows = ["sample_rate", *self._named_keys(), *values]
        return self._grouped(pieces, f"(select {', '.join(rows)} from events{where})")

    def _of_hours(self, where: str) -> str:
        pieces = [f"{piece.of_hours} as {name}" for piece, name in self._pieces.items()]
        pieces.append("coalesce(sum(row_count), 0) as n")
        return self._grouped(pieces, f"hours{where}", self._named_keys())

    def _named_keys(self) -> list[str]:
        return [f"{key.sql} as k{n}" for n, key in enumerate(self._keys)]

    def _merged(self, parts: Sequence[str]) -> str:
        pieces = [f"{piece.merge}({name}) as {name}" for piece, name in self._pieces.items()]
        both = " union all ".join(parts)
        return self._grouped([*pieces, "sum(n) as n"], f"({both})")

    def _grouped(
        self, columns: Sequence[str], relation: str, named_keys: Sequence[str] | None = None
    ) -> str:
        keys = [f"k{n}" for n in range(len(self._keys))]
        by = f" group by {', '.join(keys)}" if keys else ""
        return f"select {', '.join([*(named_keys or keys), *columns])} from {relation}{by}"


def _order_sql(keys: Sequence[Key], asked: Sequence[tuple[int, str]], most: Sequence[str]) -> str:
    orders = [f"c{column} {direction} nulls last" for column, direction in asked]
    if not asked:
        orders += [f"c{n}" for n, key in enumerate(keys) if key.seconds is not None]
        orders += most
    taken = {column for column, _ in asked}
    orders += [f"c{n}" for n in range(len(keys)) if n not in taken]
    return f" order by {', '.join(orders)}"


def topped(
    keys: Sequence[str],
    field: str | None,
    k: int,
    parameters: Parameters,
    where: Callable[[], str],
    asked: Sequence[tuple[int, str]] = (),
) -> str:
    """A SELECT of the keys and, per group, the k most frequent values of a field with their weights; of
    values that are as frequent those that sort first. Groups without a value have no row. They come in
    the order of the keys that is `asked` for, else by time and the other keys.
    """
    if not field or field == "*":
        raise QueryError("aggregation TOPK needs a field")
    names = [f"k{n}" for n in range(len(keys))]
    found = [key_of(key, parameters) for key in keys]
    rows = [f"{key.sql} as {name}" for key, name in zip(found, names, strict=True)]
    rows += [f"{field_sql(field, parameters)}::varchar as v", "sample_rate"]
    all_keys = "".join(f"{name}, " for name in names)
    counted = (
        f"select {all_keys}v, {rounded_sql(weights_sql())} as w"
        f" from (select {', '.join(rows)} from events{where()}) where v is not null"
        f" group by {all_keys}v"
    )
    apart = f"partition by {', '.join(names)} " if names else ""
    placed = f"select *, row_number() over ({apart}order by w desc, v) as place from ({counted})"
    shown = "".join(f"{name} as c{n}, " for n, name in enumerate(names))
    by = f" group by {', '.join(names)}{_order_sql(found, asked, ())}" if names else ""
    values = "coalesce(list({'value': v, 'count': w} order by place), [])"
    return f"select {shown}{values} as c{len(names)} from ({placed}) where place <= {k}{by}"
