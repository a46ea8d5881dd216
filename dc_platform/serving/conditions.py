"""Filters of a query to SQL. Pure: what a person wrote becomes parameters, never text."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

from dc_platform.contracts.fields import (
    TIMES,
    Parameters,
    QueryError,
    column_of,
    field_sql,
    json_path,
    number_sql,
)
from dc_platform.contracts.identity import canonical_uuid

# fmt: off
Operator = Literal[
    "=", "==", "!=", "<>", "<", "<=", ">", ">=", "in", "not in", "contains", "starts with", "ends with",
    "exists",
]
# fmt: on

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
# From here on a double no longer tells an integer from its neighbours.
_EXACT = 2**53
_HUGE = 2**126
# Of so few values each is compared, by which files are skipped. More are looked up in a table of them:
# 10,000 comparisons take six seconds before the first row.
_FEW = 16
_MOST_VALUES = 10_000
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
_OF_TEXT = {"contains": "contains", "starts with": "starts_with", "ends with": "ends_with"}
# One flag is the text, or begins with it.
_OF_FLAGS = {
    "contains": "list_contains(flags, {})",
    "starts with": "list_bool_or(list_transform(flags, lambda flag: starts_with(flag, {})))",
}
# What a number is compared with as a number: tags and what is in the payload, and the version.
_OF_NUMBERS = frozenset({None, "schema_version"})


@dataclass(frozen=True)
class Equality:
    """That a payload field (`path`, as DuckDB has it) is one of some values: their texts, a number's as
    `payload_index.key_sql` has it.
    """

    path: str
    values: Sequence[str]


class Condition(Protocol):
    """What a filter says."""

    field: str
    operator: Operator
    value: Any


def condition_sql(condition: Condition, parameters: Parameters) -> str:
    """One filter; raises QueryError, which names the field."""
    field, operator, value = condition.field, condition.operator, condition.value
    column = column_of(field)
    if column == "tags" and operator != "exists":
        raise QueryError("filter on metadata.tags: name the tag, as in metadata.tags.region")
    if column == "flags" and operator not in (*_OF_FLAGS, "exists"):
        raise QueryError("filter on metadata.flags: use contains, starts with, or exists")
    if operator == "exists":
        text = field_sql(field, parameters)
        return f"{text} is {'not ' if value is not False else ''}null"
    if operator in ("in", "not in"):
        if not isinstance(value, list):
            raise QueryError(f"filter on {field!r}: {operator!r} needs a list")
        any_of = f"({_one_of(field, column, value, parameters)})"
        return any_of if operator == "in" else f"not coalesce({any_of}, false)"
    if operator in _OF_TEXT:
        if not isinstance(value, str):
            raise QueryError(f"filter on {field!r}: {operator!r} needs a string")
        text = field_sql(field, parameters)
        if column == "flags":
            return _OF_FLAGS[operator].format(parameters.name(value))
        return f"{_OF_TEXT[operator]}({text}::varchar, {parameters.name(value)})"
    return _compare(field, column, _COMPARISONS[operator], value, parameters)


def equality(condition: Condition) -> Equality | None:
    """A filter as an equality on a payload field; None of one that is none. Of one that `condition_sql`
    takes.
    """
    field, operator, value = condition.field, condition.operator, condition.value
    if column_of(field) is not None or field.startswith("metadata."):
        return None
    values = value if operator == "in" else [value] if operator in ("=", "==") else []
    if not values or any(each is None for each in values):
        return None
    return Equality(json_path(field), [_text_of(each) for each in values])


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(_double(value))
    return str(value)


def _compare(
    field: str, column: str | None, operator: str, value: Any, parameters: Parameters
) -> str:
    if value is None:
        text = field_sql(field, parameters)
        if operator in ("=", "<>"):
            return f"{text} is {'not ' if operator == '<>' else ''}null"
        raise QueryError(f"filter on {field!r}: {operator!r} needs a value")
    if isinstance(value, list | dict):
        raise QueryError(f"filter on {field!r}: {operator!r} needs a single value")
    if column in TIMES:
        at = microseconds(field, value)
        return f"{column} {operator} make_timestamptz({at})"
    text = field_sql(field, parameters)
    if isinstance(value, bool):
        value = "true" if value else "false"
    if column == "event_id" and operator in ("=", "<>"):
        return _compare_id(operator, str(value), parameters)
    if isinstance(value, int | float) and column in _OF_NUMBERS:
        return _compare_number(text, operator, value, parameters)
    return f"{text} {operator} {parameters.name(str(value))}"


def _one_of(field: str, column: str | None, values: Sequence[Any], parameters: Parameters) -> str:
    if len(values) > _MOST_VALUES:
        raise QueryError(
            f"filter on {field!r}: a list has at most {_MOST_VALUES} values, not {len(values)}"
        )
    single, many = values, list[Any]()
    if len(values) > _FEW:
        single = [v for v in values if isinstance(v, list | dict)]
        single += [None] if None in values else []
        many = [v for v in values if v is not None]
    choices = [_compare(field, column, "=", value, parameters) for value in single]
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for value in many:
        kind, text = _looked_up(field, column, value)
        kinds[kind].append(text)
    for kind, texts in kinds.items():
        listed = f"from_json({parameters.name(json.dumps(texts))}, '[\"VARCHAR\"]')"
        choices.append(_is_listed(kind, field, listed, parameters))
    return " or ".join(choices) or "false"


def _looked_up(field: str, column: str | None, value: Any) -> tuple[str, str]:
    """How `_compare` compares a value, and its text."""
    if column in TIMES:
        return "time", str(microseconds(field, value))
    if isinstance(value, bool):
        value = "true" if value else "false"
    if column == "event_id":
        canonical = canonical_uuid(str(value))
        return ("client_event_id", str(value)) if canonical is None else ("event_id", canonical)
    if isinstance(value, int | float) and column in _OF_NUMBERS:
        return ("integer", str(value)) if _is_long(value) else ("number", repr(_double(value)))
    return "text", str(value)


def _is_listed(kind: str, field: str, listed: str, parameters: Parameters) -> str:
    if kind in ("event_id", "client_event_id"):
        return f"{kind} in (select unnest({listed}))"
    text = field_sql(field, parameters)
    if kind == "time":
        return f"epoch_us({text}) in (select unnest({listed}::bigint[]))"
    if kind == "text":
        return f"{text} in (select unnest({listed}))"
    near = f"{number_sql(text)} in (select unnest({listed}::double[]))"
    if kind == "number":
        return near
    exact = f"try_cast({text} as hugeint) in (select unnest({listed}::hugeint[]))"
    return f"coalesce(case when regexp_full_match({text}, '-?[0-9]+') then {exact} end, {near})"


def _compare_id(operator: str, value: str, parameters: Parameters) -> str:
    """An id that a client gave is kept as it is when it is a UUID, else beside the event's own."""
    canonical = canonical_uuid(value)
    if canonical is not None:
        return f"event_id {operator} {parameters.name(canonical)}"
    same = "is not distinct from" if operator == "=" else "is distinct from"
    return f"client_event_id {same} {parameters.name(value)}"


