"""DuckDB for questions to whole tables: bounded memory, and a directory to spill what exceeds it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb


@contextmanager
def scratch(*, memory: str = "1GB", threads: int = 2) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose temporary tables and spilled pieces are gone when it is closed."""
    with tempfile.TemporaryDirectory(prefix="dcp-scratch-") as directory:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "memory_limit": memory,
            "temp_directory": directory,
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("set TimeZone = 'UTC'")
            yield connection
