"""Schemas in the registry: versions, bindings, failures; and verdicts that stay what they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dc_platform.broker.records import Record
from dc_platform.contracts.evolution import Compatibility
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.schema import SchemaConflictError, SchemaError
from dc_platform.decode.columns import plain
from dc_platform.decode.decoder import Decoder
from dc_platform.registry import bindings, schema_rows
from dc_platform.registry import schemas as schemas_module
from dc_platform.registry import sources as sources_module
from dc_platform.registry.database import Database
from dc_platform.registry.rules import NEWEST, Checkers
from dc_platform.registry.schema_rows import SETTLE_MS
from dc_platform.registry.schemas import Schemas, history, tried
from dc_platform.registry.sources import SourceHistory, Sources, SourceStatus, SourceType
from dc_platform_tests.helpers.records import TOPIC_ID, rows, strange

SERVER = SourceType.SERVER
START = 1_000_000_000


def fields(*names: str, **more: Any) -> dict[str, Any]:
    return {"fields": [{"name": name, "type": "NUMBER", **more} for name in names]}


@pytest.fixture
def sources(database: Database) -> Sources:
    return Sources(database)


@pytest.fixture
def schemas(database: Database) -> Schemas:
    return Schemas(database)


class Clock:
    """The registry's clock."""

    def __init__(self) -> None:
        self.ms = START

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (schemas_module, sources_module, bindings, schema_rows):
        monkeypatch.setattr(module, "now_ms", made)
    # A reading counts as recent in true time, so it does not here.
    monkeypatch.setattr(SourceHistory, "_SKEW_SECONDS", -1.0)
    return made


def test_versions_are_appended_and_their_history_is_told(schemas: Schemas) -> None:
    made = schemas.create("orders", fields("a"), by="ann")
    added = schemas.add_version(made.schema_id, fields("a", "b"), by="bob")
    assert added is not None
    assert (made.version, added.version) == (1, 2)
    assert schemas.get(made.schema_id) == added
    assert schemas.get(made.schema_id.upper(), 1) == made
    assert schemas.get(made.schema_id, 3) is None
    assert schemas.all() == [added]
    told = history(schemas.versions(made.schema_id))
    assert [(v["version"], v["createdBy"], v["changes"]) for v in told] == [
        ("1", "ann", ["field 'a' added (NUMBER, optional, QUARANTINE)"]),
        ("2", "bob", ["field 'b' added (NUMBER, optional, QUARANTINE)"]),
    ]
    assert schemas.add_version("no such schema", fields("a")) is None
    assert schemas.versions("no such schema") == []


def test_what_the_mode_forbids_is_refused_and_changes_nothing(schemas: Schemas) -> None:
    made = schemas.create("orders", fields("a"))
    with pytest.raises(SchemaConflictError, match=r"BACKWARD .* field 'b' is new and required"):
        schemas.add_version(made.schema_id, fields("b", required=True))
    assert schemas.versions(made.schema_id) == [made]
    free = schemas.create("free", fields("a"), compatibility=Compatibility.NONE)
    assert schemas.add_version(free.schema_id, fields("b", required=True)) is not None
    with pytest.raises(SchemaConflictError, match="there is a schema 'free'"):
        schemas.create("free", fields("a"))
    rule = {"field": "a", "rule": "pattern", "pattern": "("}
    content = {"fields": [{"name": "a", "type": "STRING"}], "validations": [rule]}
    with pytest.raises(SchemaError, match="pattern of 'a'"):
        schemas.create("other", content)
    assert [s.name for s in schemas.all()] == ["orders", "free"]


def test_a_tenant_sees_its_own_schemas_only(schemas: Schemas, sources: Sources) -> None:
    made = schemas.create("orders", fields("a"), tenant_id="acme")
    assert schemas.create("orders", fields("a")).schema_id != made.schema_id
    assert schemas.get(made.schema_id) is None
    assert schemas.add_version(made.schema_id, fields("b")) is None
    assert not schemas.delete(made.schema_id)
    source, _ = sources.create("s", SERVER)
    with pytest.raises(SchemaError, match="there is no schema"):
        schemas.bind(source.source_id, {"schemaId": made.schema_id})


