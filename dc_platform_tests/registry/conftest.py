"""An empty registry on each of the databases that the platform runs on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dc_platform.registry.database import Database, migrate
from dc_platform_tests.helpers.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL; its wheel is installed on Linux only."""
    if sys.platform != "linux":
        pytest.skip("PostgreSQL is tested on Linux")
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def url(empty_url: str) -> str:
    """URL of an empty registry."""
    migrate(empty_url)
    return empty_url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An empty registry."""
    opened = Database(url)
    yield opened
    opened.close()
