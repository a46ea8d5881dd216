"""A registry and a gateway without Kafka and without a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from dc_platform.gateway.app import create_app
from dc_platform.registry.access import TokenRing
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.metrics import Metrics
from dc_platform.registry.sources import Sources
from dc_platform.registry.tokens import Tokens
from dc_platform.settings import Settings


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty registry, to be copied."""
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Iterator[Database]:
    """An empty registry."""
    shutil.copy(migrated, tmp_path / "registry.db")
    opened = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    yield opened
    opened.close()


@pytest.fixture
def sources(database: Database) -> Sources:
    """The sources of the registry."""
    return Sources(database)


@pytest.fixture
def app(database: Database, sources: Sources) -> FastAPI:
    """The gateway's application with its registry; nothing of Kafka was started."""
    made = create_app(Settings())
    made.state.sources = sources
    made.state.metrics = Metrics(database)
    made.state.tokens = TokenRing(Tokens(database), seconds=2.0)
    return made