def test_a_source_with_its_schema_is_made_as_one_or_not_at_all(
    schemas: Schemas, sources: Sources
) -> None:
    refused: list[dict[str, Any]] = [
        {"fields": [{"name": "a"}]},
        {"schemaId": "none such"},
        {"schemaId": None, "fields": []},
        {"version": "1", "fields": []},
        {"compatibility": "SOME", "fields": []},
    ]
    for wrong in refused:
        with pytest.raises(SchemaError):
            sources.create("s", SERVER, schema=wrong)
    assert sources.list() == []
    assert schemas.all() == []
    made, _ = sources.create("s", SERVER, schema={"name": "orders", **fields("a")})
    assert [s["name"] for s in made.schemas] == ["orders"]
    # The same name is the same schema: nothing new, or a version more.
    other, _ = sources.create("t", SERVER, schema={"name": "orders", **fields("a")})
    assert other.schemas == made.schemas
    changed = sources.change(other.source_id, schema={"name": "orders", **fields("a", "b")})
    assert changed is not None
    assert [s["version"] for s in changed.schemas] == ["2"]
    assert len(schemas.bindings(other.source_id)) == 1
    assert sources.list() == [sources.get(made.source_id), changed]


def test_a_schema_that_judges_a_source_is_not_deleted(schemas: Schemas, sources: Sources) -> None:
    made = schemas.create("orders", fields("a"), event_type="order")
    source, _ = sources.create("s", SERVER, schema={"schemaId": made.schema_id})
    assert [s["eventType"] for s in source.schemas] == ["order"]
    with pytest.raises(SchemaConflictError, match=f"judges 1 sources .{source.source_id}"):
        schemas.delete(made.schema_id)
    assert schemas.bind(source.source_id, {"schemaId": None, "eventType": "order"}, by="ann")
    assert schemas.delete(made.schema_id)
    assert not schemas.delete(made.schema_id)
    assert (schemas.all(), schemas.get(made.schema_id)) == ([], None)
    bound = schemas.bindings(source.source_id)
    assert [b.schema_id for b in bound] == [made.schema_id, None]
    # The name is free again.
    assert schemas.create("orders", fields("a")).schema_id != made.schema_id


def test_a_type_has_its_own_schema_beside_the_one_for_all(
    schemas: Schemas, sources: Sources
) -> None:
    source, _ = sources.create("s", SERVER, schema=fields("a", required=True))
    clicks = schemas.create("clicks", fields("b", required=True), event_type="click")
    with pytest.raises(SchemaError, match="is for click"):
        schemas.bind(source.source_id, {"schemaId": clicks.schema_id, "eventType": "view"})
    assert schemas.bind(source.source_id, {"schemaId": clicks.schema_id})
    rules = sources.rules(Checkers()).at(source.source_id, NEWEST)
    assert rules is not None
    names = {slot: checker.judged_by for slot, checker in rules.checkers.items()}
    assert names == {
        "": f"{source.schemas[0]['schemaId']}/1",
        "click": f"{clicks.schema_id}/1",
    }
    assert not schemas.bind("no such source", {"schemaId": clicks.schema_id})


def test_every_change_is_noticed_by_the_version(schemas: Schemas, sources: Sources) -> None:
    source, _ = sources.create("s", SERVER)
    versions = [sources.version()]
    made = schemas.create("orders", fields("a"))
    versions.append(sources.version())
    schemas.add_version(made.schema_id, fields("a", "b"))
    versions.append(sources.version())
    schemas.bind(source.source_id, {"schemaId": made.schema_id})
    versions.append(sources.version())
    sources.fail(source.source_id, "why", at_ms=0)
    versions.append(sources.version())
    assert versions == sorted(set(versions))


