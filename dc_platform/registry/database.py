"""Connecting to the registry, and bringing its schema up to date."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dc_platform.errors import ConfigurationError, StoreUnavailableError
from dc_platform.registry.models import VersionRow

MIGRATIONS = Path(__file__).parent / "migrations"

# PostgreSQL's number for the lock under which one process migrates: any, but always the same.
_MIGRATION_LOCK = 7_309_455_310
# In the database, not in Python: two changes at once must count as two.
_COUNT_CHANGE = text(
    'insert into registry_version ("row", version) values (1, 1)'
    ' on conflict ("row") do update set version = registry_version.version + 1'
)


class Database:
    """An engine and its sessions; one per process and URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _engine(url)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back when the body raises."""
        with _translated(self.url), Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads: on SQLite it waits for no writer."""
        engine = self._engine.execution_options(reading=True)
        with _translated(self.url), Session(engine) as session, session.begin():
            yield session

    @contextmanager
    def change(self) -> Iterator[Session]:
        """A session whose changes other processes will notice by `version`.

        Counting comes first: it locks the row, so changes come one after the other, and each can read
        its own number there (`version_of`).
        """
        with self.session() as session:
            session.execute(_COUNT_CHANGE)
            yield session

    def version(self) -> int:
        """Grows with every change of sources, keys, tokens and metrics."""
        with self.reading() as session:
            return version_of(session)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The registry with its schema up to date, closed at the end of the block."""
    migrate(url)
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def version_of(session: Session) -> int:
    """The registry's version that a session sees."""
    row = session.get(VersionRow, 1)
    return row.version if row else 0


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
            reads = connection.get_execution_options().get("reading")
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        where = make_url(url).render_as_string(hide_password=True)
        raise StoreUnavailableError(f"the registry at {where} failed: {error}") from error


def migrate(url: str) -> None:
    """Create the registry or bring its schema up to date; safe to call from several processes."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        _upgrade(url)
        return
    if not parsed.database:
        raise ConfigurationError("DCP_REGISTRY_URL names no file: write sqlite:////path/file.db")
    path = Path(parsed.database)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.migrate"):
        _upgrade(url)


def _upgrade(url: str) -> None:
    """One transaction, on SQLite too: a process that dies leaves no half of a schema."""
    # 0.3 s to import, for what a process does once or never.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = _engine(url)
    try:
        with _translated(url), engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"select pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def now_ms() -> int:
    """The time, in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def iso_time(ms: int) -> str:
    """Epoch milliseconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
