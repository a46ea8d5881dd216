"""Definitions of metrics over HTTP, for holders of an admin token of their tenant."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dc_platform.registry.database import Database
from dc_platform.registry.metrics import Metrics
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform_tests.helpers.asgi import request

PATH = "/api/v1/admin/metrics"
NEW = {
    "name": "cpu_usage",
    "aggregationType": "P99",
    "field": "cpu.percent",
    "eventType": "host",
    "dimensions": ["region", "metadata.tags.zone"],
}


class Admin:
    """Asks as the holder of a token."""

    def __init__(self, app: FastAPI, token: str) -> None:
        self._app, self._token = app, token

    def ask(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        return request(self._app, method, PATH + path, headers=headers, **options)


@pytest.fixture
def admin(app: FastAPI, database: Database) -> Admin:
    return Admin(app, Tokens(database).create(Scope.ADMIN))


def test_a_metric_from_its_creation_to_its_end(admin: Admin, database: Database) -> None:
    answer = admin.ask("POST", json=NEW)
    assert answer.status_code == 201
    made = answer.json()
    assert {**NEW, "metricId": made["metricId"], "version": 1} == made
    assert admin.ask("GET", "/cpu_usage").json() == made
    assert admin.ask("GET").json() == {"metrics": [made]}
    again = admin.ask("POST", json=NEW)
    assert (again.status_code, "cpu_usage already" in again.json()["detail"]) == (409, True)
    changed = admin.ask("PUT", "/cpu_usage", json={"aggregationType": "COUNT"}).json()
    assert (changed["version"], changed["field"], changed["dimensions"]) == (2, None, [])
    found = Metrics(database).get("cpu_usage")
    assert found is not None
    assert found.shown() == changed
    assert admin.ask("DELETE", "/cpu_usage").json() == {"success": True}
    assert admin.ask("GET").json() == {"metrics": []}
    for method in ("GET", "PUT", "DELETE"):
        options = {"json": {"aggregationType": "COUNT"}} if method == "PUT" else {}
        assert admin.ask(method, "/cpu_usage", **options).status_code == 404


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"name": "a b"}, "name: letters"),
        ({"field": None}, "field: P99 needs one"),
        ({"field": "a'] ; drop"}, "field: field"),
        ({"dimensions": ["a", "a"]}, "dimensions: each once"),
        ({"aggregationType": "MEDIAN"}, "aggregationType"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_what_is_no_metric_is_refused_and_named(
    admin: Admin, members: dict[str, Any], words: str
) -> None:
    answer = admin.ask("POST", json={**NEW, **members})
    assert answer.status_code == 422
    assert words in str(answer.json()["detail"])
    assert admin.ask("GET").json() == {"metrics": []}


def test_a_put_that_makes_no_sense_changes_nothing(admin: Admin) -> None:
    made = admin.ask("POST", json=NEW).json()
    assert admin.ask("PUT", "/cpu_usage", json={"aggregationType": "SUM"}).status_code == 422
    assert admin.ask("GET", "/cpu_usage").json() == made


def test_a_tenant_sees_its_own_metrics_only(admin: Admin, app: FastAPI, database: Database) -> None:
    made = admin.ask("POST", json=NEW).json()
    other = Admin(app, Tokens(database).create(Scope.ADMIN, tenant_id="other"))
    assert other.ask("GET").json() == {"metrics": []}
    for method, options in (("GET", {}), ("PUT", {"json": NEW | {}}), ("DELETE", {})):
        if "json" in options:
            options = {"json": {"aggregationType": "COUNT"}}
        assert other.ask(method, "/cpu_usage", **options).status_code == 404
    assert other.ask("POST", json=NEW).status_code == 201
    assert admin.ask("GET", "/cpu_usage").json() == made


def test_only_an_admin_token_opens(app: FastAPI, database: Database) -> None:
    for token, status in ((Tokens(database).create(Scope.QUERY), 403), ("", 401)):
        assert Admin(app, token).ask("POST", json=NEW).status_code == status
        assert Admin(app, token).ask("GET").status_code == status
