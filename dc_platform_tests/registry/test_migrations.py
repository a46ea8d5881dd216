"""Migrations make the schema that the models describe, whole or not at all, from any start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text

from dc_platform.errors import ConfigurationError, StoreUnavailableError
from dc_platform.registry.database import MIGRATIONS, Database, migrate
from dc_platform.registry.models import Base
from dc_platform.registry.sources import Sources, SourceType


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    made = create_engine(empty_url)
    yield made
    made.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def differences(engine: Engine) -> list[Any]:
    """Between the models and the database, as autogenerate would write them into a migration."""
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Base.metadata))


def configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def to(engine: Engine, revision: str) -> None:
    config = configuration()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        move = command.downgrade if revision == "base" else command.upgrade
        move(config, revision)


def test_migrations_and_models_are_the_same(empty_url: str, engine: Engine) -> None:
    assert len(differences(engine)) >= len(Base.metadata.tables)
    migrate(empty_url)
    assert tables(engine) == set(Base.metadata.tables)
    assert differences(engine) == []


def test_there_is_one_line_of_migrations() -> None:
    script = ScriptDirectory.from_config(configuration())
    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1


def test_migrating_again_keeps_everything(empty_url: str) -> None:
    migrate(empty_url)
    database = Database(empty_url)
    made, _ = Sources(database).create("s", SourceType.SERVER)
    migrate(empty_url)
    assert Sources(database).list() == [made]
    database.close()


def test_down_and_up_again(empty_url: str, engine: Engine) -> None:
    for _ in range(2):
        to(engine, "head")
        assert differences(engine) == []
        to(engine, "base")
        assert tables(engine) == set()
    migrate(empty_url)
    assert differences(engine) == []


def test_what_described_a_source_before_schemas_judged_is_kept(
    empty_url: str, engine: Engine
) -> None:
    to(engine, "0001")
    columns = (
        "source_id, tenant_id, name, type, metadata, schema, enabled, ingestion_rate, rejecting"
    )
    with engine.begin() as connection:
        for name, schema in (("a", '{"b": 1}'), ("c", "null"), ("d", None)):
            values = {"name": name, "schema": schema}
            connection.execute(
                text(
                    f"insert into sources ({columns}, created_ms) values (:name, 't', :name,"
                    " 'SERVER', '{\"x\": 1}', :schema, true, 0, false, 1)"
                ),
                values,
            )
    migrate(empty_url)
    database = Database(empty_url)
    kept = {source.name: source.metadata for source in Sources(database).list()}
    database.close()
    assert kept == {"a": {"x": 1, "schema": {"b": 1}}, "c": {"x": 1}, "d": {"x": 1}}


def test_a_migration_that_dies_leaves_nothing_behind(
    empty_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_table = Operations.create_table
    made: list[str] = []

    def dying(operations: Operations, name: str, *columns: Any, **options: Any) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(name)
        return create_table(operations, name, *columns, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "create_table", dying)
        with pytest.raises(KeyboardInterrupt):
            migrate(empty_url)
    assert len(made) == 3
    assert tables(engine) == set()
    migrate(empty_url)
    assert differences(engine) == []


def test_several_may_migrate_at_once(empty_url: str, engine: Engine) -> None:
    failed: list[Exception] = []
    start = threading.Barrier(4)

    def run() -> None:
        start.wait()
        try:
            migrate(empty_url)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert differences(engine) == []


def test_a_url_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        migrate("sqlite://")


def test_a_database_that_is_away_is_a_typed_error(tmp_path: Any) -> None:
    with pytest.raises(StoreUnavailableError):
        migrate(f"postgresql://user@/registry?host={tmp_path}")