def _compare_number(text: str, operator: str, value: float, parameters: Parameters) -> str:
    holds = f"{number_sql(text)} {operator} {parameters.name(_double(value))}"
    if _is_long(value):
        exact = f"try_cast({text} as hugeint) {operator} {parameters.name(value)}::hugeint"
        whole = f"regexp_full_match({text}, '-?[0-9]+')"
        holds = f"coalesce(case when {whole} then {exact} end, {holds})"
    if operator == "<>":
        # What is no number is another value.
        return f"({text} is not null and ({holds}) is not false)"
    return holds


def _is_long(value: float) -> bool:
    """Ids of 64 bits are integers that a double would confuse; a hugeint has 38 digits."""
    return isinstance(value, int) and _EXACT <= abs(value) < _HUGE


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def microseconds(name: str, value: Any) -> int | None:
    """Epoch milliseconds or ISO 8601 (UTC when it has no zone) to epoch microseconds."""
    if value is None:
        return None
    if isinstance(value, bool):
        raise QueryError(f"{name}: expected epoch milliseconds or ISO 8601, got {value!r}")
    if isinstance(value, int | float):
        if not _FIRST_MS <= value <= _LAST_MS:
            raise _outside(name, value)
        return int(value * 1000)
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise QueryError(
            f"{name}: expected epoch milliseconds or ISO 8601, got {value!r}"
        ) from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    micros = (at - _EPOCH) // timedelta(microseconds=1)
    if not _FIRST_MS * 1000 <= micros < (_LAST_MS + 1) * 1000:
        raise _outside(name, value)
    return micros


def from_url(text: str | None) -> int | str | None:
    """A time for `microseconds` as a URL has it: what is digits is a number."""
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,17}", text) else text


def _outside(name: str, value: Any) -> QueryError:
    return QueryError(f"{name}: {value} is not within the years 1 to 9999 (UTC)")
