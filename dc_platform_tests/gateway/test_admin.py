"""Sources over HTTP (design 4.5), for holders of an admin token of their tenant."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dc_platform.errors import StoreUnavailableError
from dc_platform.registry.access import MOST_BODY_BYTES
from dc_platform.registry.database import Database
from dc_platform.registry.sources import Activity, Sources, SourceType
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform_tests.helpers.asgi import request

PATH = "/api/v1/admin/sources"
NEW = {"name": "shop", "type": "SERVER"}


class Admin:
    """Asks as the holder of a token."""

    def __init__(self, app: FastAPI, token: str) -> None:
        self._app, self._token = app, token

    def ask(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}", **options.pop("headers", {})}
        return request(self._app, method, PATH + path, headers=headers, **options)

    def create(self, **fields: Any) -> str:
        answer = self.ask("POST", json={**NEW, **fields})
        assert answer.status_code == 201
        return str(answer.json()["sourceId"])


@pytest.fixture
def admin(app: FastAPI, database: Database) -> Admin:
    return Admin(app, Tokens(database).create(Scope.ADMIN))


def test_a_rule_of_sampling_is_kept_until_another_one_is_given(
    admin: Admin, sources: Sources
) -> None:
    adaptive = {"targetEventsPerSecond": 50.0, "eventTypes": {"buy": 1.0}}
    source_id = admin.create(sampling=adaptive)
    assert admin.ask("GET", f"/{source_id}").json()["sampling"] == adaptive
    assert admin.ask("PUT", f"/{source_id}", json={"name": "s"}).json()["sampling"] == adaptive
    fixed = admin.ask("PUT", f"/{source_id}", json={"sampling": {"rate": 0.5}})
    assert fixed.json()["sampling"] == {"rate": 0.5}
    assert sources.sampling()[source_id].rate == 0.5
    for wrong in ({}, {"rate": 2}, {"rate": 0.5, "targetEventsPerSecond": 1}, [0.5]):
        assert admin.ask("PUT", f"/{source_id}", json={"sampling": wrong}).status_code == 422
    admin.ask("DELETE", f"/{source_id}")
    assert sources.sampling() == {}


def test_a_body_that_is_too_large_is_413_and_one_without_a_token_401(
    admin: Admin, app: FastAPI
) -> None:
    body = b" " * (MOST_BODY_BYTES + 1)
    assert admin.ask("POST", content=body).status_code == 413
    assert request(app, "POST", PATH, content=body).status_code == 401


def test_a_source_from_its_creation_to_its_end(admin: Admin, sources: Sources) -> None:
    answer = admin.ask(
        "POST", json={**NEW, "metadata": {"région": ["é", None]}, "schema": {"fields": []}}
    )
    assert answer.status_code == 201
    made = answer.json()
    assert made.keys() == {"sourceId", "apiKey"}
    owner = sources.owner_of(made["apiKey"])
    assert owner is not None
    assert owner.source_id == made["sourceId"]
    shown = admin.ask("GET", f"/{made['sourceId']}").json()
    assert made["apiKey"] not in str(shown)
    assert shown.pop("createdAt").endswith("+00:00")
    [bound] = shown["schemas"]
    assert (bound["version"], bound["fields"]) == ("1", [])
    assert bound["createdBy"].startswith("token ")
    assert shown == {
        "sourceId": made["sourceId"],
        "name": "shop",
        "type": "SERVER",
        "metadata": {"région": ["é", None]},
        "schema": bound,
        "schemas": [bound],
        "sampling": None,
        "ingestionRate": 0,
        "status": "ACTIVE",
        "failure": None,
        "lastSeenAt": None,
    }
    assert [s["sourceId"] for s in admin.ask("GET").json()["sources"]] == [made["sourceId"]]
    sources.report({made["sourceId"]: Activity(1_764_000_000_123, 9.6, True)})
    shown = admin.ask("GET", f"/{made['sourceId'].upper()}").json()
    assert (shown["ingestionRate"], shown["status"]) == (10, "ERROR")
    assert shown["lastSeenAt"] == "2025-11-24T16:00:00.123+00:00"
    changed = admin.ask("PUT", f"/{made['sourceId']}", json={"status": "INACTIVE", "name": "s2"})
    assert (changed.json()["status"], changed.json()["name"]) == ("INACTIVE", "s2")
    assert changed.json()["metadata"] == {"région": ["é", None]}
    assert admin.ask("DELETE", f"/{made['sourceId']}").json() == {"success": True}
    assert sources.owner_of(made["apiKey"]) is None
    for method in ("GET", "PUT", "DELETE"):
        options = {"json": {}} if method == "PUT" else {}
        assert admin.ask(method, f"/{made['sourceId']}", **options).status_code == 404
    assert admin.ask("GET").json() == {"sources": []}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"name": "s"}',
        b'{"name": "s", "type": "TOASTER"}',
        b'{"name": "", "type": "SERVER"}',
        b'{"name": "%s", "type": "SERVER"}' % (b"x" * 257),
        b'{"name": "s", "type": "SERVER", "unknown": 1}',
        b'{"name": "s", "type": "SERVER", "metadata": []}',
        b'{"name": "\\ud800", "type": "SERVER"}',
        # What Python reads and no answer can hold would break every later listing.
        b'{"name": "s", "type": "SERVER", "metadata": {"a": "\\ud800"}}',
        b'{"name": "s", "type": "SERVER", "metadata": {"a": [NaN]}}',
        b'{"name": "s", "type": "SERVER", "schema": {"a": 1e999}}',
        b'{"name": NaN, "type": "SERVER"}',
    ],
)
def test_what_is_no_source_is_refused_and_named(admin: Admin, content: bytes) -> None:
    answer = admin.ask("POST", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"]
    assert admin.ask("GET").json() == {"sources": []}


def test_a_body_that_is_no_text_is_refused(admin: Admin) -> None:
    answer = admin.ask("POST", content=b"\xff", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_error_is_no_status_to_set(admin: Admin) -> None:
    path = f"/{admin.create()}"
    assert admin.ask("PUT", path, json={"status": "ERROR"}).status_code == 422
    assert admin.ask("PUT", path, json={"status": "INACTIVE"}).json()["status"] == "INACTIVE"
    assert admin.ask("PUT", path, json={"name": "new"}).json()["status"] == "INACTIVE"
    assert admin.ask("PUT", path, json={"status": "ACTIVE"}).json()["status"] == "ACTIVE"


def test_a_tenant_sees_its_own_sources_only(admin: Admin, app: FastAPI, database: Database) -> None:
    source_id = admin.create()
    other = Admin(app, Tokens(database).create(Scope.ADMIN, tenant_id="other"))
    assert other.ask("GET").json() == {"sources": []}
    for method, options in (("GET", {}), ("PUT", {"json": {"name": "mine"}}), ("DELETE", {})):
        assert other.ask(method, f"/{source_id}", **options).status_code == 404
    assert admin.ask("GET", f"/{source_id}").json()["name"] == "shop"
    assert Sources(database).list()[0].tenant_id == "default"
    assert {s.tenant_id for s in [Sources(database).get(other.create())] if s} == {"other"}


def test_only_an_admin_token_opens(app: FastAPI, database: Database, sources: Sources) -> None:
    made, key = sources.create("s", SourceType.SERVER)
    query = Tokens(database).create(Scope.QUERY)
    for token, status in ((query, 403), (key, 401), ("", 401)):
        holder = Admin(app, token)
        for method, path in (("POST", ""), ("GET", ""), ("DELETE", f"/{made.source_id}")):
            options = {"json": NEW} if method == "POST" else {}
            assert holder.ask(method, path, **options).status_code == status
    assert sources.list() == [made]


@pytest.mark.parametrize("part", [Sources, Tokens])
def test_a_registry_that_is_away_is_503(
    admin: Admin, part: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailableError("the registry is away")

    monkeypatch.setattr(part, "list" if part is Sources else "owner_of", away)
    answer = admin.ask("GET")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.json() == {"detail": "the registry is away"}
