"""A saved report: SQL, or a query of design 4.2, with parameters that are bound as values. Pure.

In SQL a parameter is `$name`; in a query `{"$parameter": "name"}` stands where a value would.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_-]{0,127}")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]{0,63}")
# What the URL of a run has beside the parameters.
RESERVED = frozenset({"format", "limit", "asof"})
_PLACE = "$parameter"


class ReportError(ValueError):
    """A report, or a value for a parameter of one, that makes no sense; the message says which."""


class ParameterType(StrEnum):
    """What a parameter takes; `TIMESTAMP`: ISO 8601 (UTC when it has no zone) or epoch milliseconds."""

    TEXT = "TEXT"
    NUMBER = "NUMBER"
    BOOLEAN = "BOOLEAN"
    TIMESTAMP = "TIMESTAMP"


@dataclass(frozen=True)
class Parameter:
    """`default` is text, as in a URL; None: a run has to say the value."""

    type: ParameterType
    default: str | None = None


@dataclass(frozen=True)
class Report:
    """A definition; exactly one of `sql` and `query` is there. Raises ReportError."""

    name: str
    sql: str | None = None
    query: Mapping[str, Any] | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    description: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ReportError(f"name: {self.name!r} is not like daily-errors: {NAME.pattern}")
        if (self.sql is None) == (self.query is None):
            raise ReportError("a report has either sql or query")
        for name, parameter in self.parameters.items():
            if not _PARAMETER.fullmatch(name) or name in RESERVED:
                raise ReportError(
                    f"parameters: {name!r} is not like first_day, or is one of"
                    f" {', '.join(sorted(RESERVED))}"
                )
            if parameter.default is not None:
                value_of(name, parameter, parameter.default)
        if self.query is not None:
            self.check_named(places_of(self.query))

    def check_named(self, named: frozenset[str]) -> None:
        """Raises ReportError when the body does not name exactly the parameters that there are."""
        for name in sorted(named - self.parameters.keys()):
            raise ReportError(f"parameters: the report names ${name}, which is not defined")
        for name in sorted(self.parameters.keys() - named):
            raise ReportError(f"parameters: {name} is not used by the report")

    def bound(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Parameter → value, from texts and defaults; raises ReportError."""
        for name in sorted(given.keys() - self.parameters.keys()):
            has = ", ".join(sorted(self.parameters)) or "none"
            raise ReportError(f"{name} is no parameter of the report; it has {has}")
        values = {}
        for name, parameter in self.parameters.items():
            text = given.get(name, parameter.default)
            if text is None:
                raise ReportError(f"parameter {name} ({parameter.type}) is missing")
            values[name] = value_of(name, parameter, text)
        return values


def value_of(name: str, parameter: Parameter, text: str) -> Any:
    """A text as a value of the parameter's type; raises ReportError."""
    try:
        return _READERS[parameter.type](text)
    except (ValueError, OverflowError):
        raise ReportError(f"parameter {name}: {text!r} is no {parameter.type}") from None


def _number(text: str) -> int | float:
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    number = float(text)
    if number - number != 0:
        raise ValueError(text)
    return number


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _timestamp(text: str) -> datetime:
    if re.fullmatch(r"-?\d{1,14}", text):
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


_READERS: Mapping[ParameterType, Any] = {
    ParameterType.TEXT: str,
    ParameterType.NUMBER: _number,
    ParameterType.BOOLEAN: _boolean,
    ParameterType.TIMESTAMP: _timestamp,
}


def places_of(query: Any) -> frozenset[str]:
    """The parameters that a query names."""
    if isinstance(query, Mapping):
        if set(query) == {_PLACE}:
            return frozenset({str(query[_PLACE])})
        return frozenset().union(*map(places_of, query.values()))
    if isinstance(query, list):
        return frozenset().union(*map(places_of, query))
    return frozenset()


def filled(query: Any, values: Mapping[str, Any]) -> Any:
    """A query with values in place of its parameters; times as ISO 8601."""
    if isinstance(query, Mapping):
        if set(query) == {_PLACE}:
            value = values[str(query[_PLACE])]
            return value.isoformat() if isinstance(value, datetime) else value
        return {name: filled(member, values) for name, member in query.items()}
    if isinstance(query, list):
        return [filled(member, values) for member in query]
    return query
