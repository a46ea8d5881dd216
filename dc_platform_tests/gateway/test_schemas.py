"""Schemas at the gateway: over HTTP, in what it accepts, and in what it stamps."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, cast

import httpx
import msgspec
import pyarrow as pa
import pytest
from fastapi import FastAPI

from dc_platform.contracts import blocks
from dc_platform.errors import StoreUnavailableError
from dc_platform.gateway.activity import ActivityLog
from dc_platform.gateway.auth import KeyRing
from dc_platform.gateway.ingest import Ingest, IngestLimits, Outcome
from dc_platform.gateway.pressure import Circuit, EventQueue
from dc_platform.gateway.rules import RuleBook
from dc_platform.registry.database import Database
from dc_platform.registry.schemas import Schemas
from dc_platform.registry.sources import KeyOwner, Sources, SourceStatus, SourceType
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform_tests.gateway.batching import batcher_of
from dc_platform_tests.gateway.producers import FakeProducer
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.virtual_time import run

NOW = 1_764_000_000_000
PATH = "/api/v1/admin/schemas"
SERVER = SourceType.SERVER


def field(name: str, type_: str = "NUMBER", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


def rule(name: str, kind: str = "range", **more: Any) -> dict[str, Any]:
    return {"field": name, "rule": kind, **more}


# --- over HTTP ---


class Admin:
    """Asks as the holder of a token."""

    def __init__(self, app: FastAPI, token: str) -> None:
        self._app, self._token = app, token

    def ask(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        where = path if path.startswith("/api") else PATH + path
        return request(self._app, method, where, headers=headers, **options)


@pytest.fixture
def admin(app: FastAPI, database: Database) -> Admin:
    app.state.schemas = Schemas(database)
    return Admin(app, Tokens(database).create(Scope.ADMIN))


def test_a_schema_from_its_creation_to_its_end(admin: Admin) -> None:
    body = {"name": "orders", "fields": [field("a", required=True)], "eventType": "order"}
    made = admin.ask("POST", json=body)
    assert made.status_code == 201
    schema = made.json()
    path = f"/{schema['schemaId']}"
    assert schema.pop("createdAt").endswith("+00:00")
    assert schema.pop("createdBy").startswith("token dct_")
    assert schema == {
        "schemaId": path[1:],
        "name": "orders",
        "eventType": "order",
        "compatibility": "BACKWARD",
        "version": "1",
        "fields": [
            {
                "name": "a",
                "type": "NUMBER",
                "required": True,
                "defaultValue": None,
                "action": "QUARANTINE",
            }
        ],
        "validations": [],
    }
    assert admin.ask("GET").json() == {"schemas": [made.json()]}
    assert admin.ask("GET", path).json() == made.json()
    refused = admin.ask("POST", f"{path}/versions", json={"fields": [field("a", "STRING")]})
    assert refused.status_code == 409
    assert "field 'a' is NUMBER and would become STRING" in refused.json()["detail"]
    added = admin.ask("POST", f"{path}/versions", json={"fields": [field("a"), field("b")]})
    assert (added.status_code, added.json()["version"]) == (201, "2")
    assert admin.ask("GET", f"{path}/versions/1").json() == made.json()
    assert admin.ask("GET", f"{path}/versions/3").status_code == 404
    versions = admin.ask("GET", f"{path}/versions").json()["versions"]
    assert [(v["version"], len(v["changes"])) for v in versions] == [("1", 1), ("2", 2)]
    assert admin.ask("DELETE", path).json() == {"success": True}
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/versions"), ("POST", "/versions")):
        options: dict[str, Any] = {"json": {}} if method == "POST" else {}
        assert admin.ask(method, path + rest, **options).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"fields": []},
        {"name": ""},
        {"name": "s", "fields": [{"name": "a"}]},
        {"name": "s", "fields": [field("a", "DATE")]},
        {"name": "s", "fields": [field("a")], "validations": [rule("b", min=1)]},
        {"name": "s", "compatibility": "SOME"},
        {"name": "s", "unknown": 1},
    ],
)
def test_what_is_no_schema_is_refused(admin: Admin, body: dict[str, Any]) -> None:
    answer = admin.ask("POST", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert admin.ask("GET").json() == {"schemas": []}


def test_a_trial_tells_what_would_be(admin: Admin) -> None:
    made = admin.ask("POST", json={"name": "s", "fields": [field("a", required=True)]}).json()
    path = f"/{made['schemaId']}/check"
    assert admin.ask("POST", path, json={"payload": {"a": 1}}).json()["verdict"] == "valid"
    new = {"fields": [field("a"), field("b", required=True)], "payload": {"a": 1}}
    tried = admin.ask("POST", path, json=new).json()
    assert (tried["compatible"], tried["verdict"]) == (False, "rejected")
    assert (tried["code"], tried["message"][:20]) == ("missing_field", "payload.b is missing")
    assert admin.ask("GET", f"/{made['schemaId']}").json() == made


def test_sources_are_bound_by_reference_and_inline(admin: Admin) -> None:
    made = admin.ask("POST", json={"name": "s", "fields": [field("a")]}).json()
    sources = "/api/v1/admin/sources"
    new = {"name": "shop", "type": "SERVER"}
    refused = admin.ask("POST", sources, json={**new, "schema": {"schemaId": "none such"}})
    assert refused.status_code == 422
    assert "there is no schema" in refused.json()["detail"]
    source = admin.ask("POST", sources, json={**new, "schema": {"schemaId": made["schemaId"]}})
    path = f"{sources}/{source.json()['sourceId']}"
    assert admin.ask("GET", path).json()["schema"] == made
    in_use = admin.ask("DELETE", f"/{made['schemaId']}")
    assert in_use.status_code == 409
    assert "judges 1 sources" in in_use.json()["detail"]
    inline = {"name": "own", "fields": [field("b")]}
    changed = admin.ask("PUT", path, json={"schema": inline}).json()
    assert changed["schema"]["name"] == "own"
    wrong = admin.ask(
        "PUT", path, json={"schema": {"name": "own", "fields": [field("b", "ARRAY")]}}
    )
    assert wrong.status_code == 409
    assert admin.ask("PUT", path, json={"schema": {"schemaId": None}}).json()["schemas"] == []
    assert admin.ask("DELETE", f"/{made['schemaId']}").json() == {"success": True}


def test_schemas_are_for_admins_of_the_tenant(
    admin: Admin, app: FastAPI, database: Database
) -> None:
    made = admin.ask("POST", json={"name": "s"}).json()
    other = Admin(app, Tokens(database).create(Scope.ADMIN, tenant_id="other"))
    assert other.ask("GET").json() == {"schemas": []}
    assert other.ask("GET", f"/{made['schemaId']}").status_code == 404
    query = Admin(app, Tokens(database).create(Scope.QUERY))
    assert query.ask("GET").status_code == 403


# --- what comes in ---


class Gateway:
    """An `Ingest` with a registry, over a producer in memory."""

    def __init__(self, sources: Sources) -> None:
        self.producer = FakeProducer()
        self.rules = RuleBook(sources)
        self.keys = KeyRing(sources, refresh_seconds=60, rules=self.rules)
        self.ingest = Ingest(
            batcher_of(self.producer),
            EventQueue(limit=1000, slowdown=0.8, slow_rate=1000, patience=10),
            Circuit(failures=5, seconds=60, probe=self._probe),
            ActivityLog(cast(Sources, None)),
            IngestLimits(future_limit_ms=3_600_000, max_event_bytes=1000, ack_timeout_seconds=10),
            rules=self.rules,
            clock=lambda: NOW,
        )

    async def _probe(self) -> bool:
        return False

    async def take(self, key: str, *payloads: Any, kind: str = "a") -> Outcome:
        owner: KeyOwner = await self.keys.owner_of({"x-api-key": key})
        events = [msgspec.json.encode({"eventType": kind, "payload": p}) for p in payloads]
        digest = hashlib.sha256(b"".join(events)).hexdigest()
        return await self.ingest.events(owner, events, request_sha256=digest)

    def metadata(self) -> list[dict[str, Any]]:
        """Of the accepted events."""
        found = [r for r in self.producer.records if r.headers[blocks.VERDICT] == b"valid"]
        return [msgspec.json.decode(line)["metadata"] for r in found for line in r.lines]

    def rejects(self) -> list[tuple[str | None, str, list[str]]]:
        """(judged by, schema version, reasons) of each block of rejects."""
        found = [r for r in self.producer.records if r.headers[blocks.VERDICT] == b"rejected"]
        return [
            (
                r.headers.get(blocks.JUDGED_BY, b"").decode() or None,
                r.headers[blocks.SCHEMA_VERSION].decode(),
                pa.ipc.open_stream(r.value).read_all()["reason"].to_pylist(),
            )
            for r in found
        ]


def bound(sources: Sources, *validations: dict[str, Any], **more: Any) -> tuple[str, str, str]:
    """(source, key, schema)."""
    schema = {"fields": [field("n", required=True)], "validations": list(validations), **more}
    source, key = sources.create("s", SERVER, schema=schema)
    return source.source_id, key, source.schemas[0]["schemaId"]


def test_the_newest_version_judges_and_is_stamped(sources: Sources) -> None:
    source_id, key, schema_id = bound(sources, rule("n", "expected", max=5))

    async def scenario() -> None:
        gateway = Gateway(sources)
        # The key of a new source is looked up, and its schema with it.
        outcome = await gateway.take(key, {"n": 1}, {"n": 9}, {}, {"n": "x"})
        assert (outcome.accepted, [e["code"] for e in outcome.errors]) == (
            2,
            ["missing_field", "wrong_type"],
        )
        assert all(f"schema source {source_id}, version 1" in str(e) for e in outcome.errors)
        stamp = f"{schema_id}/1"
        assert gateway.metadata() == [
            {"receivedAt": NOW, "judgedBy": stamp},
            {"receivedAt": NOW, "judgedBy": stamp, "flagged": ["anomaly:n"]},
        ]
        assert gateway.rejects() == [(stamp, "1", ["missing_field", "wrong_type"])]
        sources.change(source_id, schema={"fields": [field("n", required=True), field("m")]})
        gateway.keys.refresh()
        await gateway.take(key, {"n": 9})
        assert gateway.metadata()[-1] == {"receivedAt": NOW, "judgedBy": f"{schema_id}/2"}

    run(scenario())


def test_rejects_of_several_versions_travel_apart(sources: Sources) -> None:
    source_id, key, schema_id = bound(sources)
    clicks = {"name": "clicks", "eventType": "click", "fields": [field("m", required=True)]}
    changed = sources.change(source_id, schema=clicks)
    assert changed is not None
    click_id = next(s["schemaId"] for s in changed.schemas if s["eventType"])

    async def scenario() -> None:
        gateway = Gateway(sources)
        owner = await gateway.keys.owner_of({"x-api-key": key})
        events = [
            b'{"eventType":"%b","payload":{}}' % kind for kind in (b"click", b"t", b"click", b"")
        ]
        outcome = await gateway.ingest.events(owner, events, request_sha256="ab")
        assert [r.position for r in outcome.rejects] == [0, 1, 2, 3]
        assert sorted(gateway.rejects(), key=str) == sorted(
            [
                (None, "1", ["value_out_of_range"]),
                (f"{schema_id}/1", "1", ["missing_field"]),
                (f"{click_id}/1", "1", ["missing_field", "missing_field"]),
            ],
            key=str,
        )

    run(scenario())


def test_a_failed_source_is_refused_clearly_and_nothing_is_lost(sources: Sources) -> None:
    source_id, key, _ = bound(sources, rule("n", max=5, action="FAIL"))
    other, other_key = sources.create("t", SERVER)

    async def scenario() -> None:
        gateway = Gateway(sources)
        following = asyncio.create_task(gateway.rules.follow())
        # What comes in the same request is judged on its own.
        outcome = await gateway.take(key, {"n": 9}, {"n": 1})
        assert (outcome.accepted, [e["code"] for e in outcome.errors]) == (1, ["failed_by_rule"])
        refused = await gateway.take(key, {"n": 1}, {"n": 2})
        assert [e["code"] for e in refused.errors] == ["source_failed"] * 2
        assert "payload.n is 9, allowed is up to 5" in str(refused.errors[0]["message"])
        assert "dcp source enable" in str(refused.errors[0]["message"])
        assert gateway.rejects()[-1] == (None, "1", ["source_failed"] * 2)
        assert (await gateway.take(other_key, {"n": 9})).accepted == 1
        following.cancel()

    run(scenario())
    # Another gateway knows it from the registry.
    gateway = Gateway(sources)
    gateway.rules.fail(source_id, "payload.n is 9", at_ms=NOW)
    gateway.rules._report()
    failed = sources.get(source_id)
    assert failed is not None
    assert failed.status is SourceStatus.ERROR

    async def elsewhere() -> None:
        second = Gateway(sources)
        assert (await second.take(key, {"n": 1})).accepted == 0
        sources.change(source_id, enabled=True)
        second.keys.refresh()
        assert (await second.take(key, {"n": 1})).accepted == 1

    run(elsewhere())
    assert sources.get(other.source_id) is not None


def test_a_failure_is_reported_until_the_registry_has_it(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_id, _, _ = bound(sources)
    fail, tries = Sources.fail, []

    def away_at_first(*args: Any, **more: Any) -> bool:
        tries.append(args)
        if len(tries) < 3:
            raise StoreUnavailableError("the registry is away")
        return fail(*args, **more)

    monkeypatch.setattr(Sources, "fail", away_at_first)
    monkeypatch.setattr(asyncio, "to_thread", _at_once)

    async def scenario() -> None:
        gateway = Gateway(sources)
        following = asyncio.create_task(gateway.rules.follow())
        gateway.rules.fail(source_id, "why", at_ms=NOW)
        while len(tries) < 3:
            rules = gateway.rules.of(source_id)
            assert rules is not None
            assert rules.failure
            await asyncio.sleep(0.5)
        following.cancel()
        rules = gateway.rules.of(source_id)
        assert rules is not None
        assert rules.failure

    run(scenario())
    failed = sources.get(source_id)
    assert failed is not None
    assert failed.failure == "why"


async def _at_once(work: Any, *args: Any) -> Any:
    return work(*args)


def test_sources_without_a_schema_are_not_looked_at(sources: Sources) -> None:
    _, key = sources.create("s", SERVER)

    async def scenario() -> None:
        gateway = Gateway(sources)
        outcome = await gateway.take(key, {"anything": [1]})
        assert outcome.accepted == 1
        assert gateway.metadata() == [{"receivedAt": NOW}]

    run(scenario())
