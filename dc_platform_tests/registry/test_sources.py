"""Sources, their keys, and the history by which strangers' records are judged."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from dc_platform.errors import StoreUnavailableError
from dc_platform.registry import sources as sources_module
from dc_platform.registry.database import Database
from dc_platform.registry.keys import hash_secret
from dc_platform.registry.models import Base
from dc_platform.registry.sources import (
    Activity,
    KeyOwner,
    SourceHistory,
    Sources,
    SourceStatus,
    SourceType,
)

SERVER = SourceType.SERVER


@pytest.fixture
def sources(database: Database) -> Sources:
    return Sources(database)


def everything_stored(database: Database) -> str:
    """Each value of each row of the registry, as text."""
    tables = Base.metadata.tables
    with database.session() as session:
        rows = [tuple(row) for t in tables for row in session.execute(text(f"select * from {t}"))]
    return repr(rows)


def test_a_new_source_is_complete_and_its_key_is_shown_once(
    database: Database, sources: Sources
) -> None:
    made, key = sources.create(
        "Ümläut 🛰",
        SourceType.IOT_DEVICE,
        tenant_id="acme",
        metadata={"site": {"floor": 3}},
        schema={"fields": [{"name": "a", "type": "NUMBER"}]},
        by="me",
    )
    assert sources.get(made.source_id) == made
    assert sources.get(made.source_id.upper()) == made
    assert (made.name, made.type, made.tenant_id) == ("Ümläut 🛰", SourceType.IOT_DEVICE, "acme")
    assert made.metadata == {"site": {"floor": 3}}
    [schema] = made.schemas
    assert (schema["version"], schema["createdBy"]) == ("1", "me")
    assert [field["name"] for field in schema["fields"]] == ["a"]
    assert (made.status, made.last_seen_ms, made.ingestion_rate) == (SourceStatus.ACTIVE, None, 0)
    assert sources.keys() == {hash_secret(key): KeyOwner(made.source_id, "acme", True)}
    assert sources.owner_of(key) == KeyOwner(made.source_id, "acme", True)
    stored = everything_stored(database)
    assert key not in stored
    assert key[-30:] not in stored
    assert hash_secret(key) in stored


def test_keys_are_long_and_different(sources: Sources) -> None:
    keys = {sources.create("s", SERVER)[1] for _ in range(20)}
    assert len(keys) == 20
    assert all(key.startswith("dck_") and len(key) >= 47 for key in keys)


def test_sources_are_listed_oldest_first(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in (3, 1, 2):
        monkeypatch.setattr(sources_module, "now_ms", lambda at=at: at)
        sources.create(f"made at {at}", SERVER)
    assert [s.name for s in sources.list()] == ["made at 1", "made at 2", "made at 3"]


def test_a_change_touches_what_is_given(sources: Sources) -> None:
    made, _ = sources.create("before", SERVER, metadata={"a": 1}, schema={"fields": []})
    changed = sources.change(made.source_id, name="after")
    assert changed == made._replace(name="after")
    field = {"name": "c", "type": "STRING"}
    changed = sources.change(
        made.source_id, type_=SourceType.MOBILE_APP, metadata={}, schema={"fields": [field]}
    )
    assert changed is not None
    assert (changed.name, changed.type) == ("after", SourceType.MOBILE_APP)
    assert changed.metadata == {}
    assert [schema["version"] for schema in changed.schemas] == ["2"]
    assert sources.get(made.source_id) == changed
    assert sources.change("no such source", name="x") is None


def test_a_disabled_source_keeps_its_keys_and_may_come_back(sources: Sources) -> None:
    made, key = sources.create("s", SERVER)
    disabled = sources.change(made.source_id, enabled=False)
    assert disabled is not None
    assert disabled.status is SourceStatus.INACTIVE
    assert sources.owner_of(key) == KeyOwner(made.source_id, "default", False)
    assert sources.keys()[hash_secret(key)].enabled is False
    sources.change(made.source_id, enabled=True)
    assert sources.owner_of(key) == KeyOwner(made.source_id, "default", True)


def test_a_deleted_source_is_gone_but_for_its_history(sources: Sources) -> None:
    made, key = sources.create("s", SERVER)
    kept, kept_key = sources.create("other", SERVER)
    assert sources.delete(made.source_id.upper())
    assert sources.get(made.source_id) is None
    assert sources.list() == [kept]
    assert sources.owner_of(key) is None
    assert sources.keys().keys() == {hash_secret(kept_key)}
    assert sources.change(made.source_id, name="x") is None
    assert not sources.delete(made.source_id)
    tenant, created, deleted = sources.history()[made.source_id]
    assert (tenant, created) == ("default", made.created_ms)
    assert deleted is not None
    assert deleted >= created


def test_activity_shows_in_the_status(sources: Sources) -> None:
    made, _ = sources.create("s", SERVER)
    sources.report({made.source_id: Activity(5_000, 12.5, True), "gone": Activity(1, 1.0, False)})
    found = sources.get(made.source_id)
    assert found is not None
    assert (found.last_seen_ms, found.ingestion_rate) == (5_000, 12.5)
    assert found.status is SourceStatus.ERROR
    sources.report({made.source_id: Activity(6_000, 0.0, False)})
    found = sources.get(made.source_id)
    assert found is not None
    assert (found.last_seen_ms, found.status) == (6_000, SourceStatus.ACTIVE)
    sources.report({made.source_id: Activity(6_000, 0.0, True)})
    disabled = sources.change(made.source_id, enabled=False)
    assert disabled is not None
    assert disabled.status is SourceStatus.INACTIVE


def test_every_change_is_noticed_by_the_version(sources: Sources) -> None:
    assert sources.version() == 0
    made, _ = sources.create("s", SERVER)
    versions = [sources.version()]
    sources.change(made.source_id, enabled=False)
    versions.append(sources.version())
    sources.report({made.source_id: Activity(1, 1.0, False)})
    assert sources.version() == versions[-1]
    sources.delete(made.source_id)
    versions.append(sources.version())
    assert versions == sorted(set(versions))


def test_changes_at_once_all_count(url: str, sources: Sources) -> None:
    """Two that count as one: whoever read between them never learns of the second."""
    databases = [Database(url) for _ in range(4)]
    start = threading.Barrier(4)

    def create(database: Database) -> None:
        start.wait()
        for _ in range(5):
            Sources(database).create("s", SERVER)

    threads = [threading.Thread(target=create, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for database in databases:
        database.close()
    assert len(sources.list()) == 20
    assert sources.version() == 20


def test_what_fails_changes_nothing(database: Database, sources: Sources) -> None:
    made, _ = sources.create("s", SERVER)
    before = everything_stored(database)

    def half_a_change() -> None:
        with database.change() as session:
            session.execute(text("update sources set name = 'half'"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_change()
    assert everything_stored(database) == before
    assert sources.get(made.source_id) == made


def test_a_reader_does_not_wait_for_a_writer(url: str, sources: Sources) -> None:
    made, key = sources.create("s", SERVER)
    other = Database(url)
    with other.change() as session:
        session.execute(text("update sources set name = 'not yet'"))
        assert sources.get(made.source_id) == made
        assert sources.owner_of(key) is not None
        assert sources.version() == 1
    other.close()
    assert sources.version() == 2


def test_a_registry_that_is_away_is_a_typed_error_without_the_password(tmp_path: Path) -> None:
    gone = Database(f"postgresql://user:secret@/registry?host={tmp_path}")
    with pytest.raises(StoreUnavailableError) as caught:
        gone.version()
    assert "registry" in str(caught.value)
    assert "secret" not in str(caught.value)
    gone.close()


class Clocks:
    """The registry's clock, and a count of the looks at the registry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ms = 1_000_000
        self.readings = 0
        version = Sources.version
        monkeypatch.setattr(sources_module, "now_ms", lambda: self.ms)
        monkeypatch.setattr(sources_module.time, "monotonic", lambda: self.ms / 1000)

        def counted(sources: Sources) -> int:
            self.readings += 1
            return version(sources)

        monkeypatch.setattr(Sources, "version", counted)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_the_history_answers_as_of_the_time_of_the_record(sources: Sources, clocks: Clocks) -> None:
    made, _ = sources.create("s", SERVER, tenant_id="acme")
    created = clocks.ms
    clocks.ms += 60_000
    sources.delete(made.source_id)
    (deleted,) = [row[2] for row in sources.history().values()]
    assert deleted is not None
    assert clocks.ms <= deleted <= clocks.ms + 5_000
    clocks.ms += 60_000
    expected = {
        0: None,
        created - 1: None,
        created: "acme",
        deleted - 1: "acme",
        deleted: None,
        clocks.ms + 60_000: None,
    }
    history = SourceHistory(sources)
    for at in (*expected, *reversed(expected)):
        assert history.tenant_of(made.source_id, at) == expected[at], at
        # A reader that starts later judges the same.
        assert SourceHistory(sources).tenant_of(made.source_id, at) == expected[at], at
    assert history.tenant_of("never was", clocks.ms) is None


