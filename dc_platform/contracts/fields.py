"""Fields of an event, as people name them, to SQL. Pure: names become quoted paths and parameters.

A field is one of the envelope's names (design 3.2: eventId, sourceId, timestamp, eventType,
metadata.receivedAt, metadata.processedAt, metadata.version, metadata.tags.NAME, metadata.flags) or else
a path into the payload: `userId`, `cart.items[0].price`, with or without a leading `payload.`.
"""

from __future__ import annotations

import re
from typing import Any

ENVELOPE = {
    "eventId": "event_id",
    "sourceId": "source_id",
    "timestamp": "event_time",
    "eventType": "event_type",
    "payload": "payload",
    "metadata.receivedAt": "received_at",
    "metadata.processedAt": "processed_at",
    "metadata.version": "schema_version",
    "metadata.tags": "tags",
    "metadata.flags": "flags",
}
TIMES = frozenset({"event_time", "received_at", "processed_at"})
# DuckDB gives a meaning to quotes, backslashes and stars in the names of a path.
_NAME = r"[^.\[\]\"'\\*\x00]+"
_PATH = re.compile(rf"{_NAME}(?:\[\d{{1,9}}\]|\.{_NAME})*")

_SPAN = re.compile(r"([1-9]\d{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# 2000-01-03, a Monday, as DuckDB's time_bucket has it.
_ORIGIN_US = 946_857_600_000_000
_YEAR_1_US = -62_135_596_800_000_000


class QueryError(ValueError):
    """The query cannot be run; the message names the field."""


class Parameters(dict[str, Any]):
    """Values of a statement by the names that its SQL has for them."""

    def name(self, value: Any) -> str:
        """A name for a value; DuckDB refuses parameters that no SQL names, so call it when used."""
        name = f"p{len(self)}"
        self[name] = value
        return f"${name}"


def column_of(field: str) -> str | None:
    """The column of one of the envelope's names; None for a tag and a payload path."""
    return ENVELOPE.get(field)


def text_sql(field: str, parameters: Parameters) -> str:
    """A tag or a payload path as text, null in what is no JSON; raises QueryError."""
    tag = field.removeprefix("metadata.tags.")
    if tag != field:
        return f"tags[{parameters.name(tag)}]"
    if field.startswith("metadata."):
        known = [name for name in ENVELOPE if name.startswith("metadata.")]
        raise QueryError(
            f"field {field!r} is unknown: there are {', '.join(known)} and metadata.tags.NAME; what the"
            f" payload has is payload.{field}"
        )
    return f"try(payload ->> {parameters.name(json_path(field))})"


def field_sql(field: str, parameters: Parameters) -> str:
    """Any field: a column, or text."""
    return column_of(field) or text_sql(field, parameters)


def numeric_sql(field: str, parameters: Parameters) -> str:
    """A field as a number: times in epoch milliseconds, null for what is none."""
    column = column_of(field)
    if column in TIMES:
        return f"epoch_ms({column})"
    return number_sql(column or text_sql(field, parameters))


def number_sql(text: str) -> str:
    """The number that a text is; null when it is none ("NaN" would spoil every sum)."""
    number = f"try_cast({text} as double)"
    return f"case when isfinite({number}) then {number} end"


def json_path(field: str) -> str:
    """A payload path in DuckDB's form, every name quoted; raises QueryError."""
    path = field.removeprefix("payload.")
    if not _PATH.fullmatch(path):
        raise QueryError(
            f"field {field!r} is neither one of {', '.join(ENVELOPE)} nor a payload path like"
            " user.id or items[0].price"
        )
    steps = re.findall(r"[^.\[\]]+|\[\d+\]", path)
    return "$" + "".join(s if s.startswith("[") else f'."{s}"' for s in steps)


def seconds_of(span: str) -> int | None:
    """The seconds of a span, a number and s, m, h or d as in 5m; None of what is none."""
    found = _SPAN.fullmatch(span)
    return int(found[1]) * _SECONDS[found[2]] if found else None


def span_sql(column: str, seconds: int) -> str:
    """The begin of the span that a time lies in, epoch milliseconds. Spans begin at midnight UTC as far
    as they divide a day, those of weeks on Mondays.

    In integers: DuckDB's time_bucket takes three times as long. The origin is moved to before all
    times, because DuckDB's remainder of a negative number is negative.
    """
    width = seconds * 1_000_000
    origin = _ORIGIN_US - -(-(_ORIGIN_US - _YEAR_1_US) // width) * width
    micros = f"epoch_us({column})"
    return f"(({micros} - ({micros} - ({origin})) % {width}) // 1000)"


def quoted(name: str) -> str:
    """A name as SQL has it."""
    if "\0" in name:
        raise QueryError("a name must not have the character NUL")
    return '"' + name.replace('"', '""') + '"'
