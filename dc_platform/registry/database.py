"""Connecting to the registry, and bringing its schema up to date."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from filelock import FileLock
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dc_platform.errors import ConfigurationError, StoreUnavailableError
from dc_platform.registry.models import VersionRow

MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """An engine and its sessions; one per process and URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _engine(url)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back when the body raises."""
        try:
            with Session(self._engine) as session, session.begin():
                yield session
        except SQLAlchemyError as error:
            raise StoreUnavailableError(f"the registry at {self.url} failed: {error}") from error

    @contextmanager
    def change(self) -> Iterator[Session]:
        """A session whose changes other processes will notice by `version`."""
        with self.session() as session:
            yield session
            row = session.get(VersionRow, 1)
            if row is None:
                session.add(VersionRow(row=1, version=1))
            else:
                row.version += 1

    def version(self) -> int:
        """Grows with every change of sources, keys and tokens."""
        with self.session() as session:
            row = session.get(VersionRow, 1)
            return row.version if row else 0

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if parsed.get_backend_name() == "sqlite":

        @event.listens_for(engine, "connect")
        def _pragmas(connection: Any, _record: Any) -> None:
            # SQLAlchemy must not start transactions by itself: see _begin.
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=15000"):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            # A deferred transaction that reads and then writes fails at once when another process
            # wrote in between; an immediate one waits its turn.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def migrate(url: str) -> None:
    """Create the registry or bring its schema up to date; safe to call from several processes."""
    parsed = make_url(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database:
            raise ConfigurationError(
                "DCP_REGISTRY_URL names no file: write sqlite:////path/file.db"
            )
        path = Path(parsed.database)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.migrate"):
            command.upgrade(config, "head")
        return
    command.upgrade(config, "head")


def now_ms() -> int:
    """The time, in epoch milliseconds."""
    return time.time_ns() // 1_000_000