def test_no_verdict_before_a_deletion_was_written_contradicts_it(
    sources: Sources, clocks: Clocks
) -> None:
    """A record that arrives while the deletion waits for the database."""
    made, _ = sources.create("s", SERVER)
    clocks.ms += 10_000
    arrived = clocks.ms
    before = SourceHistory(sources).tenant_of(made.source_id, arrived)
    sources.delete(made.source_id)
    clocks.ms += 10_000
    assert SourceHistory(sources).tenant_of(made.source_id, arrived) == before == "default"


def test_the_history_is_read_when_a_record_is_newer_than_it(
    sources: Sources, clocks: Clocks
) -> None:
    history = SourceHistory(sources)
    clocks.ms += 1_000
    assert history.tenant_of("unknown", clocks.ms - 500) is None
    assert clocks.readings == 1
    # Older records are answered from memory.
    for at in range(0, clocks.ms, 100_000):
        history.tenant_of("unknown", at)
    assert clocks.readings == 1
    made, _ = sources.create("s", SERVER)
    assert history.tenant_of(made.source_id, clocks.ms) == "default"
    assert clocks.readings == 2
    # A broker whose clock is ahead: a known source is taken from memory, an unknown one is not.
    for _ in range(10):
        assert history.tenant_of(made.source_id, clocks.ms + 5_000) == "default"
    assert clocks.readings == 2
    history.tenant_of("unknown", clocks.ms + 5_000)
    assert clocks.readings == 3
    clocks.ms += 1_000
    history.tenant_of(made.source_id, clocks.ms + 5_000)
    assert clocks.readings == 4
