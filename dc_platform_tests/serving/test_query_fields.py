"""Which names are the envelope's, and what a client's own id finds."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from dc_platform.contracts.identity import event_id_from_text
from dc_platform.serving.answers import answer
from dc_platform.serving.query import Query
from dc_platform_tests.helpers.records import SOURCE, block, gateway_line
from dc_platform_tests.helpers.serving import Served, view

GIVEN = uuid.UUID(int=0xABCDEF)
NAMED, _ = event_id_from_text(SOURCE, "order-1")
ALL = {"order-1", str(GIVEN), "5"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """One event with a UUID and two with ids of their own, one of them a number's digits."""
    made = Served(tmp_path_factory.mktemp("served"))
    lines = [
        b'{"eventType":"t","eventId":"%s","payload":{"tags":{"foo":"p"},"clientEventId":"mine"},'
        b'"metadata":{"tags":{"foo":"m"}}}' % given.encode()
        for given in sorted(ALL)
    ]
    made.view = view(made.lake, [block([gateway_line(line) for line in lines])])
    return made


def found(served: Served, field: str, operator: str, value: Any) -> set[str]:
    assert served.view is not None
    query = Query.model_validate(
        {"filters": [{"field": field, "operator": operator, "value": value}]}
    )
    events = answer(served.engine, served.view, query, tenant_id="default")["results"]
    return {event.get("clientEventId", event["eventId"]) for event in events}


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("=", "order-1", {"order-1"}),
        ("=", NAMED, {"order-1"}),
        ("=", NAMED.upper(), {"order-1"}),
        ("=", str(GIVEN), {str(GIVEN)}),
        ("=", str(GIVEN).upper(), {str(GIVEN)}),
        ("=", GIVEN.hex, set()),
        ("=", "ORDER-1", set()),
        ("=", 5, {"5"}),
        ("=", "", set()),
        ("!=", "order-1", ALL - {"order-1"}),
        ("!=", str(GIVEN).upper(), ALL - {str(GIVEN)}),
        ("!=", "nothing", ALL),
        ("=", None, set()),
        ("!=", None, ALL),
        ("in", ["order-1", str(GIVEN).upper(), "?"], {"order-1", str(GIVEN)}),
        ("not in", ["order-1", str(GIVEN).upper(), "?"], {"5"}),
        ("not in", [], ALL),
        ("exists", True, ALL),
        ("contains", "-", ALL),
    ],
)
def test_an_event_is_found_by_the_id_that_its_client_gave(
    served: Served, operator: str, value: Any, expected: set[str]
) -> None:
    assert found(served, "eventId", operator, value) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tags.foo", "p"),
        ("payload.tags.foo", "p"),
        ("metadata.tags.foo", "m"),
        ("clientEventId", "mine"),
    ],
)
def test_only_the_names_of_the_envelope_are_no_payload_paths(
    served: Served, field: str, value: str
) -> None:
    assert found(served, field, "=", value) == ALL
    assert found(served, field, "=", "else") == set()


def test_the_payload_s_fields_are_grouped_by(served: Served) -> None:
    assert served.view is not None
    aggregation = {"function": "COUNT", "groupBy": ["tags.foo", "clientEventId"]}
    query = Query.model_validate({"aggregations": [aggregation]})
    result = answer(served.engine, served.view, query, tenant_id="default")
    assert result["results"] == [{"tags.foo": "p", "clientEventId": "mine", "count": 3}]
