"""A copy of the registry, consistent while others write to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from dc_platform.errors import StoreUnavailableError

REGISTRY_FILE = "registry.db"
ELSEWHERE = "not copied: PostgreSQL has its own tools; run pg_dump beside each backup"
NONE = "not copied: there is none yet"


def copy_registry(url: str, target: Path) -> str:
    """Copy the registry to the file `target` by SQLite's online backup; gives the file's name, or says
    why there is none.
    """
    path = sqlite_file(url)
    if path is None:
        return ELSEWHERE
    if not path.exists():
        return NONE
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"copying the registry failed: {error}") from error
    return target.name


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite registry; None for another database."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)
