"""How a schema may change: a new version against the newest, by the schema's mode. Pure.

What counts is which events fit (their fields, types, and whether one may be left out), not the rules
about values: those judge events that come from now on, and no row is judged again.

    BACKWARD  what fitted the old version fits the new one: old rows can be read by it
    FORWARD   what fits the new version fitted the old one: old readers understand new events
    FULL      both
    NONE      any change
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from dc_platform.contracts.schema import Definition, Field, FieldType, Validation, parents_of


class Compatibility(StrEnum):
    """Modes of a schema."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    FORWARD = "FORWARD"
    FULL = "FULL"


def breaks(old: Definition, new: Definition, mode: Compatibility) -> list[str]:
    """What in `new` the mode forbids: a sentence per field, with what to do. Empty: it may be added."""
    found: list[str] = []
    if mode in (Compatibility.BACKWARD, Compatibility.FULL):
        found += _backward(old, new)
    if mode in (Compatibility.FORWARD, Compatibility.FULL):
        found += [problem for problem in _forward(old, new) if problem not in found]
    return found


def _backward(old: Definition, new: Definition) -> list[str]:
    before = _named(old)
    found = []
    for field in new.fields:
        was = before.get(field.name)
        if was is None:
            found += _as_a_parent(field, old, "an older event")
        if was is not None and was.type is not field.type:
            found.append(_another_type(was, field))
        elif field.must_be_sent and was is None:
            found.append(
                f"field {field.name!r} is new and required, but older events do not have it: give it"
                " a defaultValue, or make it optional"
            )
        elif field.must_be_sent and was is not None and not was.must_be_sent:
            found.append(
                f"field {field.name!r} was optional and is required now, but older events may lack"
                " it: give it a defaultValue, or leave it optional"
            )
    return found


def _forward(old: Definition, new: Definition) -> list[str]:
    after = _named(new)
    found = []
    for field in old.fields:
        now = after.get(field.name)
        if now is None:
            found += _as_a_parent(field, new, "a new event")
        if now is not None and now.type is not field.type:
            found.append(_another_type(field, now))
        elif field.must_be_sent and now is None:
            found.append(
                f"field {field.name!r} is required by the version before and is gone now: keep it, or"
                " make it optional in a version of its own first"
            )
        elif field.must_be_sent and now is not None and not now.must_be_sent:
            found.append(
                f"field {field.name!r} is required by the version before and may be left out now:"
                " leave it required"
            )
    return found


def _as_a_parent(field: Field, other: Definition, whose: str) -> list[str]:
    """A field that only one version names lies within, or around, one of another type there."""
    above = parents_of(field.name)
    for theirs in other.fields:
        inside = theirs.name in above and theirs.type is not FieldType.OBJECT
        around = field.name in parents_of(theirs.name) and field.type is not FieldType.OBJECT
        if inside or around:
            return [
                f"field {field.name!r} does not go with {theirs.name!r}, which {whose} may have: use"
                " another name"
            ]
    return []


def _another_type(old: Field, new: Field) -> str:
    return (
        f"field {new.name!r} is {old.type} and would become {new.type}: keep the type, and add a field"
        " with another name for the new one"
    )


def _named(definition: Definition) -> dict[str, Field]:
    return {field.name: field for field in definition.fields}


def changes(old: Definition, new: Definition) -> list[str]:
    """What is different in `new`, a sentence each: the history of a schema."""
    before, after = _named(old), _named(new)
    found = [
        f"field {name!r} added ({_shown(field)})"
        for name, field in after.items()
        if name not in before
    ]
    found += [f"field {name!r} removed" for name in before if name not in after]
    for name, field in after.items():
        was = before.get(name)
        if was is not None and was != field:
            found.append(f"field {name!r} changed from {_shown(was)} to {_shown(field)}")
    rules_before, rules_after = _rules(old), _rules(new)
    found += [f"validation added: {rule}" for rule in rules_after if rule not in rules_before]
    found += [f"validation removed: {rule}" for rule in rules_before if rule not in rules_after]
    return found


def _shown(field: Field) -> str:
    default = "" if field.defaultValue is None else f", default {field.defaultValue!r}"
    need = "required" if field.required else "optional"
    return f"{field.type}, {need}{default}, {field.action}"


def _rules(definition: Definition) -> list[str]:
    return [_rule(validation) for validation in definition.validations]


def _rule(validation: Validation) -> str:
    given: dict[str, Any] = {
        name: getattr(validation, name)
        for name in ("min", "max", "values", "pattern")
        if getattr(validation, name) is not None
    }
    asked = ", ".join(f"{name} {value!r}" for name, value in given.items())
    return f"{validation.field} {validation.rule} ({asked}), {validation.taken}"
