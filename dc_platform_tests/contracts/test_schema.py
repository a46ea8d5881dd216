"""Schemas: what is one, how a payload is judged by one, and how one may change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dc_platform.contracts.envelope import Passed, Rejected
from dc_platform.contracts.evolution import Compatibility, breaks, changes
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.schema import (
    Definition,
    FieldType,
    SchemaError,
    content_of,
    definition_of,
    has_type,
)
from dc_platform.contracts.schema_check import Checker, Rules
from dc_platform_tests.helpers.events import payloads


def checker(fields: list[dict[str, Any]], *validations: dict[str, Any]) -> Checker:
    content = {"fields": fields, "validations": list(validations)}
    return Checker("id", 3, "orders", definition_of(content))


def field(name: str, type_: str = "NUMBER", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


def rule(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"field": name, "rule": kind, **more}


# --- what is a schema ---


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"fields": [field("a", "FLOAT")]}, "fields[0].type"),
        ({"fields": [{"name": "a"}]}, "missing required field `type`"),
        ({"fields": [field("a", nullable=True)]}, "nullable"),
        ({"fields": [field("a[0]")]}, "path"),
        ({"fields": [field("a..b")]}, "path"),
        ({"fields": [field('a"b')]}, "path"),
        ({"fields": [field("a"), field("a", "STRING")]}, "twice"),
        ({"fields": [field("a"), field("a.b")]}, "make it OBJECT"),
        ({"fields": [field("a", defaultValue="x")]}, "no NUMBER"),
        ({"fields": [field("a", defaultValue=True)]}, "no NUMBER"),
        ({"fields": [field("a", defaultValue=float("nan"))]}, "NaN"),
        ({"validations": [rule("a", "range", min=1)]}, "no such field"),
        ({"fields": [field("a")], "validations": [rule("a", "range")]}, "give min or max"),
        ({"fields": [field("a")], "validations": [rule("a", "range", pattern="x")]}, "give min"),
        ({"fields": [field("a")], "validations": [rule("a", "range", min=2, max=1)]}, "above"),
        ({"fields": [field("a")], "validations": [rule("a", "length", min=1)]}, "STRING or ARRAY"),
        ({"fields": [field("a")], "validations": [rule("a", "enum", values=["x"])]}, "no NUMBER"),
        ({"fields": [field("a")], "validations": [rule("a", "enum", values=[])]}, "1 to 1,000"),
        (
            {
                "fields": [field("a")],
                "validations": [rule("a", "expected", min=1, action="FAIL")],
            },
            "only flags",
        ),
        (
            {"fields": [field("a", "STRING")], "validations": [rule("a", "length", min=1.5)]},
            "whole number",
        ),
        ([], "Expected `object`"),
    ],
)
def test_what_is_no_schema_is_refused_and_named(content: Any, says: str) -> None:
    with pytest.raises(SchemaError) as caught:
        definition_of(content)
    assert says in str(caught.value)


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1", "a{2000}{2000}"])
def test_a_pattern_that_could_not_be_run_in_time_is_refused(pattern: str) -> None:
    with pytest.raises(SchemaError, match="pattern of 'a'"):
        checker([field("a", "STRING")], rule("a", "pattern", pattern=pattern))


def test_a_definition_comes_back_as_it_was_written() -> None:
    content = {
        "fields": [field("a.b", required=True, defaultValue=1, action="WARN")],
        "validations": [rule("a.b", "range", min=0, max=5.5, action="DROP")],
    }
    definition = definition_of(content)
    assert content_of(definition) == content
    assert definition_of(content_of(definition)) == definition


# --- payloads ---

ORDERS = checker(
    [
        field("user.id", "STRING", required=True),
        field("amount", required=True),
        field("note", "STRING", action="WARN"),
        field("items", "ARRAY"),
        field("currency", "STRING", required=True, defaultValue="EUR"),
        field("gone", "BOOLEAN", action="DROP"),
    ],
    rule("amount", "range", min=0, max=1000),
    rule("amount", "range", max=10_000, action="FAIL"),
    rule("amount", "expected", max=100),
    rule("currency", "enum", values=["EUR", "USD"]),
    rule("note", "pattern", pattern="^[a-z]*$", action="WARN"),
    rule("items", "length", min=1, max=2, action="DROP"),
)
GOOD = {"user": {"id": "u"}, "amount": 7}


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"amount": None}, Reason.MISSING_FIELD, "payload.amount is missing"),
        ({"user": {}}, Reason.MISSING_FIELD, "payload.user.id is missing"),
        ({"user": None}, Reason.MISSING_FIELD, "payload.user.id is missing"),
        ({"user": 3}, Reason.WRONG_TYPE, "payload.user is NUMBER, expected OBJECT"),
        ({"amount": "7"}, Reason.WRONG_TYPE, "payload.amount is STRING, expected NUMBER"),
        ({"amount": True}, Reason.WRONG_TYPE, "payload.amount is BOOLEAN, expected NUMBER"),
        ({"amount": -1}, Reason.VALUE_OUT_OF_RANGE, "payload.amount is -1, allowed is from 0"),
        ({"currency": "DM"}, Reason.NOT_IN_ENUM, 'is "DM", the values are "EUR", "USD"'),
        ({"items": []}, Reason.DROPPED_BY_RULE, "payload.items has length 0"),
        ({"gone": 1}, Reason.DROPPED_BY_RULE, "payload.gone is NUMBER"),
        # The strictest action counts, whatever the order.
        ({"amount": 20_000}, Reason.FAILED_BY_RULE, "up to 10000"),
        ({"amount": -1, "items": []}, Reason.VALUE_OUT_OF_RANGE, "payload.amount"),
    ],
)
def test_a_payload_that_does_not_fit(change: dict[str, Any], reason: Reason, says: str) -> None:
    verdict = ORDERS.check(json.dumps(GOOD | change).encode())
    assert isinstance(verdict, Rejected)
    assert (verdict.reason, verdict.judged_by) == (reason, "id/3")
    assert says in verdict.message
    assert "(schema orders, version 3)" in verdict.message


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        ({}, ()),
        # Nulls count as left out, defaults stand in for what is, what nobody named is kept.
        ({"currency": None, "items": None, "note": None, "more": [{"a": None}]}, ()),
        ({"amount": 101}, ("anomaly:amount",)),
        ({"note": "ABC"}, ("warn:note:pattern",)),
        ({"note": 3, "amount": 999.5}, ("warn:note:type", "anomaly:amount")),
        ({"items": [1, {}]}, ()),
    ],
)
def test_a_payload_that_fits(change: dict[str, Any], flags: tuple[str, ...]) -> None:
    assert ORDERS.check(json.dumps(GOOD | change).encode()) == Passed("id/3", flags)


@pytest.mark.parametrize(
    ("number", "fits"),
    [(b"1e999", False), (b"-1e999", False), (b"9" * 5_000, False), (b"0.1e-999", True)],
)
def test_numbers_that_no_double_holds_are_judged(number: bytes, fits: bool) -> None:
    payload = b'{"user":{"id":"u"},"amount":%b,"more":1e999}' % number
    assert isinstance(ORDERS.check(payload), Passed) is fits


@given(payloads)
def test_any_payload_gets_a_verdict(payload: str) -> None:
    verdict = ORDERS.check(payload.encode())
    assert verdict == ORDERS.check(payload.encode())


def test_a_deeply_nested_payload_gets_a_verdict() -> None:
    deep = b'{"a":' * 254 + b"1" + b"}" * 254
    assert isinstance(ORDERS.check(deep), Rejected)
    assert checker([field("b")]).check(deep) == Passed("id/3")


def test_names_that_json_schema_has_a_meaning_for_are_names() -> None:
    names = ("allOf", "properties", "required", "type", "$ref", "allOf.allOf", "properties.type")
    tricky = checker(
        [field(n, "OBJECT" if n in ("allOf", "properties") else "NUMBER") for n in names],
        rule("allOf.allOf", "range", max=1),
    )
    fits = {"allOf": {"allOf": 1}, "properties": {"type": 1}, "required": 1, "$ref": 2}
    assert tricky.check(json.dumps(fits).encode()) == Passed("id/3")
    for value in ({"allOf": {"allOf": 2}}, {"$ref": "x"}, {"properties": {"type": "x"}}):
        assert isinstance(tricky.check(json.dumps(value).encode()), Rejected)


def test_the_schema_of_the_type_goes_before_the_one_for_all() -> None:
    all_types, one = checker([field("a")]), checker([field("a", "STRING")])
    rules = Rules({"": all_types, "click": one})
    assert isinstance(rules.judge("view", b'{"a":1}'), Passed)
    assert isinstance(rules.judge("click", b'{"a":1}'), Rejected)
    assert Rules({"click": one}).judge("view", b'{"a":1}') is None
    failed = Rules({"": all_types}, "it has failed").judge("view", b"{}")
    assert failed == Rejected(Reason.SOURCE_FAILED, "it has failed")


# --- against a judge of a few lines, and against each other ---

names = st.sampled_from(("a", "b", "o", "o.a", "o.p", "o.p.q"))
types = st.sampled_from(tuple(FieldType))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(("", "x")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=6,
)
DEFAULTS = {"STRING": "x", "NUMBER": 0, "BOOLEAN": False, "OBJECT": {}, "ARRAY": []}


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    chosen = draw(st.lists(names, unique=True, max_size=5))
    fields = []
    for name in chosen:
        inner = any(other.startswith(name + ".") for other in chosen)
        kind = "OBJECT" if inner else draw(types)
        fields.append(field(name, kind, required=draw(st.booleans())))
        if draw(st.integers(0, 3)) == 0:
            fields[-1]["defaultValue"] = DEFAULTS[kind]
    return definition_of({"fields": fields})


def at(payload: Any, path: str) -> Any:
    """(whether the way there is of objects, the value or None)."""
    steps = path.split(".")
    for n, step in enumerate(steps):
        if payload is None:
            return True, None
        if not isinstance(payload, dict):
            return False, n
        payload = payload.get(step)
    return True, payload


def fits(definition: Definition, payload: Any) -> bool:
    for f in definition.fields:
        whole, value = at(payload, f.name)
        if not whole:
            return False
        if value is None and f.must_be_sent:
            return False
        if value is not None and not has_type(value, f.type):
            return False
    return True


trees = st.fixed_dictionaries(
    {},
    optional={
        "a": values,
        "b": values,
        "o": values
        | st.fixed_dictionaries(
            {},
            optional={"a": values, "p": values | st.fixed_dictionaries({}, optional={"q": values})},
        ),
    },
)


@given(definitions(), trees)
def test_fields_are_judged_as_a_few_lines_would(definition: Definition, payload: Any) -> None:
    verdict = Checker("id", 1, "n", definition).check(json.dumps(payload).encode())
    assert isinstance(verdict, Passed) == fits(definition, payload)


def only_named(definition: Definition, payload: Any) -> bool:
    """Whether what is sent has a declared name, so that both versions say something of it."""
    declared = {f.name for f in definition.fields}
    parents = {f.name.rsplit(".", n)[0] for f in definition.fields for n in (1, 2)}

    def walk(value: Any, path: str) -> bool:
        if path and path not in declared | parents:
            return False
        return not isinstance(value, dict) or all(
            walk(v, f"{path}.{k}" if path else k) for k, v in value.items()
        )

    return walk(payload, "")


@given(definitions(), definitions(), trees)
def test_what_fitted_fits_a_version_that_may_be_added(
    old: Definition, new: Definition, payload: Any
) -> None:
    """Members that the one names and the other does not may hold anything: they are left out here."""
    assume(only_named(old, payload))
    if not breaks(old, new, Compatibility.BACKWARD) and fits(old, payload):
        assert fits(new, payload)
    if not breaks(new, old, Compatibility.FORWARD) and fits(old, payload):
        assert fits(new, payload)
    both = breaks(old, new, Compatibility.FULL)
    one = breaks(old, new, Compatibility.BACKWARD), breaks(old, new, Compatibility.FORWARD)
    assert bool(both) == any(one)
    assert breaks(old, new, Compatibility.NONE) == []
    assert breaks(old, old, Compatibility.FULL) == []


# --- how it may change ---

BASE = [field("a", required=True), field("b", "STRING")]


@pytest.mark.parametrize(
    ("new", "modes", "says"),
    [
        ([*BASE, field("c")], "BACKWARD FORWARD FULL", ""),
        ([*BASE, field("c", required=True, defaultValue=1)], "BACKWARD FORWARD FULL", ""),
        ([*BASE, field("c", required=True)], "FORWARD", "field 'c' is new and required"),
        (BASE[:1], "BACKWARD FORWARD FULL", ""),
        (BASE[1:], "BACKWARD", "field 'a' is required by the version before and is gone"),
        ([field("a"), BASE[1]], "BACKWARD", "field 'a' is required by the version before and may"),
        ([BASE[0], field("b", "STRING", required=True)], "FORWARD", "field 'b' was optional"),
        ([BASE[0], field("b", "NUMBER")], "", "field 'b' is STRING and would become NUMBER"),
    ],
)
def test_the_modes(new: list[dict[str, Any]], modes: str, says: str) -> None:
    before, after = definition_of({"fields": BASE}), definition_of({"fields": new})
    found = {mode.value: breaks(before, after, mode) for mode in Compatibility}
    assert {mode for mode, problems in found.items() if not problems} == {"NONE", *modes.split()}
    for problems in found.values():
        assert not problems or says in " ".join(problems)


def test_a_rule_may_change_and_the_history_says_so() -> None:
    before = definition_of({"fields": BASE, "validations": [rule("a", "range", max=5)]})
    after = definition_of({"fields": BASE, "validations": [rule("a", "range", max=3)]})
    assert breaks(before, after, Compatibility.FULL) == []
    assert changes(before, after) == [
        "validation added: a range (max 3), QUARANTINE",
        "validation removed: a range (max 5), QUARANTINE",
    ]
    assert changes(before, definition_of({"fields": [field("a"), field("c", defaultValue=1)]})) == [
        "field 'c' added (NUMBER, optional, default 1, QUARANTINE)",
        "field 'b' removed",
        "field 'a' changed from NUMBER, required, QUARANTINE to NUMBER, optional, QUARANTINE",
        "validation removed: a range (max 5), QUARANTINE",
    ]
    assert changes(before, before) == []
