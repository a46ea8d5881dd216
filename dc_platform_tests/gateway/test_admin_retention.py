"""Retention policies over HTTP (design 4.5), and the gateway's verdict on what is too old."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI

from dc_platform.contracts.floors import Floor, Floors
from dc_platform.gateway.floors import FloorWatch
from dc_platform.registry.database import Database
from dc_platform.registry.retention import Retention
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform_tests.gateway.test_ingest import NOW, Gateway
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.virtual_time import run

PATH = "/api/v1/admin/retention-policy"
NEW = {"dataType": "click", "retentionDays": 90, "archiveAfterDays": 30}
DAY = 86_400_000


class Admin:
    """Asks as an admin of a tenant."""

    def __init__(self, app: FastAPI, database: Database, tenant: str = "default") -> None:
        self._app = app
        self._token = Tokens(database).create(Scope.ADMIN, tenant_id=tenant)

    def ask(self, method: str, path: str = "", **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"}
        return request(self._app, method, PATH + path, headers=headers, **options)


def test_a_policy_from_its_creation_to_its_end(app: FastAPI, database: Database) -> None:
    admin, other = Admin(app, database), Admin(app, database, "other")
    answer = admin.ask("POST", json=NEW)
    assert answer.status_code == 201
    assert answer.json().keys() == {"policyId"}
    path = f"/{answer.json()['policyId']}"
    shown = admin.ask("GET", path).json()
    assert shown.pop("createdAt").endswith("+00:00")
    assert shown == {**NEW, **answer.json()}
    assert len(admin.ask("GET").json()["policies"]) == 1
    assert other.ask("GET").json() == {"policies": []}
    for method in ("GET", "DELETE"):
        assert other.ask(method, path).status_code == 404
    assert admin.ask("DELETE", path).json() == {"success": True}
    assert admin.ask("GET", path).status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"dataType": ""},
        {"retentionDays": 0},
        {"retentionDays": "soon"},
        {"archiveAfterDays": -1},
        {"archiveAfterDays": 91},
        {"keepForEver": True},
    ],
)
def test_what_is_no_policy_is_refused(
    app: FastAPI, database: Database, change: dict[str, Any]
) -> None:
    admin = Admin(app, database)
    assert admin.ask("POST", json={**NEW, **change}).status_code == 422
    assert admin.ask("GET").json() == {"policies": []}


def test_the_gateway_rejects_what_is_older_than_the_floor_and_keeps_its_bytes() -> None:
    gateway = Gateway()
    floor = NOW - 10 * DAY
    floors = Floors([Floor("acme", "a", frozenset(), floor, NOW - DAY)])
    gateway.ingest._floors = lambda: floors
    texts = [
        b'{"eventType":"%s","payload":{}%s}' % (kind, time)
        for kind, time in (
            (b"a", b',"timestamp":%d' % (floor - 1)),
            (b"a", b',"timestamp":%d' % floor),
            (b"a", b""),
            (b"b", b',"timestamp":1'),
        )
    ]

    async def main() -> None:
        outcome = await gateway.take(texts)
        assert outcome.accepted == 3
        [error] = outcome.errors
        assert (error["index"], error["code"]) == (0, "too_old")
        assert "1 s before" in str(error["message"]) or "0 s before" in str(error["message"])

    run(main())


def test_a_gateway_follows_the_floors_of_the_registry(database: Database) -> None:
    retention = Retention(database)
    watch = FloorWatch(retention, refresh_seconds=0.01)
    watch.refresh()
    assert watch().highest(1 << 50) is None
    retention.set_policy("default", "a", retention_days=1, archive_after_days=1)
    raised = retention.raise_floors()

    async def main() -> None:
        following = asyncio.create_task(watch.follow())
        while watch().highest(1 << 50) is None:
            await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(main())
    assert watch().highest(1 << 50) == raised.highest(1 << 50)
