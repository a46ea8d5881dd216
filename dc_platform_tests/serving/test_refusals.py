"""What a person reads when a request cannot be answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from dc_platform.errors import StoreUnavailableError
from dc_platform.registry.access import MOST_BODY_BYTES
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.serving.turns import Turns
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    served = Served(tmp_path_factory.mktemp("served"))
    served.view = view(served.lake, [])
    return Door(served)


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("sql", {}, "sql is missing"),
        ("sql", {"sql": ""}, "sql should have at least 1 character"),
        ("sql", {"sql": "select 1", "more": 1}, "more is not a known field"),
        ("sql", b'{"sql": "select \'\\ud800\'"}', "sql should be a valid string"),
        *(
            (
                "search",
                b'{"query": "a", "%s": %s}' % (name, value),
                f"{name.decode()} should be text without half of a surrogate",
            )
            for name in (b"sourceId", b"eventType")
            for value in (b'"\\ud800"', b'["a", "\\udc00"]')
        ),
        ("search", b'{"query": "\\ud800"}', "query should be a valid string"),
        (
            "sql",
            {"sql": "select 1", "format": "xml"},
            "format should be 'json', 'table', 'csv' or 'arrow'",
        ),
        (
            "sql",
            {"sql": "select ?", "parameters": [{}]},
            "parameters[0] should be a valid string or a valid integer or a valid number"
            " or a valid boolean",
        ),
        ("query", {"limit": -1}, "limit should be greater than or equal to 0"),
        ("query", {"from": [1]}, "from should be a valid integer or"),
        (
            "query",
            {"filters": [{"field": "n", "operator": "=", "value": 1}, {"operator": "like"}]},
            "filters[1].field is missing; filters[1].operator should be '='",
        ),
        (
            "query",
            b'{"filters": [{"field": "n", "operator": "=", "value": "x\\ud800"}]}',
            "filters[0].value should be text without half of a surrogate pair",
        ),
        (
            "query",
            b'{"filters": [{"field": "n", "operator": "in", "value": [1, NaN]}]}',
            "filters[0].value should be a finite number",
        ),
        (
            "query",
            b'{"aggregations": [{"function": "COUNT", "groupBy": ["a", "\\ud800"]}]}',
            "aggregations[0].groupBy should be text without",
        ),
        (
            "query",
            b'{"filters": [{"field": "a\\ud800", "operator": "exists"}]}',
            "filters[0].field should be a valid string",
        ),
        (
            "sql",
            b'{"sql": "select ?", "parameters": ["\\ud800"]}',
            "parameters should be text without half of a surrogate pair",
        ),
        ("query", [1], "the body should be a valid dictionary"),
        ("query", b'{"limit": ', "the body is not JSON: "),
    ],
)
def test_a_body_that_is_not_understood_is_one_sentence(
    door: Door, path: str, body: Any, sentence: str
) -> None:
    options = {"content": body} if isinstance(body, bytes) else {"json": body}
    headers = {**door.headers, "Content-Type": "application/json"}
    answer = request(door.app, "POST", f"/api/v1/{path}", headers=headers, **options)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(sentence)
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize("path", ["sql", "query"])
def test_a_store_that_is_away_is_503(
    door: Door, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("reading the log: disk on fire\nmore")

    monkeypatch.setattr(door.served.engine, "_cursors", SimpleNamespace(on=away))
    monkeypatch.setattr(door.served.engine, "_workers", SimpleNamespace(running=away))
    body = {"sql": "select 1"} if path == "sql" else {}
    answer = request(door.app, "POST", f"/api/v1/{path}", headers=door.headers, json=body)
    assert answer.status_code == 503
    assert answer.json()["detail"] == "Try again soon: reading the log: disk on fire"
    assert int(answer.headers["Retry-After"]) > 0


def test_a_registry_that_is_away_is_503(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: str) -> None:
        raise StoreUnavailableError("the registry failed")

    monkeypatch.setattr(door.app.state.tokens, "remembered", lambda _: (False, None))
    monkeypatch.setattr(door.app.state.tokens, "owner_of", away)
    answer = request(
        door.app, "POST", "/api/v1/sql", headers=door.headers, json={"sql": "select 1"}
    )
    assert answer.status_code == 503
    assert "the registry failed" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) > 0


class Spaces:
    """A body that has no end; `sent` are the bytes that were asked for."""

    def __init__(self) -> None:
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 2**16
            yield b" " * 2**16


@pytest.mark.parametrize("path", ["sql", "query", "search", "admin/deletions", "reports"])
def test_a_body_without_an_end_is_413_and_without_a_token_not_read(door: Door, path: str) -> None:
    path, large = f"/api/v1/{path}", {"Content-Length": str(10 * MOST_BODY_BYTES)}
    for headers, status, read in (
        (door.headers, 413, MOST_BODY_BYTES + 2**16),
        (door.headers | large, 413, 0),
        ({}, 401, 0),
        (large, 401, 0),
        ({"Authorization": "Basic eA=="}, 401, 0),
    ):
        body = Spaces()
        headers = headers | {"Content-Type": "application/json"}
        answer = request(door.app, "POST", path, headers=headers, content=body)
        assert (answer.status_code, body.sent) == (status, read)
        assert str(MOST_BODY_BYTES) in answer.json()["detail"] or status == 401


def test_a_body_of_the_limit_is_read(door: Door) -> None:
    text = b'{"sql": "select 1 as n"'
    body = text + b" " * (MOST_BODY_BYTES - len(text) - 1) + b"}"
    headers = {**door.headers, "Content-Type": "application/json"}
    answer = request(door.app, "POST", "/api/v1/sql", headers=headers, content=body)
    assert answer.json() == [{"n": 1}]
    assert request(door.app, "GET", "/api/v1/monitoring/health").status_code == 200


def test_parameters_are_bounded(door: Door) -> None:
    body = {"sql": "select 1", "parameters": [1] * 1001}
    answer = request(door.app, "POST", "/api/v1/sql", headers=door.headers, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("parameters should have at most 1000 items")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/quarantine",
        "/api/v1/quarantine/x",
        "/quarantine",
        "/quarantine/x",
        "/api/v1/admin/deletions",
        "/api/v1/admin/deletions/x",
    ],
)
def test_what_runs_sql_waits_for_its_turn(
    door: Door, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    nobody = Turns(running=0, per_tenant=0, seconds=0.01)
    monkeypatch.setitem(door.app.state._state, "turns", nobody)
    token = Tokens(door.database).create(Scope.ADMIN)
    headers = {"Authorization": f"Bearer {token}", "Cookie": f"dcp_token={token}"}
    answer = request(door.app, "GET", path, headers=headers)
    assert answer.status_code == 429
    assert "Try again." in answer.text
