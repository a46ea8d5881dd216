"""What a schema is (design 3.3): fields and rules that an event's payload has to keep. Pure.

A field's name is a path into the payload (`user.id`); where it is required, what it lies within is,
too. A null counts as left out. A required field with a default may be left out: the payload stays as
it was sent, and the default stands in for what is missing where columns are made of it. Members that
no field names are always kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dc_platform.errors import PlatformError

MAX_FIELDS = 500
MAX_VALIDATIONS = 1_000
# As a path of a query (`serving.query`): these characters mean something in it.
FIELD_PATH = re.compile(r"[^.\[\]\"'\\*\x00-\x1f]+(?:\.[^.\[\]\"'\\*\x00-\x1f]+)*")


class SchemaError(PlatformError):
    """It is no schema; the message names the field and says what to write."""


class SchemaConflictError(PlatformError):
    """It does not go together with what there is: an older version, a name, a binding."""


class FieldType(StrEnum):
    """Types of a field: those of JSON."""

    STRING = "STRING"
    NUMBER = "NUMBER"
    BOOLEAN = "BOOLEAN"
    OBJECT = "OBJECT"
    ARRAY = "ARRAY"


class Rule(StrEnum):
    """What a validation asks of a value. `expected` is a range that only flags (an anomaly)."""

    RANGE = "range"
    ENUM = "enum"
    PATTERN = "pattern"
    LENGTH = "length"
    EXPECTED = "expected"


class Action(StrEnum):
    """What becomes of an event that breaks a rule.

    WARN: accepted, with a flag. DROP: not in silver, kept in quarantine as `dropped_by_rule`.
    QUARANTINE: rejected with the rule's reason. FAIL: rejected, and its source fails.
    """

    WARN = "WARN"
    DROP = "DROP"
    QUARANTINE = "QUARANTINE"
    FAIL = "FAIL"


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field of the payload. `action` is taken when it is missing or has another type."""

    name: Annotated[str, Meta(min_length=1, max_length=512)]
    type: FieldType
    required: bool = False
    defaultValue: Any = None  # noqa: N815
    action: Action = Action.QUARANTINE

    @property
    def must_be_sent(self) -> bool:
        """Whether an event without it breaks the schema."""
        return self.required and self.defaultValue is None


class Validation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rule about one field; bounds are inclusive."""

    field: str
    rule: Rule
    min: float | int | None = None
    max: float | int | None = None
    values: list[Any] | None = None
    pattern: Annotated[str, Meta(max_length=1_000)] | None = None
    action: Action | None = None

    @property
    def taken(self) -> Action:
        """The action, or its default."""
        if self.action is not None:
            return self.action
        return Action.WARN if self.rule is Rule.EXPECTED else Action.QUARANTINE


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a version of a schema says."""

    fields: list[Field] = []
    validations: list[Validation] = []


def definition_of(content: Any) -> Definition:
    """A definition from decoded JSON; raises SchemaError."""
    try:
        found = msgspec.convert(content, Definition)
    except msgspec.ValidationError as error:
        raise SchemaError(f"schema: {error}") from None
    _check(found)
    return found


def content_of(definition: Definition) -> dict[str, Any]:
    """A definition as JSON can hold it."""
    content: dict[str, Any] = msgspec.to_builtins(definition)
    return content


_OF_TYPE = {
    FieldType.STRING: str,
    FieldType.NUMBER: (int, float),
    FieldType.BOOLEAN: bool,
    FieldType.OBJECT: dict,
    FieldType.ARRAY: list,
}


def has_type(value: Any, type_: FieldType) -> bool:
    """Whether a decoded JSON value is of a type."""
    if isinstance(value, bool):
        return type_ is FieldType.BOOLEAN
    return isinstance(value, _OF_TYPE[type_])  # type: ignore[arg-type]


def _check(definition: Definition) -> None:
    fields, validations = definition.fields, definition.validations
    if len(fields) > MAX_FIELDS or len(validations) > MAX_VALIDATIONS:
        raise SchemaError(
            f"a schema has at most {MAX_FIELDS} fields and {MAX_VALIDATIONS} validations"
        )
    by_name: dict[str, Field] = {}
    for field in fields:
        if not FIELD_PATH.fullmatch(field.name):
            raise SchemaError(
                f"field {field.name!r}: a name is a path like user.id, without brackets, quotes,"
                " backslashes and stars"
            )
        if field.name in by_name:
            raise SchemaError(f"field {field.name!r} is there twice: keep one of them")
        if field.defaultValue is not None and not has_type(field.defaultValue, field.type):
            raise SchemaError(
                f"field {field.name!r}: defaultValue {field.defaultValue!r} is no {field.type}"
            )
        _check_finite(field.name, [field.defaultValue])
        by_name[field.name] = field
    for field in fields:
        for parent in parents_of(field.name):
            above = by_name.get(parent)
            if above is not None and above.type is not FieldType.OBJECT:
                raise SchemaError(
                    f"field {field.name!r} lies within {parent!r}, which is {above.type}: make it"
                    " OBJECT"
                )
    for validation in validations:
        _check_validation(validation, by_name.get(validation.field))


def parents_of(name: str) -> list[str]:
    """The paths above a path, outermost first: a, a.b of a.b.c."""
    steps = name.split(".")
    return [".".join(steps[:n]) for n in range(1, len(steps))]


_FITS = {
    Rule.RANGE: (FieldType.NUMBER,),
    Rule.EXPECTED: (FieldType.NUMBER,),
    Rule.LENGTH: (FieldType.STRING, FieldType.ARRAY),
    Rule.PATTERN: (FieldType.STRING,),
    Rule.ENUM: (FieldType.STRING, FieldType.NUMBER, FieldType.BOOLEAN),
}
_NEEDS = {Rule.PATTERN: ("pattern",), Rule.ENUM: ("values",)}


def _check_validation(validation: Validation, field: Field | None) -> None:
    rule = validation.rule
    where = f"validation {rule} of {validation.field!r}"
    if field is None:
        raise SchemaError(f"{where}: there is no such field; add it to fields")
    if field.type not in _FITS[rule]:
        types = " or ".join(_FITS[rule])
        raise SchemaError(f"{where}: the field is {field.type}, the rule is for {types}")
    needs = _NEEDS.get(rule, ("min", "max"))
    given = [n for n in ("min", "max", "values", "pattern") if getattr(validation, n) is not None]
    if not given or not set(given) <= set(needs):
        raise SchemaError(f"{where}: give {' or '.join(needs)}, and nothing else")
    if rule is Rule.EXPECTED and validation.taken is not Action.WARN:
        raise SchemaError(f"{where}: it only flags, so its action is WARN; for others use range")
    low, high = validation.min, validation.max
    _check_finite(validation.field, [low, high])
    if low is not None and high is not None and low > high:
        raise SchemaError(f"{where}: min {low} is above max {high}")
    if rule is Rule.LENGTH and any(n is not None and (n < 0 or n != int(n)) for n in (low, high)):
        raise SchemaError(f"{where}: a length is a whole number from 0 on")
    if validation.values is not None:
        if not 1 <= len(validation.values) <= 1_000:
            raise SchemaError(f"{where}: give 1 to 1,000 values")
        _check_finite(validation.field, validation.values)
        for value in validation.values:
            if not has_type(value, field.type):
                raise SchemaError(f"{where}: {value!r} is no {field.type}")


def _check_finite(name: str, values: Sequence[Any]) -> None:
    if any(isinstance(v, float) and not math.isfinite(v) for v in values):
        raise SchemaError(f"{name!r}: NaN and infinity are no JSON numbers")