def test_a_trial_writes_nothing(schemas: Schemas) -> None:
    made = schemas.create("orders", fields("a"))
    found = tried(made, content=fields("b", required=True), payload={"b": "x"})
    assert found["compatible"] is False
    assert "'b' is new and required" in found["problems"][0]
    assert (found["verdict"], found["code"]) == ("rejected", Reason.WRONG_TYPE)
    assert found["judgedBy"] == f"{made.schema_id}/2"
    found = tried(made, payload={"a": 1})
    assert found == {"verdict": "valid", "flags": [], "judgedBy": f"{made.schema_id}/1"}
    assert schemas.versions(made.schema_id) == [made]


# --- failing ---


def test_a_failed_source_has_failed_until_it_is_enabled(sources: Sources) -> None:
    made, _ = sources.create("s", SERVER)
    assert sources.fail(made.source_id, "payload.a is 9", at_ms=made.created_ms)
    assert not sources.fail(made.source_id, "again", at_ms=made.created_ms + 10**9)
    failed = sources.get(made.source_id)
    assert failed is not None
    assert (failed.status, failed.failure) == (SourceStatus.ERROR, "payload.a is 9")
    rules = sources.rules(Checkers()).at(made.source_id, NEWEST)
    assert rules is not None
    assert rules.failure == f"source {made.source_id} has failed: payload.a is 9"
    enabled = sources.change(made.source_id, enabled=True)
    assert enabled is not None
    assert (enabled.status, enabled.failure) == (SourceStatus.ACTIVE, None)
    assert sources.rules(Checkers()).at(made.source_id, NEWEST) is None
    # The event for which it failed is met again, by landing: it was dealt with.
    assert not sources.fail(made.source_id, "payload.a is 9", at_ms=made.created_ms)
    assert sources.fail(made.source_id, "a new one", at_ms=made.created_ms + 10**9)


# --- a verdict stays what it is ---


def test_a_record_is_judged_alike_whenever_it_is_read(
    sources: Sources, schemas: Schemas, clock: Clock
) -> None:
    """Read as it comes, and read again when everything has changed since."""
    made, _ = sources.create("s", SERVER, schema=fields("a", required=True))
    schema_id, source_id = made.schemas[0]["schemaId"], made.source_id
    clicks = schemas.create("clicks", fields("b", required=True), event_type="click")

    def steps() -> Iterator[str]:
        yield "made"
        rule = {"field": "a", "rule": "range", "max": 3}
        schemas.add_version(schema_id, {**fields("a", required=True), "validations": [rule]})
        yield "a new version"
        schemas.bind(source_id, {"schemaId": clicks.schema_id})
        yield "another schema for clicks"
        sources.fail(source_id, "why", at_ms=clock.ms)
        yield "failed"
        sources.change(source_id, enabled=True)
        yield "enabled"
        schemas.bind(source_id, {"schemaId": None})
        yield "unbound"
        sources.delete(source_id)
        yield "deleted"

    live = Decoder(TOPIC_ID, SourceHistory(sources))
    read: list[tuple[str, Any]] = []
    records: list[Record] = []
    for step in steps():
        for later in (0, SETTLE_MS - 1, 1, SETTLE_MS):
            clock.ms += later
            for payload in ({"a": 1}, {"a": 5}, {"b": 1}):
                for kind in ("t", "click"):
                    event = {"sourceId": source_id, "eventType": kind, "payload": payload}
                    value = json.dumps(event).encode()
                    records.append(strange(value, len(records), timestamp_ms=clock.ms))
                    [row] = rows(plain(live.decode(records[-1:])))
                    read.append((step, row))
    again = rows(plain(Decoder(TOPIC_ID, SourceHistory(sources)).decode(records)))
    assert again == [row for _, row in read]
    reasons = {step: {row["reason"] for s, row in read if s == step} for step, _ in read}
    assert Reason.MISSING_FIELD in reasons["made"]
    assert Reason.VALUE_OUT_OF_RANGE in reasons["a new version"]
    assert Reason.SOURCE_FAILED in reasons["failed"]
    assert Reason.UNKNOWN_SOURCE in reasons["deleted"]
    by = {row["judged_by"] for _, row in read}
    assert by == {None, f"{schema_id}/1", f"{schema_id}/2", f"{clicks.schema_id}/1"}
